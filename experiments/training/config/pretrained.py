"""Pretrained backbones: found before training starts, or said clearly why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.training.engine.checkpoints import read_checkpoint


def check_pretrained(model: Any) -> None:
    """Load what the model's `init_cfg` names once; what is downloaded stays in torch's cache.

    Args:
        model: The `model` of a config; its `init_cfg` may name `torchvision://`, `open-mmlab://`, a URL or a file.

    Raises:
        UserError: The weights cannot be loaded, or the file holds more than weights.
    """
    from mmengine.runner import CheckpointLoader

    for where, init in _pretrained(model, "model"):
        source = init["checkpoint"]
        hint = (
            f"use a file: --set {where}.init_cfg.checkpoint=FILE; or train from scratch: "
            f"--set {where}.init_cfg=null --set {where}.frozen_stages=-1"
        )
        try:
            if "://" in source:
                CheckpointLoader.load_checkpoint(source, map_location="cpu", logger="silent")
            else:
                read_checkpoint(Path(source))
        except UserError as error:
            raise UserError(f"{where}.init_cfg.checkpoint: {error.message}", hint) from None
        except Exception as error:  # no network, no torchvision, no such name: each has its own exception
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            raise UserError(f"pretrained weights '{source}' cannot be loaded: {reason}", hint) from None


def without_pretrained(model: Any) -> None:
    """Drop pretrained weights from a config whose weights come from a checkpoint anyway."""
    for _, init in list(_pretrained(model, "model")):
        init.clear()
        init.update(type="Normal", layer=[])  # initialises nothing


def _pretrained(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        init = node.get("init_cfg")
        if isinstance(init, dict) and init.get("type") == "Pretrained":
            yield where, init
        for name, child in node.items():
            yield from _pretrained(child, f"{where}.{name}")
