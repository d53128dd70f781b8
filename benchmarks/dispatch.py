"""What a training step asks of the host: operations, waits for the device and allocations, rule by rule.

On a GPU each operation is a launch, each wait keeps the next launch back. All are counted from what PyTorch dispatches
in one step inside an interval, forward, backward and optimizer, so no GPU is needed: an operation that would wait there
is known by its name. Kernels that PyTorch runs inside of an operation are not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.ratios import Progress
from benchmarks.training_step import Stepper

RECIPES = ("retinanet-r50", "fcos-r50", "foveabox-r50", "atss-r50", "faster-rcnn-r50")
LOOPS: dict[str, tuple[str, str, Any]] = {  # name to label, rule, and loop of the stepper
    "stock": ("stock MMDetection", "uniform", "stock"),
    "uniform": ("uniform", "uniform", "ours"),
    "rlo": ("RLO", "rlo", "ours"),
    "fast": ("RLO with --fast", "rlo", "fast"),
}
SIZE = (160, 160)  # pixels; neither a detector's own operations nor ours depend on it
WARM_UP = 2  # steps in which what is made once is made
# Reading a number, asking how many elements are not zero, and copying a number of the host's into a tensor.
WAITING = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "is_nonzero", "equal")


class OperationCounter(TorchDispatchMode):
    """Counts, while it is entered, operations and waits by name, and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.allocations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().partition(".")[0].removeprefix("aten::")
        given = _tensors((args, kwargs))
        self.operations[name] += 1
        if name == "index" and any(each.dtype == torch.bool for each in given[1:]):
            self.waits["index by mask"] += 1
        elif name in WAITING:
            self.waits[name] += 1
        result = function(*args, **(kwargs or {}))
        old = {each.untyped_storage()._cdata for each in given}
        self.allocations += len({each.untyped_storage()._cdata for each in _tensors(result)} - old)
        return result


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def count_step(stepper: Stepper) -> dict[str, int]:
    """Count what one step does, inside an interval; what MMDetection samples at random is the same each time."""
    for _ in range(WARM_UP):
        stepper.step()
    torch.manual_seed(0)
    with OperationCounter() as counter:
        stepper.step()
    waits, operations = counter.waits.total(), counter.operations.total()
    return {"operations": operations, "waits": waits, "allocations": counter.allocations}


def measure(recipes: Sequence[str], profile: str | None, progress: Progress) -> dict[str, Any]:
    """Return the counts of each recipe's detector on two made-up images: stock, under two rules, with --fast.

    Args:
        recipes: Names or paths; their rules are replaced.
    """
    found: dict[str, Any] = {"profile": profile, "batch": 2, "size": list(SIZE), "recipes": {}}
    for recipe in recipes:
        found["recipes"][recipe] = {}
        for name, (label, rule, loop) in LOOPS.items():
            progress(f"{recipe}, {label}")
            found["recipes"][recipe][name] = count_step(Stepper(recipe, profile, rule, loop, 2, SIZE))
    return found
