"""`msdet eval`: evaluate a run's weights, on its own or another data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.common.errors import UserError
from experiments.data.find import find_dataset
from experiments.recipes.loading import load_recipe
from experiments.recipes.schema import Recipe
from experiments.runs.lookup import resolve, results_dir
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.formatting import format_metrics
from msdet_cli.options import RESULTS, DataRootOpt, DatasetOpt, JsonOpt, ProfileOpt, ResultsOpt, complete
from msdet_cli.run_plan import warn_of_data


def evaluate(
    what: Annotated[
        str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, or a file of weights (.pth).")
    ],
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="Recipe of weights outside a run folder.",
            autocompletion=complete("recipe"),
        ),
    ] = None,
    profile: ProfileOpt = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the detections there.")
    ] = None,
    results: ResultsOpt = RESULTS,
    as_json: JsonOpt = False,
) -> None:
    """Evaluate weights on the validation split of a data set.

    The run's record is not changed.

    \b
    msdet eval retinanet-r50-rlo/1a2b3c4d/seed0
    msdet eval results/runs/retinanet-r50-rlo/1a2b3c4d/seed0 --dataset my-data.yaml
    msdet eval weights.pth --recipe retinanet-r50 --data-root /data/coco
    """
    checkpoint, page, root = _find(what, recipe, results_dir(results))
    if recipe is not None:
        page = recipe
    resolved = load_recipe(page, profile, dataset=dataset)
    data = find_dataset(resolved.dataset, data_root or (root if dataset is None else None))
    _check_classes(checkpoint, resolved, data.classes)
    data.check_resizable(resolved.image_size)
    warn_of_data([data])
    from experiments.training.evaluation import evaluate_checkpoint

    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    metrics = evaluate_checkpoint(resolved, checkpoint, data, out)
    if as_json:
        content = {"checkpoint": str(checkpoint), "dataset": resolved.dataset.name, "metrics": metrics}
        print(json.dumps(content, indent=2))
    else:
        Console(highlight=False, markup=False).print(
            f"{checkpoint} on {resolved.dataset.name}: {format_metrics(metrics)}", soft_wrap=True
        )


def _find(what: str, recipe: str | None, results: Path) -> tuple[Path, str, Path | None]:
    """Return the checkpoint, its recipe, and the data root of its run, if it has one."""
    if what.endswith(".pth"):
        checkpoint = Path(what)
        if not checkpoint.is_file():
            raise UserError(f"file {checkpoint.resolve()} not found", "msdet runs")
        run = RunFolder(checkpoint.resolve().parent.parent)
        if not run.record_file.exists():
            if recipe is None:
                raise UserError(
                    f"{checkpoint} is in no run folder, so its recipe is unknown", "--recipe NAME"
                )
            return checkpoint, recipe, None
    else:
        run = resolve(what, results)
        found = run.last_checkpoint()
        if found is None:
            raise UserError(f"run {run.name} has no checkpoint", "msdet runs")
        checkpoint = found
    return checkpoint, str(run.recipe), Path(run.read().dataset["root"])


def _check_classes(checkpoint: Path, recipe: Recipe, classes: list[str]) -> None:
    run = RunFolder(checkpoint.resolve().parent.parent)
    if not run.record_file.exists():
        return
    trained = list(run.read().dataset["classes"])
    if trained != list(classes):
        raise UserError(
            f"data set '{recipe.dataset.name}' has {len(classes)} classes ({', '.join(classes[:3])} ...), the run was "
            f"trained on {len(trained)} ({', '.join(trained[:3])} ...): they must be the same, in the same order"
        )
