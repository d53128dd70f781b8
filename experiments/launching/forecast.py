"""The forecast of planned runs' cost: time and disk, from similar runs or a device's figures. No torch."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from experiments.common.cache import read_stamp
from experiments.common.errors import UserError
from experiments.launching.devices import CPU, Device, DeviceFigure
from experiments.launching.plan import PlannedRun
from experiments.runs.record import Record
from experiments.runs.run_folder import KEPT_CHECKPOINTS, RunFolder

MAX_CONFIGS_READ = 50  # the newest first: older ones hardly add anything
LIKENESSES = ("same config", "same recipe, profile and data", "same model, profile and data")


@dataclass(frozen=True)
class Measured:
    """A run that was measured.

    Attributes:
        worker_seconds: Of one optimizer step, all workers together: its seconds times their number.
        device: `cpu`, or a GPU's name.
    """

    run: RunFolder
    record: Record
    worker_seconds: float
    device: str
    workers: int

    @functools.cached_property
    def conditions(self) -> tuple[str | None, ...]:
        """Return what changes the seconds of a step: model, profile, data set, size of its images."""
        model, size = (_page_value(self.run.recipe, key) for key in ("model", "image_size"))
        return model, self.record.profile, self.record.dataset.get("fingerprint"), size or "None"

    @functools.cached_property
    def disk(self) -> int | None:
        """Return the bytes that a whole run of this kind keeps; None if it has no checkpoint."""
        sizes = dict(_files(self.run.path))
        checkpoints = [size for path, size in sizes.items() if path.parent == self.run.checkpoints]
        if not checkpoints:
            return None
        return KEPT_CHECKPOINTS * max(checkpoints) + sum(sizes.values()) - sum(checkpoints)


@dataclass(frozen=True)
class Forecast:
    """What is left of one planned run.

    Attributes:
        iterations: Optimizer steps still to do.
        workers: GPUs, or processes, on all its machines.
        worker_seconds: All workers' time for these steps, without evaluations; None where nothing like it was
            measured.
        disk: Bytes still to be written and kept; None where unknown.
        source, likeness: What was measured, and in what it is like this run (LIKENESSES); or a device's figure.
    """

    iterations: int
    workers: int
    worker_seconds: float | None = None
    disk: int | None = None
    source: Measured | DeviceFigure | None = None
    likeness: str | None = None


def count_iterations(run: PlannedRun) -> int:
    """Return the optimizer steps of the whole run, counting images that training skips, such as empty ones."""
    schedule = run.recipe.schedule
    if schedule.iterations is not None:
        return schedule.iterations
    images = run.data.images["train"] * run.recipe.dataset.repeat
    return (schedule.epochs or 0) * math.ceil(images / schedule.batch)


def forecast(planned: Sequence[PlannedRun], on: Device | bool | None = None) -> list[Forecast]:
    """Return what is left of each run, from a device's figures or the measured run that is most like it.

    That is one of the same config, else of the same recipe, else of the same model; always under the same profile, on
    the same data set and with images of the same size, which all change the seconds. Among these, runs on as many
    workers are preferred, then runs that are done, then the latest.

    Args:
        on: A device whose shipped figures count. Else whether the runs will be on GPUs: only such measurements count;
            None: any.
    """
    measurements = on if isinstance(on, Device) else _Measurements(on)
    return [_forecast_run(run, measurements) for run in planned]


def _forecast_run(run: PlannedRun, measurements: _Measurements | Device) -> Forecast:
    workers = run.launch.processes * run.launch.nodes
    if run.todo not in ("start", "resume", "running"):
        return Forecast(0, workers, 0.0, 0)
    done = 0
    if run.todo == "resume":
        done = run.folder.count_iterations_saved()
    elif run.todo == "running":
        done = int(run.folder.read_progress().get("iteration", 0))
    left = max(count_iterations(run) - done, 0)
    source, likeness = measurements.like(run, workers)
    if source is None:
        return Forecast(left, workers)
    disk = source.disk
    if disk is not None and run.todo != "start":
        disk = max(disk - sum(size for _, size in _files(run.folder.path)), 0)
    return Forecast(left, workers, left * source.worker_seconds, disk, source, likeness)


class _Measurements:
    """The measured runs of a results folder; each config's folder is read once, and only if needed."""

    def __init__(self, on_gpus: bool | None) -> None:
        self.on_gpus = on_gpus
        self._best = functools.cache(self._find_best)
        self._measured = functools.cache(_measured_runs)

    def like(self, run: PlannedRun, workers: int) -> tuple[Measured | None, str | None]:
        config, recipe = run.folder.path.parent, run.recipe
        conditions = (recipe.model, recipe.profile, run.data.fingerprint, str(recipe.image_size))
        places = ((config.parent, config.name), (config.parent, "*"), (config.parents[1], "*/*"))
        for likeness, (folder, pattern) in zip(LIKENESSES, places):
            found = self._best(folder, pattern, conditions, workers)
            if found is not None:
                return found, likeness
        return None, None

    def _find_best(
        self, folder: Path, pattern: str, conditions: tuple[str | None, ...], workers: int
    ) -> Measured | None:
        newest = sorted(folder.glob(pattern), key=lambda config: read_stamp(config) or [0], reverse=True)
        configs = (config for config in newest if _model_of(config) == conditions[0])
        found = [m for config in islice(configs, MAX_CONFIGS_READ) for m in self._measured(config)]
        return max(
            (m for m in found if self.on_gpus in (None, m.device != CPU) and m.conditions == conditions),
            key=lambda m: (m.workers == workers, m.record.status == "done", m.record.updated),
            default=None,
        )


def _measured_runs(config: Path) -> list[Measured]:
    found = []
    for run in map(RunFolder, sorted(config.glob("seed*"))[:MAX_CONFIGS_READ]):
        try:
            record = run.read()
        except UserError:
            continue
        seconds = record.timings.get("seconds_per_iteration")
        if seconds is None and record.status != "done":
            seconds = run.read_progress().get("seconds_per_iteration")  # was stopped, or is at work
        if record.attempts and isinstance(seconds, (int, float)) and 0 < seconds < math.inf:
            last = record.attempts[-1]
            found.append(Measured(run, record, seconds * last.world_size, last.device, last.world_size))
    return found


def _model_of(config: Path) -> str | None:
    page = next(config.glob("seed*/recipe.yaml"), None)
    return _page_value(page, "model") if page else None


def _page_value(page: Path, key: str) -> str | None:
    """Return the value of a key of a resolved recipe as text, without the time that reading YAML takes."""
    try:
        found = re.search(rf"^{key}: (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return found[1] if found else None


def _files(folder: Path) -> Iterable[tuple[Path, int]]:
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone in between
            if path.is_file():
                yield path, path.stat().st_size
