"""`msdet eval`: evaluate a run's weights, on its own or another data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from experiments.common.errors import UserError
from experiments.data.find import find_dataset
from experiments.recipes.loading import load_recipe
from experiments.runs.lookup import resolve
from experiments.runs.run_folder import RunFolder
from msdet_cli.completion import complete_runs
from msdet_cli.console.file_output import make_output_folder
from msdet_cli.console.formatting import format_metrics
from msdet_cli.console.output import print_json
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    JsonOpt,
    ProfileOpt,
    RecipeOpt,
    ResultsOpt,
    argument,
    option,
)
from msdet_cli.run_plan import warn_of_data


def evaluate(
    what: Annotated[str, argument("RUN|CHECKPOINT", "A run, or a file of weights (.pth).", complete_runs)],
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    recipe: RecipeOpt = None,
    profile: ProfileOpt = None,
    out: Annotated[Path | None, option("--out DIR", "Write the detections there.")] = None,
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
    checkpoint, run = _find(what, results)
    if run is None and recipe is None:
        raise UserError(f"{checkpoint} is in no run folder, so its recipe is unknown", "--recipe NAME")
    record = run.read() if run else None
    resolved = load_recipe(recipe or str(run and run.recipe), profile, dataset=dataset)
    trained_in = record.dataset.get("root") if record and dataset is None else None
    data = find_dataset(resolved.dataset, data_root or (Path(trained_in) if trained_in else None))
    trained = list(record.dataset.get("classes") or ()) if record else data.classes
    if trained != data.classes:
        raise UserError(
            f"data set '{resolved.dataset.name}' has {len(data.classes)} classes ({', '.join(data.classes[:3])} ...),"
            f" the run was trained on {len(trained)} ({', '.join(trained[:3])} ...): they must be the same, in the"
            " same order"
        )
    data.check_resizable(resolved.image_size)
    warn_of_data([data])
    if out is not None:
        make_output_folder(out)
    from experiments.training.prediction import evaluate_checkpoint

    metrics = evaluate_checkpoint(resolved, checkpoint, data, out)
    if as_json:
        print_json({"checkpoint": str(checkpoint), "dataset": resolved.dataset.name, "metrics": metrics})
    else:
        print(f"{checkpoint} on {resolved.dataset.name}: {format_metrics(metrics)}")


def _find(what: str, results: Path) -> tuple[Path, RunFolder | None]:
    """Return the checkpoint, and the run that it belongs to, if any."""
    if what.endswith(".pth"):
        checkpoint = Path(what)
        if not checkpoint.is_file():
            raise UserError(f"file {checkpoint.resolve()} not found", "msdet runs")
        run = RunFolder(checkpoint.resolve().parent.parent)
        return checkpoint, run if run.record_file.exists() else None
    run = resolve(what, results)
    return run.newest_checkpoint(), run
