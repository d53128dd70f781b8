"""Images per second of whole trainings: stock MMDetection's, msdet's, and msdet's with `--fast` and mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks import overhead
from benchmarks.loops import Task
from benchmarks.overhead import Loop

LOOPS = {
    "stock": Loop("stock MMDetection", "uniform"),
    "ours": Loop("msdet, RLO"),
    "fast": Loop("msdet, RLO, --fast", fast=True),
    "fast_bf16": Loop("msdet, RLO, --fast --amp bf16", fast=True, amp="bf16"),
}
RATIOS = [("stock", name) for name in LOOPS if name != "stock"]  # of times: above 1 where msdet is faster
GPU_BATCHES = (2, 8)


def measure(
    task: Task,
    rounds: int = 20,
    steps: int | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Return what `overhead.measure` does, of these loops; on a GPU for each of GPU_BATCHES, if the task names none."""
    import torch

    several = torch.cuda.is_available() and task.batch is None
    batches: Sequence[int | None] = GPU_BATCHES if several else (task.batch,)
    return {
        "batches": [
            overhead.measure(replace(task, batch=batch), rounds, steps, progress, LOOPS, RATIOS)
            for batch in batches
        ]
    }
