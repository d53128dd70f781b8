"""`msdet prior`: the foreground prior that Guided Loss starts from, counted in training images."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.common.errors import UserError
from experiments.data.find import FoundDataset, find_dataset
from experiments.recipes.loading import load_recipe
from experiments.recipes.schema import Recipe
from msdet_cli.console.output import print_json
from msdet_cli.options import DataRootOpt, DatasetOpt, JsonOpt, ProfileOpt, RecipeArg, SetOpt, option

if TYPE_CHECKING:
    from experiments.training.config.foreground_prior import ForegroundPrior


def prior(
    recipe: RecipeArg,
    profile: ProfileOpt = None,
    sets: SetOpt = None,
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    exact: Annotated[bool, option("--exact", "Count all images, not a sample of 2,000.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Count the foreground prior of a recipe with Guided Loss.

    The prior is the share of (anchor, class) pairs that are foreground. Runs reuse it, or count it themselves. Of
    more than 2,000 training images a seeded sample of 2,000 is counted, with its standard error; --exact counts
    all, which takes 20 minutes for COCO. Only annotations are read.

    \b
    msdet prior retinanet-r50-guided --data-root /data/coco
    msdet prior retinanet-r50-guided --data-root /data/coco --exact
    msdet prior retinanet-r50-guided -p tiny --json
    """
    resolved = load_recipe(recipe, profile, sets or (), dataset)
    found = find_dataset(resolved.dataset, data_root)
    counted = _count(resolved, found, exact)
    if as_json:
        content = {
            "recipe": resolved.name, "dataset": resolved.dataset.name, "fingerprint": found.fingerprint,
            "images": counted.images, "foreground_anchors": counted.foreground, "anchors": counted.anchors,
            "classes": counted.classes, "prior": counted.value, "score_threshold": counted.score_threshold,
            "training_images": counted.sampled_from or counted.images, "standard_error": counted.standard_error,
        }  # fmt: skip
        print_json(content)
        return
    images = f"{counted.images} " + (f"of {counted.sampled_from} " if counted.sampled_from else "")
    print(
        f"{counted.foreground} of {counted.anchors} anchors are foreground in {images}training images"
        f" of {resolved.dataset.name}, {counted.classes} classes"
    )
    print(f"prior π               {counted.value:.4g}")
    if counted.sampled_from:
        print(f"standard error of π   {counted.standard_error:.2g}; --exact counts all images")
    print(f"score threshold π · C {counted.score_threshold:.4g}")


def _count(recipe: Recipe, found: FoundDataset, exact: bool) -> ForegroundPrior:
    with contextlib.redirect_stdout(io.StringIO()):  # MMDetection prints on import
        from experiments.training import components  # noqa: F401
        from experiments.training.config import foreground_prior as priors
        from experiments.training.config.builder import build_config

        config = build_config(recipe, found.classes, found.root, Path("results"))
    if not priors.is_guided(config):
        raise UserError(
            f"recipe {recipe.name}: the detector has no Guided Loss, so it has no prior",
            "msdet prior retinanet-r50-guided",
        )
    known = priors.find_known_prior(config, found.fingerprint, exact)
    console = Console(stderr=True)
    if known is not None or not console.is_terminal:
        return known or priors.count_prior(config, found.fingerprint, priors.print_progress, exact)
    columns = (TextColumn("assigning anchors"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return priors.count_prior(config, found.fingerprint, show, exact)
