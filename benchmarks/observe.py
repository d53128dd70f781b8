"""The time of a weighting rule per optimizer step, on the CPU and on a GPU where there is one."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from experiments.weighting import build_weighting


def measure(steps: int = 2000, repeats: int = 15) -> dict[str, Any]:
    """Return microseconds of `observe`: median over repeats of the mean over steps.

    `inside` never ends an interval; `alpha 100` has one end in every hundred calls.
    """
    found: dict[str, Any] = {}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        losses = [torch.rand(5, device=device) for _ in range(100)]
        for rule in ("uniform", "avw", "rlo"):
            inside = build_weighting(rule, num_levels=5, alpha=steps * (repeats + 1) + 1)
            mixed = build_weighting(rule, num_levels=5, alpha=100)
            found[f"{rule} on {device}"] = {
                "inside us": _median_us(inside, losses, steps, repeats),
                "alpha 100 us": _median_us(mixed, losses, steps, repeats),
            }
    return found


def _median_us(rule: Any, losses: list[torch.Tensor], steps: int, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        if losses[0].is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for step in range(steps):
            rule.observe(losses[step % len(losses)])
        if losses[0].is_cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / steps * 1e6)
    return statistics.median(times[1:])  # the first one warms up
