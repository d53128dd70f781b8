"""One run's AP by part: from its kept detections, checked against its record, and cached."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.common.config_text import read_config
from experiments.common.errors import UserError
from experiments.common.files import write_json
from experiments.data.ground_truth import GroundTruth
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.reporting.breakdown.level_ranges import Levels, levels_of
from experiments.reporting.breakdown.validation_set import truth_of
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder

VERSION = 1  # of what is remembered; raise it when an answer changes
TOLERANCE = 1e-9  # percentage points between the record's AP and this one


@dataclass(frozen=True)
class Breakdown:
    """AP in percent, part by part; a part without ground truth has none.

    Attributes:
        metric: AP (COCO) or mAP (VOC).
        overall: As in the record.
        classes: Their mean is `overall`.
        sizes: small, medium, large, and octaves of sqrt(area), by the annotations' area in the original image.
        levels: P3, ...; empty where none follow from a size.
        level_sizes: Level to the sizes that it stands for, in words.
        level_measure: What of an object these are sizes of, in the image as it is tested.
        counts: Objects by class, size or level.
        data: Digest of the annotations.
        remark: Why there are no levels.
    """

    metric: str
    data: str
    overall: float
    classes: dict[str, float]
    sizes: dict[str, float] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    level_sizes: dict[str, str] = field(default_factory=dict)
    level_measure: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    remark: str = ""


@dataclass(frozen=True)
class Evaluated:
    """A finished run with what its final evaluation rested on."""

    run: RunFolder
    record: Record
    recipe: Recipe
    truth: GroundTruth

    @property
    def detections_file(self) -> Path:
        return self.run.detections / "val.bbox.json"

    @property
    def classes(self) -> list[str]:
        return list(self.record.dataset.get("classes") or ())

    def detections(self) -> list[dict[str, Any]]:
        """Read the kept detections.

        Raises:
            UserError: They are gone, or no detections.
        """
        try:
            content = json.loads(self.detections_file.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.detections_file} cannot be read: {error}", "msdet eval RUN --out DIR"
            ) from None
        if not isinstance(content, list) or not all(map(_is_detection, content)):
            raise UserError(f"{self.detections_file} holds no detections")
        known = self.truth.by_id
        names = _category_names(self.truth)
        strange = next(
            (e for e in content if e["image_id"] not in known or (names and e["category_id"] not in names)),
            None,
        )
        if strange is not None:
            raise UserError(
                f"{self.detections_file} is of other annotations: image {strange['image_id']} with category"
                f" {strange['category_id']} is not among them"
            )
        return content

    def category(self, detection: dict[str, Any]) -> str:
        """Return the name of a detection's class."""
        if "category" in detection:
            return str(detection["category"])
        return _category_names(self.truth)[detection["category_id"]]


def _is_detection(entry: Any) -> bool:
    needed = {"image_id", "category_id", "bbox", "score"}
    return (
        isinstance(entry, dict)
        and needed <= entry.keys()
        and isinstance(entry["bbox"], list)
        and len(entry["bbox"]) == 4
        and isinstance(entry["score"], float)
    )


def _category_names(truth: GroundTruth) -> dict[int, str]:
    """Return names by category id of a COCO file; empty for VOC, whose detections name their class."""
    return {truth.category_ids[name]: name for name in truth.classes if name in truth.category_ids}


def evaluated(run: RunFolder, data_root: Path | None = None) -> Evaluated:
    """Open a finished run and its validation set.

    Args:
        data_root: Where the data set lies, if not where the run found it.

    Raises:
        UserError: The run is not done or was imported, keeps no detections, or its annotations are not here.
    """
    record = run.read()
    if run.state(record) != "done":
        raise UserError(f"run {run.name} is {run.state(record)}, not done", "msdet runs")
    if not (run.detections / "val.bbox.json").is_file():
        why = "was imported" if record.imported else "keeps no detections"
        raise UserError(f"run {run.name} {why}: there is no {run.detections / 'val.bbox.json'}", "msdet runs")
    recipe = recipes.load_recipe(str(run.recipe))
    return Evaluated(run, record, recipe, truth_of(run, data_root))


def breakdown(one: Evaluated, say: Callable[[str], None] | None = None) -> Breakdown:
    """Return a run's AP by class, size and level, cached in its folder.

    Args:
        say: Told what is done where nothing is remembered: on COCO it takes tens of seconds.

    Raises:
        UserError: Its detections cannot be read, or do not give the AP of its record: then they or the annotations
            are not what was evaluated.
    """
    levels, remark = _levels(one)
    key = [VERSION, _digest(one.detections_file), one.truth.digest, one.classes, repr(levels)]
    found = _recall(one, key)
    if found is None:
        if say is not None:
            say(f"error analysis of {one.run.name} (remembered for next time)")
        found = _voc(one) if not one.truth.category_ids else _coco(one, levels, remark)
        with contextlib.suppress(OSError):  # a folder of somebody else's: computed again next time
            write_json(_cache(one), {"key": key, "answer": dataclasses.asdict(found)}, indent=None)
    recorded = one.record.metrics.get(found.metric)
    if recorded is None or abs(recorded - found.overall) > TOLERANCE:
        raise UserError(
            f"run {one.run.name}: its detections give {found.metric} {found.overall:.4f} now, its record says"
            f" {'none' if recorded is None else format(recorded, '.4f')}: annotations or detections have changed since,"
            " or an earlier msdet evaluated them otherwise"
        )
    return found


def _levels(one: Evaluated) -> tuple[Levels | None, str]:
    if not one.truth.category_ids:
        return None, "VOC's protocol knows no sizes, so there is no AP by size or level."
    try:
        return levels_of(read_config(one.run.config), one.recipe.weighting.get("where")), ""
    except UserError as error:
        return None, f"No AP by level: {error.message}."


def _coco(one: Evaluated, levels: Levels | None, remark: str) -> Breakdown:
    from experiments.reporting.breakdown.coco_pass import CocoPass

    made = CocoPass(one.truth, one.detections())
    classes, sizes, counts = made.by_size()
    overall = sizes.pop("all", 0.0)
    by_kind = {"classes": {n: counts[n] for n in classes}, "sizes": {n: counts[n] for n in sizes}}
    if levels is None:
        return Breakdown("AP", one.truth.digest, overall, classes, sizes, counts=by_kind, remark=remark)
    per_level, counts = made.by_level(levels)
    by_kind["levels"] = {name: counts[name] for name in per_level}
    words = {name: levels.words(name) for name in levels.ranges}
    return Breakdown("AP", one.truth.digest, overall, classes, sizes, per_level, words, levels.named, by_kind)


def _voc(one: Evaluated) -> Breakdown:
    from experiments.reporting.breakdown.voc_pass import voc_average_precisions

    classes, overall, counts = voc_average_precisions(one.truth, one.detections(), one.classes)
    _, remark = _levels(one)
    return Breakdown("mAP", one.truth.digest, overall, classes, counts={"classes": counts}, remark=remark)


def _cache(one: Evaluated) -> Path:
    return one.run.detections / "val.errors.cache"


def _recall(one: Evaluated, key: list[Any]) -> Breakdown | None:
    try:
        content = json.loads(_cache(one).read_bytes())
        return Breakdown(**content["answer"]) if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
