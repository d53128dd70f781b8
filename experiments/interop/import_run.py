"""Write a training by stock MMDetection as a run folder, marked as imported. No torch."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from experiments.common.files import hash_file, write_text
from experiments.data.find import FoundDataset
from experiments.interop.stock_run import StockRun
from experiments.recipes import loading as recipes
from experiments.recipes.differences import join_differences
from experiments.recipes.schema import Recipe
from experiments.runs.record import Attempt, Record, format_now
from experiments.runs.run_folder import RunFolder

MAX_DIFFERENCES = 5  # in a note; the record has all


def write_run(
    folder: RunFolder,
    stock: StockRun,
    recipe: Recipe,
    seed: int,
    data: FoundDataset | None,
    unknown: list[str],
    differs: list[str],
    command: list[str],
    copy_weights: Callable[[Path, Path], None] | None = None,
) -> Record:
    """Write the run folder and return its record; an existing one stays until this one is whole.

    Args:
        recipe: That which the training corresponds to.
        data: The data set; None where it is not available.
        unknown: One line for each thing that the work folder does not say.
        differs: Differences from the recipe's config, one line each.
        command: As typed, for the record.
        copy_weights: Copies a checkpoint from one path to another; None imports no weights.
    """
    steps = _count_optimizer_steps(stock)
    if steps is None:
        unknown = [*unknown, "the number of iterations"]
    if data is None:
        unknown = [*unknown, "the data's content: it is not available here"]
    some = join_differences(differs, MAX_DIFFERENCES)
    fingerprint = data.fingerprint if data else ""
    root = next(map(str, stock.training_data("data_root")), "")
    record = Record(
        recipe=recipe.name,
        recipe_id=recipes.compute_recipe_id(recipe),
        config_hash=recipes.compute_config_hash(recipe, fingerprint),
        seed=seed,
        profile=recipe.profile,
        status="done",
        metrics=stock.metrics,
        iterations=steps or 0,
        attempts=_attempts(stock, recipe),
        environment=stock.logs[-1].environment if stock.logs else {},
        command=command,
        created=format_now(),
        dataset={
            "name": recipe.dataset.name,
            "format": recipe.dataset.format,
            "root": str(data.root) if data else root,
            "fingerprint": fingerprint,
            "images": data.images if data else {},
            "classes": list(data.classes) if data else [],
        },
        notes=[f"trained with other settings than the recipe: {some}"] if differs else [],
        imported={
            "source": str(stock.source.resolve()),
            "checkpoint": str(stock.checkpoint.resolve()) if stock.checkpoint else None,
            "files": {str(p.relative_to(stock.source)): hash_file(p) for p in stock.files},
            "unknown": [*unknown, "the code: no commit is recorded", "the host"],
            "differs": differs,
        },
    )
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.path.parent, prefix=".importing-") as temporary:
        made = RunFolder(Path(temporary) / folder.path.name)
        made.path.mkdir()
        write_text(made.recipe, recipes.dump(recipe))
        shutil.copyfile(stock.config_file, made.config)
        if stock.logs:
            shutil.copyfile(stock.logs[-1].path, made.log)
        if (stock.source / "trace.csv").is_file():  # by a level-weighted detector in a user's own project
            shutil.copyfile(stock.source / "trace.csv", made.trace)
        write_text(made.metrics, _metrics_csv(stock, steps))
        if copy_weights is not None and stock.checkpoint is not None:
            made.checkpoints.mkdir()
            copy_weights(stock.checkpoint, made.checkpoints / f"iter_{steps or stock.length}.pth")
        made.write(record)
        if folder.path.exists():
            shutil.rmtree(folder.path)
        made.path.rename(folder.path)
    return record


def _attempts(stock: StockRun, recipe: Recipe) -> list[Attempt]:
    return [
        Attempt(
            started=log.began,
            ended=log.ended,
            host="",
            pid=0,
            world_size=log.world_size or recipe.schedule.gpus,
            micro_batch=recipe.schedule.images_per_gpu // stock.accumulation,
            accumulation=stock.accumulation,
            device=(log.environment.get("gpus") or ["cpu"])[0],
        )
        for log in stock.logs
    ]


def _count_optimizer_steps(stock: StockRun) -> int | None:
    if not stock.by_epoch:
        return stock.length // stock.accumulation
    length = next((log.epoch_length for log in stock.logs if log.epoch_length), None)
    return length * stock.length // stock.accumulation if length else None


def _metrics_csv(stock: StockRun, steps: int | None) -> str:
    names = list(dict.fromkeys(name for metrics in stock.evaluations.values() for name in metrics))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["iteration", "epoch", *names], restval="", lineterminator="\n")
    writer.writeheader()
    for step, metrics in sorted(stock.evaluations.items()):
        iteration = "" if steps is None else steps * step // stock.length
        writer.writerow({"iteration": iteration, "epoch": step if stock.by_epoch else "", **metrics})
    return text.getvalue()
