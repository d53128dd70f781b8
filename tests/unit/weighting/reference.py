"""AVW and RLO once more, in NumPy and plain Python, written from the formulas: what the tests compare with."""

import numpy as np

ACTIONS = ["variance", "smallest", "largest", "uniform"]


class Reference:
    """Takes losses step by step; the actions to execute are handed in, since a draw cannot be predicted."""

    def __init__(
        self, k, alpha, n, lambdas=(1.5, 1.0), gamma=0.01, beta=(0.1, 0.9), actions=ACTIONS, eps=1e-5
    ):
        self.k, self.alpha, self.n, self.lambdas = k, alpha, n, lambdas
        self.gamma, self.beta, self.actions, self.eps = gamma, beta, list(actions), eps
        self.p = [1 / len(actions)] * len(actions)
        self.w = np.ones(k)
        self.rows, self.var_before, self.sum_before = [], np.ones(k), None
        self.reward, self.in_force = 0, None

    def step(self, losses, next_action):
        """`next_action` is asked for at the end of an interval."""
        self.rows.append(np.asarray(losses, dtype=np.float64))
        if len(self.rows) < self.alpha:
            return False
        block = np.stack(self.rows)
        self.rows = []
        sums, variances = block.sum(axis=0), block.var(axis=0, ddof=1)
        rate = (self.var_before - variances) / (self.var_before + self.eps)
        if self.in_force is not None:
            self._learn(sums)
        self.var_before, self.sum_before = variances, sums
        self.in_force = next_action()
        self.w = self._weights(self.in_force, sums, rate)
        return True

    def _learn(self, sums):
        self.reward = int(np.sign(self.sum_before.sum() - sums.sum()))
        if len(self.actions) == 1:
            return
        k = self.actions.index(self.in_force)
        old = self.p[k]
        step = self.gamma if self.reward > 0 else -self.gamma
        new = min(max(old + step, self.beta[0]), self.beta[1])
        self.p = [new if q == k else v * (1 - new) / (1 - old) for q, v in enumerate(self.p)]

    def _weights(self, action, sums, rate):
        weights = [1.0] * self.k
        if action == "uniform" or sums.sum() == 0:
            return np.array(weights)
        score = {"variance": -rate, "smallest": sums, "largest": -sums}[action]
        ranking = sorted(range(self.k), key=lambda level: (score[level], level))
        for rank, level in enumerate(ranking[: self.n]):
            factor = self.lambdas[0] if rank == 0 else self.lambdas[1]
            weights[level] = 1 + factor * sums[level] / sums.sum()
        return np.array(weights)
