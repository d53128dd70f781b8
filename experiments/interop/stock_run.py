"""Read the work folder of a training by MMDetection's `tools/train.py`, without running code in it. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import AliasPath, BaseModel, Field, FiniteFloat, PositiveInt

from experiments.common.checking import validate
from experiments.common.config_text import flatten_keys, read_config
from experiments.common.errors import UserError
from experiments.common.metric_names import METRICS

# MMDetection's metrics, fractions with a prefix ("coco/"), to msdet's, in percent.
_STOCK_METRICS = {
    "bbox_mAP": "AP", "bbox_mAP_50": "AP50", "bbox_mAP_75": "AP75",
    "bbox_mAP_s": "APS", "bbox_mAP_m": "APM", "bbox_mAP_l": "APL", "mAP": "mAP",
}  # fmt: skip
_ENVIRONMENT = {
    "python": r"^[ \t]+Python: (\S+)",
    "cuda": r"CUDA Runtime ([\d.]+)",
    "cudnn": r"CuDNN ([\d.]+)",
    "packages.torch": r"^[ \t]+PyTorch: (\S+)",
    "packages.torchvision": r"^[ \t]+TorchVision: (\S+)",
    "packages.mmengine": r"^[ \t]+MMEngine: (\S+)",
    "packages.mmdet": r"^[ \t]+MMDetection: (\S+)",
    "packages.opencv-python": r"^[ \t]+OpenCV: (\S+)",
}
_TIME = re.compile(r"^(\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d)", re.MULTILINE)


def _at(*path: str) -> Any:
    """Return the field of a dotted key that may be missing or None."""
    return Field(None, validation_alias=AliasPath(*path))


class Scheduler(BaseModel):
    """An entry of `param_scheduler`."""

    type: str = ""
    by_epoch: bool = True
    milestones: list[int] = []
    end: int | None = None


class StockConfig(BaseModel):
    """What a config says of the training."""

    max_epochs: PositiveInt | None = _at("train_cfg", "max_epochs")
    max_iters: PositiveInt | None = _at("train_cfg", "max_iters")
    val_interval: PositiveInt | None = _at("train_cfg", "val_interval")
    batch_size: PositiveInt | None = _at("train_dataloader", "batch_size")
    dataset: dict[Any, Any] | None = _at("train_dataloader", "dataset")
    wrapper: str | None = _at("optim_wrapper", "type")
    dtype: str | None = _at("optim_wrapper", "dtype")
    accumulation: PositiveInt | None = _at("optim_wrapper", "accumulative_counts")
    optimizer: str | None = _at("optim_wrapper", "optimizer", "type")
    lr: FiniteFloat | None = _at("optim_wrapper", "optimizer", "lr")
    is_lr_scaled: bool | None = _at("auto_scale_lr", "enable")
    base_batch_size: PositiveInt | None = _at("auto_scale_lr", "base_batch_size")
    schedulers: list[Scheduler] | None = _at("param_scheduler")
    seed: int | None = _at("randomness", "seed")
    weighting: dict[str, Any] | None = _at("model", "weighting")


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
        content, config, config_file: The resolved config that MMEngine dumped: whole, what is needed of it, its file.
        by_epoch: Whether `length` and the steps of `evaluations` count epochs; else forward passes.
        evaluations: Step to metrics in percent, COCO's rounded to 0.1 point by MMDetection.
        logs: One for each start, in order.
        checkpoint: The last one, if it exists.
        files: Those that were read.
    """

    source: Path
    name: str
    content: dict[str, Any]
    config: StockConfig
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
        return self.config.accumulation or 1

    def training_data(self, suffix: str) -> list[Any]:
        """Return the values of all keys of the training data set that end with `suffix`."""
        keys = flatten_keys(self.config.dataset or {})
        return [value for key, value in keys.items() if key.endswith(suffix)]


def read_stock_run(source: Path) -> StockRun:
    """Return the finished training in a work folder.

    Raises:
        UserError: It is no work folder, its config is none, or the training has no evaluation at its end.
    """
    if (source / "record.json").is_file():
        raise UserError(
            f"{source} is a run of msdet, which needs no import", "msdet report --results-dir DIR"
        )
    scalars = sorted(source.glob("*/vis_data/scalars.json"))
    if not scalars:
        older = "; MMDetection 2 is not supported" if any(source.glob("*.log.json")) else ""
        raise UserError(
            f"{source} is no work folder of MMDetection 3: it has no <time>/vis_data/scalars.json{older}",
            "msdet import work_dirs/<config>   (or the --work-dir of tools/train.py)",
        )
    root_configs = sorted(source.glob("*.py"))
    config_files = [scalars[-1].with_name("config.py"), *root_configs]
    config_file = next((path for path in config_files if path.is_file()), None)
    if config_file is None:
        raise UserError(f"{source}: has no dumped config (*.py)", "copy the whole work folder")
    content = read_config(config_file)
    config = validate(StockConfig, content, str(config_file))
    by_epoch = config.max_epochs is not None
    length = config.max_epochs or config.max_iters
    if length is None:
        raise UserError(f"{config_file}: train_cfg has neither max_epochs nor max_iters")
    evaluations = _read_evaluations(scalars, by_epoch)
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
    logs = [_read_log(path) for start in scalars for path in sorted(start.parents[1].glob("*.log"))]
    last = source / f"{'epoch' if by_epoch else 'iter'}_{length}.pth"
    name = root_configs[0].stem if len(root_configs) == 1 else config_file.stem
    files = [config_file, *scalars, *(log.path for log in logs)]
    checkpoint = last if last.is_file() else None
    return StockRun(
        source, name, content, config, config_file, by_epoch, length, evaluations, logs, checkpoint, files
    )


def _read_evaluations(scalars: list[Path], by_epoch: bool) -> dict[int, dict[str, float]]:
    """Return the metrics of each evaluation; those of earlier starts count where no later one repeated them."""
    evaluations: dict[int, dict[str, float]] = {}
    for path in scalars:
        is_first = True
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(text)
            except (ValueError, RecursionError):  # the last line of a process that was killed
                continue
            if not isinstance(entry, dict):
                continue
            if is_first and "loss" in entry:
                begin = entry.get("epoch" if by_epoch else "step", 0)
                if isinstance(begin, int):
                    evaluations = {step: kept for step, kept in evaluations.items() if step < begin}
                is_first = False
            found = _metrics(entry)
            if found and isinstance(entry.get("step"), int):
                evaluations[entry["step"]] = found
    return evaluations


def _metrics(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the box metrics of an entry in percent, without the -1 of sizes that have no objects."""
    found = {}
    for key, value in entry.items():
        prefix, _, name = key.rpartition("/")
        if not isinstance(value, float | int):
            continue
        if prefix and name in _STOCK_METRICS and 0 <= value <= 1:
            found[_STOCK_METRICS[name]] = round(100 * value, 9)
        elif key in METRICS and 0 <= value <= 100:  # by msdet's evaluator in a user's own project: in percent
            found[key] = float(value)
    return found


def _read_log(path: Path) -> Log:
    text = path.read_text(encoding="utf-8", errors="replace")
    times = _TIME.findall(text)
    log = Log(path)
    if times:
        log.began, log.ended = ("-".join(moment[:3]) + f"T{moment[3]}" for moment in (times[0], times[-1]))
    log.world_size = _find_number(r"^[ \t]+GPU number: (\d{1,9})\b", text)
    log.seed = _find_number(r"^[ \t]+seed: (\d{1,18})\b", text)
    log.epoch_length = _find_number(r"Epoch\(train\) +\[ *\d+\]\[ *\d+/(\d{1,9})\]", text)
    for key, pattern in _ENVIRONMENT.items():
        found = re.search(pattern, text, re.MULTILINE)
        if found:
            section, _, name = key.rpartition(".")
            (log.environment.setdefault(section, {}) if section else log.environment)[name] = found[1]
    gpus = re.findall(r"^[ \t]+GPU ([\d,]+): (.+)$", text, re.MULTILINE)
    log.environment["gpus"] = [name.strip() for indices, name in gpus for _ in indices.split(",")]
    return log


def _find_number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else None
