"""The time that level weighting adds to a training iteration: whole trainings that take turns in one process.

Four loops train the same recipe on the same data: MMEngine's own with MMDetection's own detector, and the worker's with
uniform weights, AVW and RLO. A fifth is uniform once more: what it differs from the first is the measurement's own
error, for nothing else is different. Loading, augmentation and all hooks that belong to a step are in it; evaluation
and checkpoints are not. Blocks of iterations take turns in a balanced order, so that what else the machine does falls
on all alike, and ratios are taken within each round. Without a GPU they are taken of processor time, too: of all
threads of this process, without what it waited for others. On a busy machine that is the sharper measure.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleaved import Training
from benchmarks.loops import Loop, RuleClock, Task, build_config, build_runner, build_stock_config
from benchmarks.ratios import Progress, estimate_ratio, summarize_times, take_turns
from experiments.data.find import find_dataset
from experiments.training.engine.fast import set_device_math

LOOPS = {
    "stock": Loop("MMDetection's own", "uniform"),
    "uniform": Loop("uniform", "uniform"),
    "again": Loop("uniform again", "uniform"),
    "avw": Loop("AVW", "avw"),
    "rlo": Loop("RLO"),
}
RATIOS = [
    ("rlo", "uniform"),
    ("avw", "uniform"),
    ("again", "uniform"),
    ("uniform", "stock"),
    ("rlo", "stock"),
]
FAST_LOOPS = {
    "stock": Loop("stock MMDetection", "uniform"),
    "ours": Loop("msdet, RLO"),
    "fast": Loop("msdet, RLO, --fast", fast=True),
    "fast_bf16": Loop("msdet, RLO, --fast --amp bf16", fast=True, amp="bf16"),
}
FAST_RATIOS = [("stock", name) for name in FAST_LOOPS if name != "stock"]  # above 1 where msdet is faster
GPU_BATCHES = (2, 8)  # of FAST_LOOPS
PREFETCHED = 2  # batches that each loading process has ready, PyTorch's default
WARM_UP = 5  # iterations of each loop before the first round


def measure(
    task: Task,
    rounds: int,
    steps: int | None,
    progress: Progress,
    loops: Mapping[str, Loop] = LOOPS,
    ratios: Sequence[tuple[str, str]] = RATIOS,
) -> dict[str, Any]:
    """Return seconds per iteration of each loop, and their ratios, as `experiments.reporting.bench` describes them.

    The rule's own step is timed directly, too: it is far below what the ratio of two trainings can resolve.

    Args:
        rounds: Blocks of each loop; at least 2.
        steps: Iterations of a block (None: 6, on a GPU 20), or a few more: an interval's end must not always fall on
            the same place in it.
        loops: The trainings; one named `stock` is MMDetection's own.
        ratios: Pairs of names.

    Raises:
        UserError: The recipe or its data is not there, or MMDetection does not have its detector.
    """
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        recipe = task.load("rlo")
        trainings = _trainings(task, loops, Path(folder), progress)
        # What others left in the caches, and what loading processes have ready from the pause, is used up first.
        settle = 1 + PREFETCHED * trainings["stock"].runner._train_dataloader.get("num_workers", 0)
        steps = _beside(recipe.weighting["alpha"], settle, steps or (20 if cuda else 6))
        try:
            for name, training in trainings.items():
                progress(f"warming up {name}")
                training.advance(WARM_UP)
            clocks = {name: RuleClock(trainings[name].runner.hooks) for name in loops if name != "stock"}
            seconds, cpu_seconds = _in_turns(trainings, rounds, steps, settle, progress)
        finally:
            for training in trainings.values():
                training.end()
            set_device_math(fast=False)
    return {
        "recipe": task.recipe,
        "profile": task.profile,
        "dataset": recipe.dataset.name,
        "device": "cuda" if cuda else "cpu",
        "batch": recipe.schedule.images_per_gpu,
        "size": recipe.image_size,
        "alpha": recipe.weighting["alpha"],
        "rounds": rounds,
        "steps": steps,
        "loops": [
            {"id": name, "label": loop.label, **_figures(trainings[name], seconds[name], clocks.get(name))}
            for name, loop in loops.items()
        ],
        "ratios": [
            {"of": a, "to": b, **_ratio(a, b, seconds), "cpu": None if cuda else _ratio(a, b, cpu_seconds)}
            for a, b in ratios
        ],
    }


def measure_fast(task: Task, rounds: int, steps: int | None, progress: Progress) -> dict[str, Any]:
    """Return what `measure` does, of FAST_LOOPS; on a GPU for each of GPU_BATCHES, if the task names none."""
    several = torch.cuda.is_available() and task.batch is None
    batches: Sequence[int | None] = GPU_BATCHES if several else (task.batch,)
    tasks = [replace(task, batch=batch) for batch in batches]
    return {"batches": [measure(each, rounds, steps, progress, FAST_LOOPS, FAST_RATIOS) for each in tasks]}


def _ratio(of: str, to: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the ratio of two loops; uniform is the geometric mean of its two trainings, unless they are compared."""
    if "again" not in seconds or "again" in (of, to):
        return estimate_ratio(seconds[of], seconds[to])
    both = [math.sqrt(a * b) for a, b in zip(seconds["uniform"], seconds["again"])]
    values = {**seconds, "uniform": both}
    return estimate_ratio(values[of], values[to])


def _trainings(
    task: Task, loops: Mapping[str, Loop], folder: Path, progress: Progress
) -> dict[str, Training]:
    data = find_dataset(task.load("rlo").dataset, task.data_root)
    trainings = {}
    for name, loop in loops.items():
        progress(f"building {loop.label}")
        config = build_config(task, loop, data, folder / name)
        is_stock = name == "stock"
        runner = build_runner(build_stock_config(config) if is_stock else config, is_stock)
        trainings[name] = Training(runner, loop.fast)
    return trainings


def _in_turns(
    trainings: dict[str, Training], rounds: int, steps: int, settle: int, progress: Progress
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return seconds per iteration by loop and round, of the clock and of this process's CPU time."""
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for number, name in take_turns(trainings, rounds):
        progress(f"round {number + 1} of {rounds}")
        trainings[name].advance(settle)
        began = time.process_time()
        seconds[name].append(trainings[name].advance(steps) / steps)
        cpu_seconds[name].append((time.process_time() - began) / steps)
    return seconds, cpu_seconds


def _beside(alpha: int, settle: int, steps: int) -> int:
    """Return so many iterations, or a few more, that blocks do not keep step with the rule's intervals."""
    while alpha > 1 and math.gcd(settle + steps, alpha) > 1:
        steps += 1
    return steps


def _figures(training: Training, seconds: list[float], clock: RuleClock | None) -> dict[str, Any]:
    """Return what a bench file says of a loop beside its names."""
    runner, rule = training.runner, None
    if clock is not None:
        own = clock.seconds / clock.steps
        rule = {"iteration_s": own, "share": own / statistics.fmean(seconds)}
    return {
        "detector": type(runner.model).__name__,
        "loop": type(runner.train_loop).__name__,
        "runner": type(runner).__name__,
        "iteration": summarize_times(seconds),
        "rounds_s": [round(second, 6) for second in seconds],
        "rule": rule,
        "peak_bytes": training.peak_bytes + _kept_bytes(runner) if training.cuda else None,
    }


def _kept_bytes(runner: Any) -> int:
    """Return the bytes of a training's weights and optimizer, which it keeps between its turns."""
    states = [value for state in runner.optim_wrapper.optimizer.state.values() for value in state.values()]
    kept = [*runner.model.parameters(), *runner.model.buffers(), *states]
    return sum(each.numel() * each.element_size() for each in kept if hasattr(each, "element_size"))
