"""Which runs a command means, where they live, and what is left to do of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments import recipes
from experiments.data.find import FoundDataset, find_dataset
from experiments.errors import UserError
from experiments.files import write_text
from experiments.recipes import Recipe
from experiments.runs import InUseError, Record, RunFolder, held, now, starting_weights

Todo = Literal["start", "resume", "skip", "failed", "running"]


@dataclass(frozen=True)
class PlannedRun:
    """One recipe with one seed.

    Attributes:
        todo: When it was planned. `skip` is done already, `failed` waits for `--retry-failed`.
        label: What sets it apart from its neighbours, for tables.
        retry_failed, force: As the command said.
    """

    recipe: Recipe
    seed: int
    data: FoundDataset
    folder: RunFolder
    todo: Todo
    label: str
    retry_failed: bool = False
    force: bool = False


def plan(
    labelled: Iterable[tuple[str, Recipe]],
    seeds: Sequence[int],
    results: Path,
    data_root: Path | None = None,
    retry_failed: bool = False,
    force: bool = False,
    generate: bool = True,
) -> list[PlannedRun]:
    """The runs of the recipes times the seeds, each once, with what is left to do.

    Args:
        labelled: Label and resolved recipe.
        data_root: Takes the place of the data set's own root.
        generate: Whether built-in data may be made now; a dry run makes none.

    Raises:
        UserError: The data is missing or broken.
    """
    planned: dict[Path, PlannedRun] = {}
    found: dict[str, FoundDataset] = {}
    for label, recipe in labelled:
        if recipe.init_from is not None:
            starting_weights(recipe.init_from, results)
        key = recipe.dataset.model_dump_json()
        if key not in found:
            found[key] = find_dataset(recipe.dataset, data_root, generate=generate)
        data = found[key]
        digest = recipes.config_hash(recipe, data.fingerprint)
        for seed in seeds:
            folder = RunFolder.of(results, recipe.name, digest, seed)
            todo = _todo(folder, retry_failed, force)
            run = PlannedRun(recipe, seed, data, folder, todo, label, retry_failed, force)
            planned.setdefault(folder.path, run)
    return list(planned.values())


def _todo(folder: RunFolder, retry_failed: bool, force: bool) -> Todo:
    if not folder.record_file.exists():
        return "start"
    try:
        state = folder.state()
    except UserError:  # unreadable
        if force:
            return "start"
        raise
    if state == "running":
        return "running"
    if force:
        return "start"
    if state == "done":
        return "skip"
    if state in ("failed", "cancelled") and not retry_failed:
        return "failed"
    return "resume" if folder.last_checkpoint() else "start"


def prepare(run: PlannedRun, command: Sequence[str]) -> Todo:
    """Makes the run folder ready for a worker; what a resumed run needs stays as it is.

    Returns:
        What is left to do by now: another command may have come first since the plan was made. Only for
        `start` and `resume` is the folder ready.

    Raises:
        UserError: The results folder cannot be written.
    """
    folder = run.folder
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with held(folder, patience_s=0):
            todo = _todo(folder, run.retry_failed, run.force)
            if todo not in ("start", "resume"):
                return todo
            # Without `force` nothing is thrown away: a run that is queued may have a worker on its way.
            if run.force or not folder.record_file.exists():
                _clear(folder)
                folder.write(_new_record(run))
            if todo == "start":
                write_text(folder.recipe, recipes.dump(run.recipe))
            record = folder.read()
            record.command = list(command)
            record.dataset["root"] = str(run.data.root)
            record.status = "queued"
            folder.write(record)
            return todo
    except InUseError:
        return "running"
    except OSError as error:
        raise UserError(
            f"the results folder {folder.path} cannot be written: {error.strerror or error}",
            "name another one: --results-dir DIR",
        ) from None


def _clear(folder: RunFolder) -> None:
    """Removes what a run has left; what is about to be replaced as a whole, and the lock, stay in their places."""
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in (folder.lock, folder.record_file, folder.recipe):
            path.unlink()


def _new_record(run: PlannedRun) -> Record:
    digest = recipes.config_hash(run.recipe, run.data.fingerprint)
    return Record(
        recipe=run.recipe.name,
        recipe_id=recipes.recipe_id(run.recipe),
        config_hash=digest,
        seed=run.seed,
        profile=run.recipe.profile,
        created=now(),
        dataset={
            "name": run.recipe.dataset.name,
            "format": run.recipe.dataset.format,
            "root": str(run.data.root),
            "fingerprint": run.data.fingerprint,
            "images": run.data.images,
            "classes": list(run.data.classes),
        },
    )
