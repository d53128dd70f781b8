"""Read the work folder of a training by MMDetection's `tools/train.py`, without running code in it. No torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.common.config_text import at, flat, read_config
from experiments.common.errors import UserError
from experiments.common.metric_names import METRICS

# MMDetection's metrics, fractions with a prefix ("coco/"), to msdet's, in percent.
_STOCK_METRICS = {
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
    """The `*.log` of one start of the training script.

    Attributes:
        began, ended: Time of the first and last line, ISO 8601 in that machine's local time.
        world_size, seed: None where the log does not have them.
        environment: In the form of `Record.environment`.
        epoch_length: Forward passes per epoch; None for a training counted in iterations.
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
        source: The work folder.
        name: Name of the trained config, without `.py`.
        config, config_file: The resolved config that MMEngine dumped.
        by_epoch: Whether `length` and the steps of `evaluations` count epochs; else forward passes.
        evaluations: Step to metrics in percent, COCO's rounded to 0.1 point by MMDetection.
        logs: One for each start, in order.
        checkpoint: The last one, if it exists.
        files: Those that were read.
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
        """Metrics of the final evaluation, in percent."""
        return self.evaluations[self.length]

    @property
    def accumulation(self) -> int:
        """Forward passes per optimizer step."""
        return self.get("optim_wrapper.accumulative_counts") or 1

    def get(self, path: str) -> Any:
        """Return the value of a dotted config key; None where there is none."""
        return at(self.config, path)

    def training_data(self, suffix: str) -> list[Any]:
        """Return the values of all keys of the training data loader that end with `suffix`."""
        keys = flat(self.get("train_dataloader") or {})
        return [value for key, value in keys.items() if key.endswith(suffix)]


def read_stock_run(source: Path) -> StockRun:
    """Return the finished training in a work folder.

    Raises:
        UserError: It is no work folder, or the training has no evaluation at its end.
    """
    starts = sorted(path.parent.parent for path in source.glob("*/vis_data/scalars.json"))
    if not starts:
        older = "; MMDetection 2 is not supported" if any(source.glob("*.log.json")) else ""
        raise UserError(
            f"{source} is no work folder of MMDetection 3: it has no <time>/vis_data/scalars.json{older}",
            "msdet import work_dirs/<config>   (or the --work-dir of tools/train.py)",
        )
    root_configs = sorted(source.glob("*.py"))
    config_files = [starts[-1] / "vis_data" / "config.py", *root_configs]
    config_file = next((path for path in config_files if path.is_file()), None)
    if config_file is None:
        raise UserError(f"{source}: has no dumped config (*.py)", "copy the whole work folder")
    config = read_config(config_file)
    by_epoch, length = _length(config, config_file)
    evaluations: dict[int, dict[str, float]] = {}
    for start in starts:
        _read_evaluations(start / "vis_data" / "scalars.json", evaluations, by_epoch)
    _check_end(source, evaluations, by_epoch, length)
    logs = [_read_log(path) for start in starts for path in sorted(start.glob("*.log"))]
    files = [
        config_file,
        *(start / "vis_data" / "scalars.json" for start in starts),
        *(log.path for log in logs),
    ]
    last = source / f"{'epoch' if by_epoch else 'iter'}_{length}.pth"
    checkpoint = last if last.is_file() else None
    name = root_configs[0].stem if len(root_configs) == 1 else config_file.stem
    return StockRun(source, name, config, config_file, by_epoch, length, evaluations, logs, checkpoint, files)


def _length(config: Mapping[str, Any], path: Path) -> tuple[bool, int]:
    epochs, iterations = at(config, "train_cfg.max_epochs"), at(config, "train_cfg.max_iters")
    for by_epoch, length in ((True, epochs), (False, iterations)):
        if isinstance(length, int) and length > 0:
            return by_epoch, length
    raise UserError(f"{path}: train_cfg has neither max_epochs nor max_iters")


def _read_evaluations(path: Path, evaluations: dict[int, dict[str, float]], by_epoch: bool) -> None:
    """Add the evaluations of one start, and drop those of earlier starts that it repeated."""
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
    """Return the box metrics of an entry in percent, without the -1 of sizes that have no objects."""
    found = {}
    for key, value in entry.items():
        prefix, _, name = key.rpartition("/")
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            continue
        if prefix and name in _STOCK_METRICS:
            found[_STOCK_METRICS[name]] = round(100 * value, 9)
        elif key in METRICS:  # by msdet's evaluator in a user's own project: in percent already
            found[key] = float(value)
    return found


def _check_end(source: Path, evaluations: Mapping[int, Any], by_epoch: bool, length: int) -> None:
    unit = "epoch" if by_epoch else "iteration"
    if not evaluations:
        raise UserError(
            f"{source}: has no box metrics in its scalars.json", "tools/train.py with an evaluation"
        )
    if length not in evaluations:
        raise UserError(
            f"{source}: the last {unit}, {length}, has no evaluation; the latest is of {unit} {max(evaluations)}",
            "finish the training with an evaluation at its end: tools/train.py CONFIG --resume",
        )


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
