"""What level weighting adds to a training iteration: RLO and AVW against uniform, interleaved in one process.

The three detectors share weights, data and machine; blocks of iterations take turns, in an order that turns
round by round, so that what else the machine does falls on all alike. The ratio is taken within each round.
Stock MMDetection's own detector is a fourth, for what the level split itself costs.
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path
from typing import Any

KINDS = ("stock", "uniform", "avw", "rlo")


def measure(rounds: int = 12, steps: int = 10, batch_size: int = 8, size: int = 160) -> dict[str, Any]:
    """Milliseconds per iteration, ratios to uniform within each round, and what the rule itself takes.

    A ratio's uncertainty is two standard errors over the rounds. The rule's own share is timed directly: it
    is far below what the ratio of two trainings can resolve.
    """
    steppers = {kind: _Stepper(kind, batch_size, size) for kind in KINDS}
    for stepper in steppers.values():
        stepper.seconds(3)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        order = KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]
        for kind in order:
            times[kind].append(steppers[kind].seconds(steps) / steps)
    found: dict[str, Any] = {f"{kind} ms": 1000 * statistics.median(times[kind]) for kind in KINDS}
    for kind in ("stock", "avw", "rlo"):
        ratios = [a / b for a, b in zip(times[kind], times["uniform"])]
        error = statistics.stdev(ratios) / len(ratios) ** 0.5
        found[f"{kind} to uniform"] = {"ratio": statistics.mean(ratios), "two standard errors": 2 * error}
    for kind in ("uniform", "avw", "rlo"):
        stepper = steppers[kind]
        found[f"{kind} finish_step"] = {
            "us per iteration": 1e6 * stepper.rule_s / stepper.steps,
            "% of the iteration": 100 * stepper.rule_s / stepper.all_s,
        }
    return found


class _Stepper:
    """One detector with its optimizer; trains on the same made-up batch."""

    def __init__(self, kind: str, batch_size: int, size: int) -> None:
        import torch
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules

        from experiments import recipes
        from experiments.detection import operators  # noqa: F401  (importing it registers everything)
        from experiments.training.config import build_config

        register_all_modules(init_default_scope=True)
        recipe = recipes.load_recipe("retinanet-r50", "tiny")
        config = build_config(recipe, ["a", "b", "c", "d"], Path(), Path()).model
        config.weighting = dict(rule=kind, alpha=100)
        if kind == "stock":
            config.type = "RetinaNet"
            config.pop("weighting")
        torch.manual_seed(0)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = MODELS.build(config).to(device).train()
        from mmengine.optim import OptimWrapper

        self.optimizer = OptimWrapper(torch.optim.SGD(self.model.parameters(), lr=1e-4))
        self.batch = _batch(batch_size, size)
        self.steps, self.rule_s, self.all_s = 0, 0.0, 0.0

    def seconds(self, steps: int) -> float:
        import torch

        start = time.perf_counter()
        for _ in range(steps):
            self.model.train_step(copy.copy(self.batch), self.optimizer)
            before = time.perf_counter()
            for head in getattr(self.model, "weighting", ()):
                head.finish_step()
            self.rule_s += time.perf_counter() - before
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        self.steps += steps
        self.all_s += seconds
        return seconds


def _batch(batch_size: int, size: int) -> dict[str, Any]:
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for _ in range(batch_size):
        inputs.append(torch.randint(0, 255, (3, size, size), generator=generator, dtype=torch.uint8))
        corner = torch.rand(4, 2, generator=generator) * size * 0.5
        side = size * torch.tensor([0.1, 0.2, 0.3, 0.5])[:, None]
        sample = DetDataSample(
            metainfo=dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + side], 1), labels=torch.arange(4)
        )
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}
