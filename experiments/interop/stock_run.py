"""What a work folder of MMDetection's `tools/train.py` says of its training. Nothing in it is run. No torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.common.config_text import at, read_config
from experiments.common.errors import UserError

# MMDetection's names of the metrics, given as fractions behind a prefix ("coco/"), to those of the tables.
METRICS = {
    "bbox_mAP": "AP", "bbox_mAP_50": "AP50", "bbox_mAP_75": "AP75",
    "bbox_mAP_s": "APS", "bbox_mAP_m": "APM", "bbox_mAP_l": "APL", "mAP": "mAP",
}  # fmt: skip
_ENVIRONMENT = {
    "python": r"^\s+Python: (\S+)",
    "cuda": r"CUDA Runtime ([\d.]+)",
    "cudnn": r"CuDNN ([\d.]+)",
    "packages.torch": r"^\s+PyTorch: (\S+)",
    "packages.torchvision": r"^\s+TorchVision: (\S+)",
    "packages.mmengine": r"^\s+MMEngine: (\S+)",
    "packages.mmdet": r"^\s+MMDetection: (\S+)",
    "packages.opencv-python": r"^\s+OpenCV: (\S+)",
}
_TIME = re.compile(r"^(\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d)", re.MULTILINE)


@dataclass
class Log:
    """One start of the training script: its `*.log`.

    Attributes:
        began, ended: First and last line's time, ISO 8601 by the clock of that machine.
        world_size, seed: None where it does not say.
        environment: As a record has it.
        epoch_length: Forward passes an epoch; None where the training is not counted in epochs.
    """

    path: Path
    began: str = ""
    ended: str = ""
    world_size: int | None = None
    seed: int | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    epoch_length: int | None = None


@dataclass
class StockRun:
    """A finished training.

    Attributes:
        config, config_file: As MMEngine dumped it, resolved.
        by_epoch: Whether the steps of `evaluations` and `length` are epochs, or forward passes.
        evaluations: Step to metrics in percent; COCO's are rounded to 0.1 point by MMDetection.
        logs: Of each start, in order.
        checkpoint: The last, if it is still there.
        name: Of the config that was trained, without `.py`.
        files: All that was read.
    """

    source: Path
    name: str
    config: dict[str, Any]
    config_file: Path
    by_epoch: bool
    length: int
    evaluations: dict[int, dict[str, float]]
    logs: list[Log]
    checkpoint: Path | None
    files: list[Path]

    @property
    def metrics(self) -> dict[str, float]:
        return self.evaluations[self.length]

    def get(self, path: str) -> Any:
        return at(self.config, path)


def read_stock_run(source: Path) -> StockRun:
    """Reads a work folder.

    Raises:
        UserError: It is none, the training did not come to its end, or its end was not evaluated.
    """
    starts = sorted(path.parent.parent for path in source.glob("*/vis_data/scalars.json"))
    if not starts:
        older = " (MMDetection 2's are not read)" if any(source.glob("*.log.json")) else ""
        raise UserError(
            f"{source} is no work folder of MMDetection: no <time>/vis_data/scalars.json in it{older}",
            "name the folder that tools/train.py wrote to: --work-dir, else work_dirs/<config>",
        )
    root_configs = sorted(source.glob("*.py"))
    config_files = [starts[-1] / "vis_data" / "config.py", *root_configs]
    config_file = next((path for path in config_files if path.is_file()), None)
    if config_file is None:
        raise UserError(f"{source}: no dumped config (*.py) in it", "it is part of every work folder")
    config = read_config(config_file)
    by_epoch, length = _length(config, config_file)
    evaluations: dict[int, dict[str, float]] = {}
    for start in starts:
        _follow(start / "vis_data" / "scalars.json", evaluations, by_epoch)
    _check_end(source, evaluations, by_epoch, length)
    logs = [_read_log(path) for start in starts for path in sorted(start.glob("*.log"))]
    files = [
        config_file,
        *(start / "vis_data" / "scalars.json" for start in starts),
        *(log.path for log in logs),
    ]
    checkpoint = _checkpoint(source, by_epoch, length)
    name = root_configs[0].stem if len(root_configs) == 1 else config_file.stem
    return StockRun(source, name, config, config_file, by_epoch, length, evaluations, logs, checkpoint, files)


def _length(config: Mapping[str, Any], path: Path) -> tuple[bool, int]:
    epochs, iterations = at(config, "train_cfg.max_epochs"), at(config, "train_cfg.max_iters")
    for by_epoch, length in ((True, epochs), (False, iterations)):
        if isinstance(length, int) and length > 0:
            return by_epoch, length
    raise UserError(
        f"{path}: train_cfg has neither max_epochs nor max_iters", "it must be a config that trained"
    )


def _follow(path: Path, evaluations: dict[int, dict[str, float]], by_epoch: bool) -> None:
    """Adds the evaluations of one start; those of earlier starts that it did again are dropped."""
    first = True
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(text)
        except ValueError:  # the last line of a process that was killed
            continue
        if not isinstance(entry, dict):
            continue
        if first and "loss" in entry:
            begin = entry.get("epoch" if by_epoch else "step", 0)
            for step in [step for step in evaluations if step >= begin]:
                del evaluations[step]
            first = False
        found = _metrics(entry)
        if found and isinstance(entry.get("step"), int):
            evaluations[entry["step"]] = found


def _metrics(entry: Mapping[str, Any]) -> dict[str, float]:
    """In percent. MMDetection writes -1 where no object of a size exists."""
    found = {}
    for key, value in entry.items():
        prefix, _, name = key.rpartition("/")
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            continue
        if prefix and name in METRICS:
            found[METRICS[name]] = round(100 * value, 9)
        elif key in METRICS.values():  # msdet's own metrics in a project of the user's: percent already
            found[key] = float(value)
    return found


def _check_end(source: Path, evaluations: Mapping[int, Any], by_epoch: bool, length: int) -> None:
    unit = "epoch" if by_epoch else "iteration"
    if not evaluations:
        raise UserError(f"{source}: no box metrics in its scalars.json", "a baseline needs an evaluation")
    if length not in evaluations:
        raise UserError(
            f"{source}: {unit} {length}, the last, was not evaluated; the last that was is {max(evaluations)}",
            "train it to its end (tools/train.py ... --resume), with an evaluation there",
        )


def _checkpoint(source: Path, by_epoch: bool, length: int) -> Path | None:
    """The weights that the final metrics are of."""
    path = source / f"{'epoch' if by_epoch else 'iter'}_{length}.pth"
    return path if path.is_file() else None


def _read_log(path: Path) -> Log:
    text = path.read_text(encoding="utf-8", errors="replace")
    times = _TIME.findall(text)
    log = Log(path)
    if times:
        log.began, log.ended = ("-".join(moment[:3]) + f"T{moment[3]}" for moment in (times[0], times[-1]))
    log.world_size, log.seed = (_number(p, text) for p in (r"^\s+GPU number: (\d+)", r"^\s+seed: (\d+)"))
    log.epoch_length = _number(r"Epoch\(train\)\s+\[\s*\d+\]\[\s*\d+/(\d+)\]", text)
    for key, pattern in _ENVIRONMENT.items():
        found = re.search(pattern, text, re.MULTILINE)
        if found:
            section, _, name = key.rpartition(".")
            (log.environment.setdefault(section, {}) if section else log.environment)[name] = found[1]
    gpus = re.findall(r"^\s+GPU ([\d,]+): (.+)$", text, re.MULTILINE)
    log.environment["gpus"] = [name.strip() for indices, name in gpus for _ in indices.split(",")]
    return log


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else None
