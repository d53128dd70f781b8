"""The time of a weighting rule per optimizer step, on the CPU and on a GPU where there is one."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import torch
from torch.utils.benchmark import Timer

from experiments.weighting import build_weighting


def measure(steps: int = 2000, repeats: int = 15) -> dict[str, Any]:
    """Return microseconds of `observe`: median over repeats of the mean over steps.

    `inside` never ends an interval; `alpha 100` has one end in every hundred calls.
    """
    found: dict[str, Any] = {}
    intervals = {"inside us": 2 * steps * (repeats + 1), "alpha 100 us": 100}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        losses = itertools.cycle([torch.rand(5, device=device) for _ in range(100)])
        for rule in ("uniform", "avw", "rlo"):
            figures = found[f"{rule} on {device}"] = {}
            for name, alpha in intervals.items():
                built = build_weighting(rule, num_levels=5, alpha=alpha)
                timer = Timer("rule.observe(next(losses))", globals={"rule": built, "losses": losses})
                means = [timer.timeit(steps).median for _ in range(repeats + 1)]
                figures[name] = 1e6 * statistics.median(means[1:])  # the first one warms up
    return found
