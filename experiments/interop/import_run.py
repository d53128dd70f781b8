"""A training by stock MMDetection as a run folder, marked as imported."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path

from experiments.common.config_text import at
from experiments.common.files import write_text
from experiments.data.find import FoundDataset
from experiments.interop.stock_run import StockRun
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.runs.record import Attempt, Record, now
from experiments.runs.run_folder import RunFolder

MOST_DIFFERENCES = 5  # in a note; the record has all


def write_run(
    folder: RunFolder,
    recipe: Recipe,
    stock: StockRun,
    seed: int,
    data: FoundDataset | None,
    unknown: list[str],
    differs: list[str],
    command: list[str],
    copy_weights: Callable[[Path, Path], None] | None = None,
) -> None:
    """Makes the run folder; what was there is replaced.

    Args:
        data: None where it could not be looked at: then nothing is said of its content.
        copy_weights: Copies the last checkpoint, if given and if there is one.
    """
    if folder.path.exists():
        shutil.rmtree(folder.path)
    folder.path.mkdir(parents=True)
    write_text(folder.recipe, recipes.dump(recipe))
    shutil.copyfile(stock.config_file, folder.config)
    if stock.logs:
        shutil.copyfile(stock.logs[-1].path, folder.log)
    if (stock.source / "trace.csv").is_file():  # of a level-weighted detector in a project of the user's
        shutil.copyfile(stock.source / "trace.csv", folder.trace)
    done = _optimizer_steps(stock)
    write_text(folder.metrics, _metrics_csv(stock))
    if copy_weights is not None and stock.checkpoint is not None:
        folder.checkpoints.mkdir()
        copy_weights(stock.checkpoint, folder.checkpoints / f"iter_{done or stock.length}.pth")
    fingerprint = data.fingerprint if data else ""
    if done is None:
        unknown = [*unknown, "the number of iterations"]
    if data is None:
        unknown = [*unknown, "the data's content: it was not there to be read"]
    record = Record(
        recipe=recipe.name,
        recipe_id=recipes.recipe_id(recipe),
        config_hash=recipes.config_hash(recipe, fingerprint),
        seed=seed,
        profile=recipe.profile,
        status="done",
        metrics=stock.metrics,
        iterations=done or 0,
        attempts=_attempts(stock, recipe),
        environment=stock.logs[-1].environment if stock.logs else {},
        command=command,
        created=now(),
        dataset={
            "name": recipe.dataset.name,
            "format": recipe.dataset.format,
            "root": str(data.root)
            if data
            else str(at(stock.config, "train_dataloader.dataset.data_root") or ""),
            "fingerprint": fingerprint,
            "images": data.images if data else {},
            "classes": list(data.classes) if data else [],
        },
        notes=_notes(differs),
        imported={
            "source": str(stock.source.resolve()),
            "checkpoint": str(stock.checkpoint.resolve()) if stock.checkpoint else None,
            "files": {str(p.relative_to(stock.source)): _sha256(p) for p in stock.files},
            "unknown": [*unknown, "the code: no commit is recorded", "the host"],
            "differs": differs,
        },
    )
    folder.write(record)


def _notes(differs: list[str]) -> list[str]:
    if not differs:
        return []
    more = f", and {len(differs) - MOST_DIFFERENCES} more" if len(differs) > MOST_DIFFERENCES else ""
    return [f"trained otherwise than the recipe says: {', '.join(differs[:MOST_DIFFERENCES])}{more}"]


def _attempts(stock: StockRun, recipe: Recipe) -> list[Attempt]:
    steps = stock.get("optim_wrapper.accumulative_counts") or 1
    return [
        Attempt(
            started=log.began,
            ended=log.ended,
            host="",
            pid=0,
            world_size=log.world_size or recipe.schedule.gpus,
            micro_batch=recipe.schedule.images_per_gpu // steps,
            accumulation=steps,
            device=(log.environment.get("gpus") or ["cpu"])[0],
        )
        for log in stock.logs
    ]


def _optimizer_steps(stock: StockRun) -> int | None:
    steps = stock.get("optim_wrapper.accumulative_counts") or 1
    if not stock.by_epoch:
        return stock.length // steps
    length = next((log.epoch_length for log in stock.logs if log.epoch_length), None)
    return length * stock.length // steps if length else None


def _metrics_csv(stock: StockRun) -> str:
    names = list(dict.fromkeys(name for metrics in stock.evaluations.values() for name in metrics))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["iteration", "epoch", *names], restval="", lineterminator="\n")
    writer.writeheader()
    done = _optimizer_steps(stock)
    for step, metrics in sorted(stock.evaluations.items()):
        whole = "" if done is None else done * step // stock.length
        writer.writerow({"iteration": whole, "epoch": step if stock.by_epoch else "", **metrics})
    return text.getvalue()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
