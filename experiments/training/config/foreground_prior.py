"""The foreground prior of Guided Loss: counted over the training set, remembered, written into the config.

π is the share of (anchor, class) pairs that are foreground. From it follow the head's initial classification
bias and the score threshold of detection, π times the number of classes (Chen et al., arXiv 1909.04868).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine import Config, ConfigDict
from mmengine.dist import is_main_process

from experiments.common import cache
from experiments.common.errors import UserError
from experiments.detection.models.guided_loss import GuidedRetinaHead
from experiments.recipes.schema import Recipe
from experiments.training.config.anchor_count import AnchorCounter
from experiments.training.config.data import innermost, test_pipeline
from experiments.training.engine.stopping import STOP

from mmdet.registry import DATASETS, MODELS  # isort: skip

_VERSION = 1  # raise it when the count changes
_REPORT_EVERY_S = 10.0

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class ForegroundPrior:
    """What was counted: training images, foreground anchors, anchors that are not ignored, classes."""

    images: int
    foreground: int
    anchors: int
    classes: int

    @property
    def value(self) -> float:
        """π. Each foreground anchor is foreground for one class and background for the others."""
        return self.foreground / (self.anchors * self.classes)

    @property
    def score_threshold(self) -> float:
        """π · C, the share of the anchors that are foreground."""
        return self.foreground / self.anchors


def is_guided(config: Config) -> bool:
    """Whether the config's detector trains with Guided Loss."""
    head = config.model.get("bbox_head")
    kind = head.get("type") if isinstance(head, dict) else None
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(found, type) and issubclass(found, GuidedRetinaHead)


def set_prior(
    config: Config, recipe: Recipe, fingerprint: str, *, count: bool = True, trained_with: float | None = None
) -> float | None:
    """Puts prior and score threshold into the config of a Guided Loss detector; leaves any other alone.

    A prior under the recipe's `set` is taken literally, and so is a score threshold.

    Args:
        config: As `build_config` made it from `recipe`; changed in place.
        recipe: Resolved.
        fingerprint: The data set's.
        count: Whether to count now what is not known from an earlier time, with its progress on standard
            error. If not, the config is left without a prior.
        trained_with: π of the training whose weights are to be evaluated.

    Returns:
        π; None for another detector, or where it is not known.

    Raises:
        UserError: No anchor of the training set is foreground, or the prior given is no probability.
    """
    if not is_guided(config):
        return None
    head = config.model.bbox_head
    if head.get("foreground_prior") is None:
        prior = trained_with
        if prior is None:
            known = known_prior(config, fingerprint)
            if known is None and count:
                known = count_prior(config, fingerprint, report_lines())
            prior = None if known is None else known.value
        head.foreground_prior = prior
    prior = head.foreground_prior
    if prior is not None and not (isinstance(prior, float) and 0 < prior < 1):
        raise UserError(
            f"model.bbox_head.foreground_prior: {prior!r} is not allowed: a number above 0 and below 1",
            "leave it out, and it is counted",
        )
    if prior is not None and not _gives_threshold(recipe):
        config.model.test_cfg.score_thr = prior * head.num_classes
    return prior


def _gives_threshold(recipe: Recipe) -> bool:
    given = {key.lstrip("+"): value for key, value in recipe.set.items()}
    whole = given.get("model.test_cfg")
    return "model.test_cfg.score_thr" in given or (isinstance(whole, dict) and "score_thr" in whole)


def known_prior(config: Config, fingerprint: str) -> ForegroundPrior | None:
    """The prior as an earlier count left it; None where nothing fits."""
    answer = cache.recall(_key(config, fingerprint))
    return None if answer is None else ForegroundPrior(**answer)


def count_prior(config: Config, fingerprint: str, progress: Progress | None = None) -> ForegroundPrior:
    """Counts the foreground anchors of every training image, once, and remembers the answer.

    Images are those that training takes: what the data set filters out is not counted, what it repeats is
    counted once. Only annotations are read. See `AnchorCounter` for what is counted in an image.

    Raises:
        UserError: No anchor is foreground.
    """
    key = _key(config, fingerprint)
    parts = list(innermost(config.train_dataloader.dataset))
    rests_on = cache.stamps(Path(part.get("data_root") or "") / part["ann_file"] for part in parts)
    counter = AnchorCounter(config)
    datasets = [DATASETS.build({**part, "pipeline": []}) for part in parts]
    total = sum(len(dataset) for dataset in datasets)
    images = foreground = anchors = 0
    for dataset in datasets:
        for index in range(len(dataset)):
            if STOP.is_set():  # it may take minutes, and a worker does not end by itself when asked to
                raise KeyboardInterrupt
            counted = counter.count(dataset.get_data_info(index))
            images, foreground, anchors = images + 1, foreground + counted[0], anchors + counted[1]
            if progress is not None:
                progress(images, total)
    if not foreground:
        raise UserError(
            f"no anchor is foreground in the {images} training images, so Guided Loss has no prior",
            "msdet data verify NAME shows the boxes",
        )
    prior = ForegroundPrior(images, foreground, anchors, counter.classes)
    cache.remember(key, asdict(prior), rests_on)
    return prior


def _key(config: Config, fingerprint: str) -> Any:
    """All that the count follows from, but for what it reads."""
    from mmdet import __version__

    left_out = ("pipeline", "data_root")
    parts = [
        {k: v for k, v in part.items() if k not in left_out}
        for part in innermost(config.train_dataloader.dataset)
    ]
    head = config.model.bbox_head
    assigned_by = {k: v for k, v in head.items() if k in ("type", "anchor_generator", "num_classes")}
    content = [
        "foreground prior", _VERSION, __version__, fingerprint, parts, list(test_pipeline(config)),
        config.model.get("data_preprocessor"), assigned_by, config.model.get("train_cfg"),
    ]  # fmt: skip
    return json.loads(json.dumps(content, default=_plain, sort_keys=True))


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ConfigDict) else str(value)


def report_lines() -> Progress | None:
    """Lines for a log, of one process only: how far it is, and how long it will take."""
    if not is_main_process():
        return None
    began = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= _REPORT_EVERY_S:
            last = now
            left = (now - began) / done * (total - done)
            text = f"{done} of {total} images" + (f", {left / 60:.1f} minutes left" if done < total else "")
            print(f"counting the foreground prior: {text}", file=sys.stderr, flush=True)

    return show
