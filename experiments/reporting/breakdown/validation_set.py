"""A run's validation set: where it lies, its annotations, a random choice of images. No torch."""

from __future__ import annotations

import functools
import random
from pathlib import Path

from experiments.data.find import resolve_root
from experiments.data.ground_truth import GroundTruth, read_ground_truth
from experiments.data.spec import DatasetSpec
from experiments.recipes import loading as recipes
from experiments.runs.run_folder import RunFolder


def truth_of(run: RunFolder, data_root: Path | None = None) -> GroundTruth:
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
    return _read(spec.model_dump_json(), root, tuple(record.dataset.get("classes") or ()))


@functools.lru_cache(maxsize=4)
def _read(spec: str, root: Path, classes: tuple[str, ...]) -> GroundTruth:
    return read_ground_truth(DatasetSpec.model_validate_json(spec), root, classes)


def random_places(images: int, count: int, seed: int = 0) -> list[int]:
    """Return `count` places among the images of a set, ascending, always the same for one seed."""
    return sorted(random.Random(seed).sample(range(images), min(count, images)))
