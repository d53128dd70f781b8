"""Reinforcement Learning Optimization: Section 3.3, Eq 7-9 and Algorithm 1, https://arxiv.org/abs/2108.04014."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from experiments.weighting.avw import AVW, compute_level_weights
from experiments.weighting.base import Interval
from experiments.weighting.options import ACTIONS


class RLO(AVW):
    """A probabilistic policy over the actions; what lowered the total loss is chosen more often.

    Order at the end of an interval (Algorithm 1): state, reward of the action that was in force, update of its
    probability, draw of the next action, weights. With a single action its probability stays 1. With `gamma`
    0 the policy draws at random and learns nothing, which is the method's own control.

    Args:
        n, amplification: As AVW's.
        gamma: γ, the step by which a probability is rewarded or punished.
        beta: Bounds of the probability that is rewarded or punished (only that one is clipped, Eq 9).
        actions: What may be chosen, a subset of a0..a3; `probabilities` follow the paper's order.
    """

    probabilities: Tensor  # (A,) float64

    def __init__(
        self,
        num_levels: int,
        seed: int = 0,
        alpha: int = 100,
        n: int = 2,
        amplification: Sequence[float] = (1.5, 1.0),
        gamma: float = 0.01,
        beta: Sequence[float] = (0.1, 0.9),
        actions: Sequence[str] = ACTIONS,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(num_levels, seed, alpha, n, amplification, epsilon)
        self.gamma = gamma
        self.beta = tuple(beta)
        self.actions = tuple(a for a in ACTIONS if a in actions)
        self.probabilities = torch.full((len(self.actions),), 1 / len(self.actions), dtype=torch.float64)

    def update(self, interval: Interval) -> Tensor:
        if self.action is not None:
            self.reward = int(torch.sign(interval.losses_before.sum() - interval.losses.sum()))  # Eq 7
            self._reinforce(self.actions.index(self.action))
        self.action = self.actions[self._draw()]
        return compute_level_weights(self.action, interval, self.n, self.amplification)

    def _reinforce(self, chosen: int) -> None:
        """Change the chosen action's probability (Eq 9); a reward of 0 punishes, as every non-positive one does."""
        if len(self.actions) == 1:
            return
        old = self.probabilities[chosen].item()
        new = min(max(old + (self.gamma if self.reward > 0 else -self.gamma), self.beta[0]), self.beta[1])
        self.probabilities = self.probabilities * ((1 - new) / (1 - old))
        self.probabilities[chosen] = new

    def _draw(self) -> int:
        uniform = torch.rand((), dtype=torch.float64, generator=self.generator)
        index = torch.searchsorted(self.probabilities.cumsum(0), uniform, right=True)
        return min(int(index), len(self.actions) - 1)  # the sum may end a rounding short of 1

    def extra_state(self) -> dict[str, Any]:
        return {"actions": list(self.actions), "probabilities": self.probabilities.clone()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        if tuple(state["actions"]) != self.actions:
            raise ValueError(
                f"actions: the saved policy has {state['actions']}, this one {list(self.actions)}"
            )
        self.probabilities = state["probabilities"].cpu().clone()
