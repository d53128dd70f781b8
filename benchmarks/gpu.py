"""On a GPU: a step of every full-size recipe, RLO beside the baseline, and synchronisations of a step."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from typing import Any

from benchmarks.training_step import Stepper
from experiments.common.errors import UserError

PAPER_SIZE = (1333, 800)


def measure(
    recipes: Sequence[str] | None = None,
    profile: str | None = None,
    batch_size: int = 2,
    size: tuple[int, int] = PAPER_SIZE,
    iterations: int = 200,
    device: str = "cuda",
) -> dict[str, Any]:
    """Measure a step of each recipe, RetinaNet R50 baseline and RLO in turns, and synchronisations of a step.

    Args:
        recipes: Names; None for all that are shipped.
        profile: As on the command line.
        batch_size: Images of a step.
        size: Width and height in pixels.
        iterations: Of the baseline and of RLO each, in blocks of 10.
        device: `cuda`; `cpu` for tests.

    Raises:
        UserError: No GPU.
    """
    import torch

    from experiments.recipes.catalogue import find_shipped, list_pages

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("bench gpu: torch sees no GPU here", "msdet doctor says what is there")
    if recipes is None:
        recipes = [name for name, path in list_pages("recipe").items() if path.parent == find_shipped()]
    common: dict[str, Any] = dict(profile=profile, batch_size=batch_size, size=size, device=device)
    return {
        "one step": {name: _one_step(Stepper(name, **common), device) for name in recipes},
        "retinanet-r50": _in_turns(common, iterations, device),
        "synchronisations of a step": _synchronisations(common) if device == "cuda" else {},
    }


def _one_step(stepper: Stepper, device: str) -> dict[str, Any]:
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = stepper.seconds(1)
    found = {"seconds, the first": seconds, "loss": float(stepper.step()["loss"])}
    return {**found, **_memory(device)}


def _memory(device: str) -> dict[str, float]:
    import torch

    return {"peak memory, MiB": torch.cuda.max_memory_allocated() / 2**20} if device == "cuda" else {}


def _in_turns(common: dict[str, Any], iterations: int, device: str) -> dict[str, Any]:
    """Return seconds per iteration of the baseline and of RLO, and their ratio by block; the first warms up."""
    block = min(10, iterations)
    steppers = {kind: Stepper(f"retinanet-r50{kind}", **common) for kind in ("", "-rlo")}
    times: dict[str, list[float]] = {kind: [] for kind in steppers}
    for stepper in steppers.values():
        stepper.seconds(block)
    for number in range(iterations // block):
        for kind in sorted(steppers, reverse=bool(number % 2)):
            times[kind].append(steppers[kind].seconds(block) / block)
    ratios = [rlo / base for rlo, base in zip(times["-rlo"], times[""])]
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    return {
        "iterations of each": iterations,
        "baseline, seconds per iteration": statistics.median(times[""]),
        "rlo, seconds per iteration": statistics.median(times["-rlo"]),
        "rlo to baseline": {"ratio": statistics.mean(ratios), "two standard errors": 2 * error},
        **_memory(device),
    }


def _synchronisations(common: dict[str, Any]) -> dict[str, int]:
    """Return how often a step makes the host wait for the device, with stock MMDetection and with RLO."""
    import torch

    found = {}
    for kind in ("stock", "rlo"):
        stepper = Stepper("retinanet-r50-rlo", stock=kind == "stock", **common)
        stepper.step()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                stepper.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found[kind] = sum("synchroniz" in str(warning.message) for warning in seen)
    return found
