"""Which pyramid level an object belongs to, by its size: what the detector's own assignment makes of it.

Read from the run's `config.py` without running it. A level stands for a range of object sizes in the image as it is
tested (after the test pipeline's Resize):

- anchors (RetinaNet, ATSS, GFL): the level whose square anchors come nearest to the object's size, sqrt(w * h). For a
  square object on an anchor's centre that is the anchor of highest IoU, and the border between two levels is the
  geometric mean of the coarsest anchor of one and the finest of the next. (Training assigns by IoU, so that objects
  near a border, and long ones, have positives on both levels.)
- FCOS: the level whose `regress_ranges` hold max(w, h) / 2, the longest regression distance from the object's centre.
- FoveaBox: every level whose `scale_ranges` hold sqrt(w * h); they overlap, so an object counts for two levels or more.
- two-stage detectors: the level that `SingleRoIExtractor` pools a RoI of that size from, by `finest_scale` (with
  `where: rpn` the levels of the RPN, by its anchors).

FSAF chooses each object's level by its loss, AugFPN's soft selection pools from all: no level follows from a size.
A level's AP is AP over the objects of these sizes, whichever level the detections came from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.common.config_text import get_at
from experiments.common.errors import UserError

BY_AREA, BY_HALF_SIDE = "sqrt(w * h)", "max(w, h) / 2"
FINEST_SCALE = 56  # SingleRoIExtractor's, where a config does not say
REGRESS_RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, math.inf))  # FCOSHead's, likewise
UNBOUNDED = 1e5  # px; FCOS writes 1e8 for no end

Ranges = dict[str, tuple[float, float]]  # level to its least and greatest size


@dataclass(frozen=True)
class Resize:
    """The test pipeline's: `scale` (long and short side, or width and height, in pixels)."""

    scale: tuple[float, float]
    keep_ratio: bool

    def factors(self, width: float, height: float) -> tuple[float, float]:
        """Return by how much an image's width and height grow; the result has whole pixels."""
        if not self.keep_ratio:
            return self.scale[0] / width, self.scale[1] / height
        factor = min(max(self.scale) / max(width, height), min(self.scale) / min(width, height))
        return int(width * factor + 0.5) / width, int(height * factor + 0.5) / height


@dataclass(frozen=True)
class Levels:
    """Sizes by level.

    Attributes:
        ranges: Level (P3, ...) to the least and greatest size in pixels of the tested image, finest first.
        measure: What of an object is the size: BY_AREA or BY_HALF_SIDE.
        resize: From the original to the tested image.
    """

    ranges: Ranges
    measure: str
    resize: Resize

    def size(self, width: float, height: float, image: tuple[float, float]) -> float:
        """Return the size of a box in the tested image, from pixels of the original one."""
        x, y = self.resize.factors(*image)
        width, height = width * x, height * y
        return math.sqrt(width * height) if self.measure == BY_AREA else max(width, height) / 2

    @property
    def named(self) -> str:
        """What `words` are about."""
        return "longer side" if self.measure == BY_HALF_SIDE else "sqrt(w h)"

    def words(self, level: str) -> str:
        """Return the sizes that a level stands for, as `named` has them."""
        whole = 2 if self.measure == BY_HALF_SIDE else 1
        low, high = (end * whole for end in self.ranges[level])
        if low <= 0:
            return f"below {high:.0f} px"
        return f"from {low:.0f} px" if math.isinf(high) else f"{low:.0f} to {high:.0f} px"


def find_levels(config: Mapping[str, Any], where: str | None = None) -> Levels:
    """Return the levels of a run.

    Args:
        config: Its `config.py`, as `config_text.read_config` reads it.
        where: The recipe's `weighting.where`.

    Raises:
        UserError: No level follows from an object's size in this detector, or the config does not say.
    """
    resize = _resize(get_at(config, "test_dataloader.dataset.pipeline"))
    extractor = get_at(config, "model.roi_head.bbox_roi_extractor")
    if extractor is not None and where == "rpn":
        return Levels(_by_anchors(get_at(config, "model.rpn_head.anchor_generator")), BY_AREA, resize)
    if extractor is not None:
        return Levels(_by_roi(extractor), BY_AREA, resize)
    head = get_at(config, "model.bbox_head") or {}
    if head.get("type") == "FSAFHead":
        raise UserError("FSAFHead chooses an object's level by its loss, not by its size")
    if head.get("type") == "FCOSHead":
        ranges = head.get("regress_ranges") or REGRESS_RANGES
        return Levels(_given(head.get("strides"), ranges), BY_HALF_SIDE, resize)
    if head.get("scale_ranges"):
        return Levels(_given(head.get("strides"), head["scale_ranges"]), BY_AREA, resize)
    return Levels(_by_anchors(head.get("anchor_generator")), BY_AREA, resize)


def _resize(pipeline: Any) -> Resize:
    steps = [step for step in pipeline or () if isinstance(step, Mapping) and step.get("type") == "Resize"]
    scale: Any = steps[0].get("scale") if len(steps) == 1 else None
    if not _numbers(scale, 2):
        raise UserError("its config's test pipeline has no Resize to one scale")
    return Resize((scale[0], scale[1]), bool(steps[0].get("keep_ratio", False)))


def _by_anchors(generator: Any) -> Ranges:
    """Return ranges with borders half way, in octaves, between anchors of neighbouring levels."""
    strides = get_at(generator, "strides")
    if not _numbers(strides):
        raise UserError(
            "its config has no anchors, regression ranges or RoI extractor that tell levels apart"
        )
    scales = get_at(generator, "scales")
    if not _numbers(scales):
        base, steps = get_at(generator, "octave_base_scale"), get_at(generator, "scales_per_octave")
        if not _numbers([base, steps]):
            raise UserError("its config's anchors have neither scales nor octaves")
        scales = [base * 2 ** (k / steps) for k in range(int(steps))]
    borders = [math.sqrt(a * max(scales) * b * min(scales)) for a, b in itertools.pairwise(strides)]
    return _by_level(strides, itertools.pairwise([0.0, *borders, math.inf]))


def _by_roi(extractor: Mapping[str, Any]) -> Ranges:
    strides: Any = extractor.get("featmap_strides")
    finest = extractor.get("finest_scale", FINEST_SCALE)
    if extractor.get("type") != "SingleRoIExtractor":
        raise UserError(f"{extractor.get('type')} pools every RoI from all levels")
    if not _numbers(strides) or not _numbers([finest]):
        raise UserError("its config's RoI extractor has no strides")
    borders = [finest * 2.0 ** (k + 1) for k in range(len(strides) - 1)]
    return _by_level(strides, itertools.pairwise([0.0, *borders, math.inf]))


def _given(strides: Any, ranges: Any) -> Ranges:
    if not _numbers(strides) or len(strides) != len(ranges) or not all(_numbers(r, 2) for r in ranges):
        raise UserError("its config's strides and size ranges do not fit together")
    ends = [(max(0.0, low), math.inf if high >= UNBOUNDED else high) for low, high in ranges]
    return _by_level(strides, ends)


def _by_level(strides: Sequence[float], ranges: Iterable[tuple[float, float]]) -> Ranges:
    """Return ranges by level, named as in traces: the pyramid level of stride 8 is P3."""
    return {f"P{round(math.log2(stride))}": ends for stride, ends in zip(strides, ranges)}


def _numbers(values: Any, count: int | None = None) -> bool:
    """Return whether it is a list of numbers, none of them boolean, `count` of them if given."""
    if not isinstance(values, (list, tuple)) or not values or (count is not None and len(values) != count):
        return False
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
