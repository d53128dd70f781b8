"""Write a training by stock MMDetection as a run folder, marked as imported. No torch."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.common.files import write_text
from experiments.data.find import FoundDataset
from experiments.interop.stock_run import StockRun
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.runs.record import Attempt, Record, now
from experiments.runs.run_folder import RunFolder

MAX_DIFFERENCES = 5  # in a note; the record has all


@dataclass(frozen=True)
class MatchedTraining:
    """A training with the recipe that it corresponds to.

    Attributes:
        data: The data set; None where it is not available.
        unknown: One line for each thing that the work folder does not say.
        differs: Differences from the recipe's config, one line each.
    """

    stock: StockRun
    recipe: Recipe
    seed: int
    data: FoundDataset | None
    unknown: list[str]
    differs: list[str]


def write_run(
    folder: RunFolder,
    training: MatchedTraining,
    command: list[str],
    copy_weights: Callable[[Path, Path], None] | None = None,
) -> None:
    """Write the run folder, replacing an existing one.

    Args:
        folder: The run.
        training: The training to import.
        command: The command line, for the record.
        copy_weights: Copies a checkpoint from one path to another; None imports no weights.
    """
    stock, recipe, data = training.stock, training.recipe, training.data
    if folder.path.exists():
        shutil.rmtree(folder.path)
    folder.path.mkdir(parents=True)
    write_text(folder.recipe, recipes.dump(recipe))
    shutil.copyfile(stock.config_file, folder.config)
    if stock.logs:
        shutil.copyfile(stock.logs[-1].path, folder.log)
    if (stock.source / "trace.csv").is_file():  # by a level-weighted detector in a user's own project
        shutil.copyfile(stock.source / "trace.csv", folder.trace)
    done = _optimizer_steps(stock)
    write_text(folder.metrics, _metrics_csv(stock))
    if copy_weights is not None and stock.checkpoint is not None:
        folder.checkpoints.mkdir()
        copy_weights(stock.checkpoint, folder.checkpoints / f"iter_{done or stock.length}.pth")
    fingerprint = data.fingerprint if data else ""
    unknown = list(training.unknown)
    if done is None:
        unknown.append("the number of iterations")
    if data is None:
        unknown.append("the data's content: it is not available here")
    record = Record(
        recipe=recipe.name,
        recipe_id=recipes.recipe_id(recipe),
        config_hash=recipes.config_hash(recipe, fingerprint),
        seed=training.seed,
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
            "root": str(data.root if data else stock.get("train_dataloader.dataset.data_root") or ""),
            "fingerprint": fingerprint,
            "images": data.images if data else {},
            "classes": list(data.classes) if data else [],
        },
        notes=_notes(training.differs),
        imported={
            "source": str(stock.source.resolve()),
            "checkpoint": str(stock.checkpoint.resolve()) if stock.checkpoint else None,
            "files": {str(p.relative_to(stock.source)): _sha256(p) for p in stock.files},
            "unknown": [*unknown, "the code: no commit is recorded", "the host"],
            "differs": training.differs,
        },
    )
    folder.write(record)


def _notes(differs: list[str]) -> list[str]:
    if not differs:
        return []
    more = f", and {len(differs) - MAX_DIFFERENCES} more" if len(differs) > MAX_DIFFERENCES else ""
    return [f"trained with other settings than the recipe: {', '.join(differs[:MAX_DIFFERENCES])}{more}"]


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


def _optimizer_steps(stock: StockRun) -> int | None:
    if not stock.by_epoch:
        return stock.length // stock.accumulation
    length = next((log.epoch_length for log in stock.logs if log.epoch_length), None)
    return length * stock.length // stock.accumulation if length else None


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
