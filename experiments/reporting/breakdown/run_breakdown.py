"""One run's AP by part: from its kept detections, checked against its record, and cached."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from experiments.common import cache
from experiments.common.config_text import read_config
from experiments.common.errors import UserError
from experiments.data.find import resolve_root
from experiments.data.ground_truth import GroundTruth, read_ground_truth
from experiments.data.spec import DatasetSpec
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.reporting.breakdown.level_ranges import Levels, find_levels
from experiments.runs.outputs import is_as_written
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder

VERSION = 2  # of what is cached; raise it when an answer changes
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

    def detections(self) -> list[Detection]:
        """Return the kept detections, each with the name of its class as `category`.

        Raises:
            UserError: They are gone, changed since, or no detections, or of other annotations.
        """
        file, images, ids = self.detections_file, self.truth.by_id, self.truth.category_ids
        names = {ids[name]: name for name in self.truth.classes if name in ids}  # of a COCO file
        try:
            raw = file.read_bytes()
            if not is_as_written(self.record, f"detections/{file.name}", raw):
                raise UserError(f"{file} is not as the run wrote it: changed or damaged since")
            found = _DETECTIONS.validate_json(raw)
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error}", "msdet eval RUN --out DIR") from None
        except ValidationError as error:
            raise UserError(f"{file} holds no detections: {error.errors()[0]['msg']}") from None
        for entry in found:
            if entry["image_id"] not in images or (names and entry["category_id"] not in names):
                raise UserError(
                    f"{file} is of other annotations: image {entry['image_id']} with category"
                    f" {entry['category_id']} is not among them"
                )
            if names:
                entry["category"] = names[entry["category_id"]]
        return found


class Detection(TypedDict):
    """One of a COCO results file; VOC's name their class."""

    image_id: int | str
    category_id: int
    category: NotRequired[str]
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]
    score: float


_DETECTIONS = TypeAdapter(list[Detection])


def open_evaluation(run: RunFolder, data_root: Path | None = None) -> Evaluated:
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
    return Evaluated(run, record, recipes.load_recipe(str(run.recipe)), load_truth(run, data_root))


def load_truth(run: RunFolder, data_root: Path | None = None) -> GroundTruth:
    """Return the annotations that a run was evaluated with; shared, so not to be changed.

    Args:
        data_root: Where the data set lies, if neither where the run had it nor where its recipe says.

    Raises:
        UserError: The record, the recipe or an annotation file is missing or broken.
    """
    record, spec = run.read(), recipes.load_recipe(str(run.recipe)).dataset
    recorded = Path(str(record.dataset.get("root") or ""))
    there = recorded.is_absolute() and recorded.is_dir()
    root = data_root or (recorded if there else resolve_root(spec))
    return _read_truth(spec.model_dump_json(), root, tuple(record.dataset.get("classes") or ()))


@functools.lru_cache(maxsize=4)
def _read_truth(spec: str, root: Path, classes: tuple[str, ...]) -> GroundTruth:
    return read_ground_truth(DatasetSpec.model_validate_json(spec), root, classes)


def load_breakdown(one: Evaluated) -> Breakdown:
    """Return a run's AP by class, size and level, from the cache where nothing has changed.

    Where nothing is cached it says so on standard error, for on COCO it takes tens of seconds.

    Raises:
        UserError: Its detections cannot be read, or do not give the AP of its record: then they or the annotations
            are not what was evaluated.
    """
    levels, remark = _find_levels(one)
    classes = list(one.record.dataset.get("classes") or ())
    files = cache.read_stamps([one.detections_file.resolve()])
    key = ["error analysis", VERSION, sorted(files), one.truth.digest, classes, repr(levels), remark]
    answer = cache.recall(key)
    if answer is None:
        print(f"error analysis of {one.run.name} (remembered for next time)", file=sys.stderr)
        parts = _coco_parts(one, levels) if one.truth.category_ids else _voc_parts(one, classes)
        answer = {**parts, "data": one.truth.digest, "remark": remark}
        cache.remember(key, answer, files)
    found = Breakdown(**answer)
    recorded = one.record.metrics.get(found.metric)
    if recorded is None or abs(recorded - found.overall) > TOLERANCE:
        raise UserError(
            f"run {one.run.name}: its detections give {found.metric} {found.overall:.4f} now, its record says"
            f" {'none' if recorded is None else format(recorded, '.4f')}: annotations or detections have changed since,"
            " or an earlier msdet evaluated them otherwise"
        )
    return found


def _find_levels(one: Evaluated) -> tuple[Levels | None, str]:
    if not one.truth.category_ids:
        return None, "VOC's protocol knows no sizes, so there is no AP by size or level."
    try:
        return find_levels(read_config(one.run.config), one.recipe.weighting.get("where")), ""
    except UserError as error:
        return None, f"No AP by level: {error.message}."


def _coco_parts(one: Evaluated, levels: Levels | None) -> dict[str, Any]:
    """Return fields of a Breakdown."""
    from experiments.reporting.breakdown.coco_pass import CocoPass

    made = CocoPass(one.truth, one.detections())
    classes, sizes, counts = made.by_size()
    fields: dict[str, Any] = {"metric": "AP", "overall": sizes.pop("all", 0.0)}
    parts = {"classes": classes, "sizes": sizes}
    if levels is not None:
        parts["levels"], counts["levels"] = made.by_level(levels)
        words = {name: levels.words(name) for name in levels.ranges}
        fields |= {"level_sizes": words, "level_measure": levels.named}
    shown = {kind: {part: counts[kind][part] for part in values} for kind, values in parts.items()}
    return {**fields, **parts, "counts": shown}


def _voc_parts(one: Evaluated, classes: list[str]) -> dict[str, Any]:
    """Return fields of a Breakdown."""
    from experiments.reporting.breakdown.voc_pass import compute_voc_aps

    values, overall, counts = compute_voc_aps(one.truth, one.detections(), classes)
    return {"metric": "mAP", "overall": overall, "classes": values, "counts": {"classes": counts}}
