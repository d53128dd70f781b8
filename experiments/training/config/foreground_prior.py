"""The foreground prior of Guided Loss: counted in training images, remembered, written into the config.

π is the share of (anchor, class) pairs that are foreground. From it follow the head's initial classification
bias and the score threshold of detection, π times the number of classes (Chen et al., arXiv 1909.04868).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from mmengine import Config
from mmengine.dist import is_main_process

from experiments.common import cache
from experiments.common.errors import UserError
from experiments.detection.models.guided_loss import GuidedRetinaHead
from experiments.recipes.schema import Recipe
from experiments.training.config.anchor_count import AnchorCounter
from experiments.training.config.data import test_pipeline, walk_innermost
from experiments.training.engine.stopping import STOP

from mmdet.registry import DATASETS, MODELS  # isort: skip

_VERSION = 1  # raise it when the count changes
SAMPLE_IMAGES = 2_000  # more training images than this are sampled: all 117,000 of COCO take 20 minutes
SAMPLE_SEED = 0  # one for all runs, whatever their own: they share the prior


@dataclass(frozen=True)
class ForegroundPrior:
    """A count over training images.

    Attributes:
        images: Images counted.
        foreground, anchors: Foreground anchors in them, and anchors that are not ignored.
        classes: Classes of the detector.
        sampled_from: Training images that the counted ones are a sample of; None where all were counted.
        standard_error: Of `value`; 0 where all were counted.
    """

    images: int
    foreground: int
    anchors: int
    classes: int
    sampled_from: int | None = None
    standard_error: float = 0.0

    @property
    def value(self) -> float:
        """Return π: each foreground anchor is foreground for one class and background for the others."""
        return self.foreground / (self.anchors * self.classes)

    @property
    def score_threshold(self) -> float:
        """Return π · C, the share of the anchors that are foreground."""
        return self.foreground / self.anchors

    def __str__(self) -> str:
        if self.sampled_from is None:
            return f"{self.value:.4g}"
        sample = f"standard error, {self.images} of {self.sampled_from} images"
        return f"{self.value:.4g} ± {self.standard_error:.2g} ({sample})"


def is_guided(config: Config) -> bool:
    """Return whether the config's detector trains with Guided Loss."""
    head = config.model.get("bbox_head")
    kind = head.get("type") if isinstance(head, dict) else None
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(found, type) and issubclass(found, GuidedRetinaHead)


def set_prior(
    config: Config, recipe: Recipe, fingerprint: str, *, count: bool = True, trained_with: float | None = None
) -> float | None:
    """Put prior and score threshold into the config of a Guided Loss detector; leave any other alone.

    A prior under the recipe's `set` is taken literally, and so is a score threshold.

    Args:
        config: As `build_config` made it from `recipe`; changed in place.
        count: Whether to count now what is not known from an earlier time, with its progress on standard
            error. If not, the config is left without a prior.
        trained_with: π of the training that is resumed, or whose weights are evaluated.

    Returns:
        π; None for another detector, or where it is not known.

    Raises:
        UserError: No anchor of the training set is foreground, or the prior given is no probability.
    """
    if not is_guided(config):
        return None
    head = config.model.bbox_head
    prior = head.get("foreground_prior")
    if prior is None:
        prior = trained_with
    if prior is None:
        known = find_known_prior(config, fingerprint)
        if known is None and count:
            known = count_prior(config, fingerprint, print_progress)
            if is_main_process():
                print(f"foreground prior: {known}", file=sys.stderr, flush=True)
        prior = None if known is None else known.value
    head.foreground_prior = prior
    if prior is None:
        return None
    if not (isinstance(prior, float) and 0 < prior < 1):
        raise UserError(
            f"model.bbox_head.foreground_prior: {prior!r} is not allowed: a number above 0 and below 1",
            "leave it out, and it is counted",
        )
    if not _gives_threshold(recipe):
        config.model.test_cfg.score_thr = prior * head.num_classes
    return prior


def _gives_threshold(recipe: Recipe) -> bool:
    given = {key.lstrip("+"): value for key, value in recipe.set.items()}
    whole = given.get("model.test_cfg")
    return "model.test_cfg.score_thr" in given or (isinstance(whole, dict) and "score_thr" in whole)


def find_known_prior(config: Config, fingerprint: str, exact: bool = False) -> ForegroundPrior | None:
    """Return the prior of an earlier count, an exact one first; None where nothing fits."""
    answer = cache.recall(_key(config, fingerprint))
    if answer is None and not exact:
        answer = cache.recall(_key(config, fingerprint, is_sample=True))
    return None if answer is None else ForegroundPrior(**answer)


def count_prior(
    config: Config, fingerprint: str, progress: Callable[[int, int], None] | None = None, exact: bool = False
) -> ForegroundPrior:
    """Count the foreground anchors of the training images, and remember the answer.

    Up to `SAMPLE_IMAGES` images are all counted, of more a seeded sample. Images are those that training takes:
    what the data set filters out is not counted, what it repeats is counted once. Only annotations are read. See
    `AnchorCounter` for what is counted in an image.

    Args:
        config: As `build_config` made it.
        progress: Told after every image how many are done, of how many.
        exact: Whether to count all images, however many they are.

    Raises:
        UserError: No anchor is foreground.
    """
    parts = list(walk_innermost(config.train_dataloader.dataset))
    rests_on = cache.read_stamps(Path(part.get("data_root") or "") / part["ann_file"] for part in parts)
    counter = AnchorCounter(config)
    datasets = [DATASETS.build({**part, "pipeline": []}) for part in parts]
    images = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    total = len(images)
    is_sample = total > SAMPLE_IMAGES and not exact
    if is_sample:
        images = random.Random(SAMPLE_SEED).sample(images, SAMPLE_IMAGES)
    counts = []
    for dataset, index in images:
        if STOP.is_set():  # it may take minutes, and a worker does not end by itself when asked to
            raise KeyboardInterrupt
        counts.append(counter.count(dataset.get_data_info(index)))
        if progress is not None:
            progress(len(counts), len(images))
    foreground, anchors = (sum(column) for column in zip(*counts)) if counts else (0, 0)
    if not foreground:
        raise UserError(
            f"no anchor is foreground in the {len(counts)} training images, so Guided Loss has no prior",
            "msdet prior RECIPE --exact counts all"
            if is_sample
            else "msdet data verify NAME shows the boxes",
        )
    prior = ForegroundPrior(len(counts), foreground, anchors, counter.classes)
    if is_sample:
        error = compute_standard_error(counts, total) / counter.classes
        prior = replace(prior, sampled_from=total, standard_error=error)
    cache.remember(_key(config, fingerprint, is_sample), asdict(prior), rests_on)
    return prior


def compute_standard_error(pairs: Sequence[tuple[int, int]], total: int) -> float:
    """Return the standard error of Σy / Σx of a simple random sample (Cochran, Sampling Techniques, Section 6.4).

    Args:
        pairs: (y, x) of each of the n >= 2 units drawn.
        total: Units in the population; drawn without replacement, hence the factor 1 - n / total.
    """
    size, (y, x) = len(pairs), np.array(pairs, float).T
    variance = np.var(y - y.sum() / x.sum() * x, ddof=1)
    return float(np.sqrt((1 - size / total) * variance * size) / x.sum())


def _key(config: Config, fingerprint: str, is_sample: bool = False) -> list:
    """Return all that a count follows from, but for what it reads."""
    from mmdet import __version__

    parts = [
        {k: v for k, v in part.items() if k not in ("pipeline", "data_root")}
        for part in walk_innermost(config.train_dataloader.dataset)
    ]
    head = config.model.bbox_head
    assigned_by = {k: v for k, v in head.items() if k in ("type", "anchor_generator", "num_classes")}
    content = [
        "foreground prior", _VERSION, __version__, fingerprint, parts, list(test_pipeline(config)),
        config.model.get("data_preprocessor"), assigned_by, config.model.get("train_cfg"),
        *(("sample", SAMPLE_IMAGES, SAMPLE_SEED) if is_sample else ()),
    ]  # fmt: skip
    return json.loads(json.dumps(content, default=str, sort_keys=True))


def print_progress(done: int, total: int) -> None:
    """Print each tenth of a count on standard error, for a log."""
    if is_main_process() and (done == total or done % max(1, total // 10) == 0):
        print(f"counting the foreground prior: {done} of {total} images", file=sys.stderr, flush=True)
