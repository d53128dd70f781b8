"""On a GPU: a step of every full-size recipe with its peak memory, and waits for the device in a step."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from typing import Any

from benchmarks.training_step import Stepper
from experiments.common.errors import UserError

PAPER_SIZE = (1333, 800)
TIMED = 7  # steps behind the first three


def measure(
    recipes: Sequence[str] | None = None,
    profile: str | None = None,
    batch_size: int = 2,
    size: tuple[int, int] = PAPER_SIZE,
    device: str = "cuda",
) -> dict[str, Any]:
    """Measure a step of each recipe, and how often a step of RetinaNet R50 waits, stock, with RLO and with --fast.

    Args:
        recipes: Names; None for all that are shipped.
        profile: As on the command line.
        batch_size: Images of a step.
        size: Width and height in pixels.
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
    found: dict[str, Any] = {"one step": {}}
    for name in recipes:
        stepper = Stepper(name, **common)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        figures = {"seconds, the first": stepper.seconds(1), "loss": float(stepper.step()["loss"])}
        if device == "cuda":
            stepper.seconds(1)  # beside the two above: cuDNN and the allocator have settled
            figures["seconds, median"] = statistics.median(stepper.seconds(1) for _ in range(TIMED))
            figures["peak memory, MiB"] = torch.cuda.max_memory_allocated() / 2**20
        found["one step"][name] = figures
    if device == "cuda":
        kinds: dict[str, Any] = {"stock": "stock", "rlo": "ours", "rlo with --fast": "fast"}
        found["synchronisations of a step"] = {
            kind: _synchronisations(Stepper("retinanet-r50-rlo", loop=loop, **common))
            for kind, loop in kinds.items()
        }
    return found


def _synchronisations(stepper: Stepper) -> int:
    """Return how often a step makes the host wait for the device."""
    import torch

    stepper.step()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            stepper.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)
