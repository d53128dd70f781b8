"""Forecasts for devices that are not at hand, from shipped figures. No torch."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

import yaml

from experiments.common.errors import UserError
from experiments.launching.gpus import Gpu
from experiments.launching.plan import PlannedRun
from experiments.runs.run_folder import KEPT_CHECKPOINTS

FIGURES = Path(__file__).with_name("device_figures.yaml")
CPU = "cpu"
FULL_SIZE = (1333, 800)  # pixels that the models' figures hold for


@dataclass(frozen=True)
class DeviceFigure:
    """What shipped figures say of a run.

    Attributes:
        basis: `measured` or `estimated`.
        model: The name of its model's config, or the detector that takes the place of the config's.
        worker_seconds: Of one optimizer step, all workers together.
        disk: Bytes of the checkpoints that a run keeps.
    """

    device: str
    basis: str
    model: str
    workers: int
    worker_seconds: float
    disk: int


@dataclass(frozen=True)
class Device:
    """Several GPUs of one kind, as `--on h100x4` names them; or a CPU.

    Attributes:
        basis: What its figures are: `measured` or `estimated`.
    """

    name: str
    count: int
    basis: str

    @property
    def gpus(self) -> list[Gpu]:
        """Return them as a machine's GPUs, to plan runs for them; none for a CPU."""
        count = 0 if self.name == CPU else self.count
        return [Gpu(index, f"{self.name}-{index}", self.name) for index in range(count)]

    def like(self, run: PlannedRun, workers: int) -> tuple[DeviceFigure | None, None]:
        """Return what the figures say of a run; None for a model, or a profile, that they do not cover."""
        recipe, figures = run.recipe, load_figures()
        detector = recipe.set.get("model.type")  # None: that of its config
        wanted = (self.name if self.basis == "measured" else None, recipe.profile)
        for found in figures["models"]:
            kind = (found.get("device"), found.get("profile"))
            is_detector = found.get("type", detector) == detector
            if kind == wanted and is_detector and fnmatch(recipe.model, found["config"]):
                size = recipe.image_size or found.get("size", FULL_SIZE)
                seconds = found["seconds"] * _pixels(size) / _pixels(found.get("at", FULL_SIZE))
                seconds *= recipe.schedule.batch * figures["devices"][self.name]["factor"]
                disk = KEPT_CHECKPOINTS * found["checkpoint_mb"] * 1_000_000
                model = found.get("type") or PurePath(recipe.model).stem
                return DeviceFigure(self.name, self.basis, model, workers, seconds, disk), None
        return None, None


@functools.cache
def load_figures() -> dict[str, Any]:
    """Return the shipped figures: `images`, `spread`, `models`, `devices`, `notes`."""
    return yaml.safe_load(FIGURES.read_text(encoding="utf-8"))


def parse_device(text: str) -> Device:
    """Return what `h100x4` names, or `h100` for one of them.

    Raises:
        UserError: There are no figures for it.
    """
    known = load_figures()["devices"]
    name, count = re.fullmatch(r"(.*?)(?:x([1-9]\d{0,3}))?", text.lower(), re.DOTALL).groups()  # type: ignore
    if name not in known:
        raise UserError(
            f"--on: no figures for device {text!r}: allowed are {', '.join(known)}", "--on h100x4"
        )
    return Device(name, int(count or 1), known[name]["basis"])


def _pixels(size: Sequence[int]) -> float:
    """Return the pixels of an image of 4 x 3, the usual shape of photographs, that is fitted into a size."""
    return 12 * min(max(size) / 4, min(size) / 3) ** 2
