"""The weights in a checkpoint of stock MMEngine, without running anything that its pickle names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from experiments.common.errors import UserError
from experiments.common.files import replacing
from experiments.training.engine.checkpoints import read_checkpoint

# MMEngine keeps its log of losses in the checkpoint as objects, and those keep functions and arrays. What these names
# stand for is not made: an empty thing takes each one's place.
_IGNORED = (
    "mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr", "numpy.dtype", "numpy.ndarray",
    "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar",
)  # fmt: skip


class _Nothing:
    """An empty object in the place of any other."""

    def __new__(cls, *arguments: Any) -> _Nothing:
        return object.__new__(cls)

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def copy_weights(source: Path, target: Path) -> None:
    """Write the model's state dict of `source` as a checkpoint that `weights_only` loading takes.

    Raises:
        UserError: The file is damaged, holds no state dict, or names yet other objects.
    """
    with _ignoring(_IGNORED):
        content = read_checkpoint(source)
    weights = content.get("state_dict", content)
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{source} holds no state dict of a model")
    with replacing(target, "wb") as stream:
        torch.save({"state_dict": weights}, stream)


@contextmanager
def _ignoring(names: tuple[str, ...]) -> Iterator[None]:
    """Let `weights_only` loading put a `_Nothing` where one of the names is called."""
    before = torch.serialization.get_safe_globals()
    split = (name.rpartition(".") for name in names)
    stand_ins: list[Any] = [type(last, (_Nothing,), {"__module__": module}) for module, _, last in split]
    torch.serialization.add_safe_globals(stand_ins)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
