"""The plan of a command: its runs, their folders and what is left to do of each."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.common.errors import UserError
from experiments.common.files import name_for_damaged, refusing, write_text
from experiments.common.printable import hide_secrets
from experiments.common.processes import identify_process
from experiments.data.find import FoundDataset, find_dataset, resolve_root
from experiments.data.spec import DatasetSpec
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.runs.lookup import find_starting_weights
from experiments.runs.record import Launch, NewerSchemaError, Record, format_now
from experiments.runs.run_folder import RunFolder, acquire_lock

MAX_RUNS = 10_000  # of one command: their folders are looked at one by one

Todo = Literal["start", "resume", "skip", "failed", "running", "unreadable"]


@dataclass(frozen=True)
class PlannedRun:
    """One recipe with one seed.

    Attributes:
        todo: When it was planned. `skip` is done already, `failed` requires `--retry-failed`, `unreadable` was
            written by a newer msdet.
        label: In what it differs from the other runs, for tables.
        retry_failed, force: As the command said.
        launch: How it is executed; a micro-batch that was halved once stays halved.
    """

    recipe: Recipe
    seed: int
    data: FoundDataset
    folder: RunFolder
    todo: Todo
    label: str
    retry_failed: bool = False
    force: bool = False
    launch: Launch = field(default_factory=Launch)


@dataclass(frozen=True)
class PlanOptions:
    """What a command says of all of its runs.

    Attributes:
        seeds: Of each recipe.
        data_root: Replaces the data sets' own roots.
        force: Whether runs start anew, and what they have is deleted.
        generate: Whether built-in data may be made now; a dry run makes none.
        gpus: The machine's.
        known_images: Training images of data sets that a forecast does not need to find.
        notify: Called with a sentence for each such data set, and each recipe whose runs are there under another name.
    """

    seeds: Sequence[int]
    results: Path
    data_root: Path | None = None
    retry_failed: bool = False
    force: bool = False
    generate: bool = True
    execution: Execution = field(default_factory=Execution)
    gpus: Sequence[Gpu] = ()
    known_images: Mapping[str, int] = field(default_factory=dict)
    notify: Callable[[str], object] = str


def plan(labelled: Iterable[tuple[str, Recipe]], options: PlanOptions) -> list[PlannedRun]:
    """Return the runs of the recipes with each seed, each once, with what is left to do.

    A recipe that is the same experiment as another has the other's runs, whatever its name.

    Raises:
        UserError: The data is missing or broken, an image is too thin to be resized, the runs cannot be executed like
            that, or are too many.
    """
    planned: dict[tuple[str, int], PlannedRun] = {}
    found: dict[str, FoundDataset] = {}
    for label, recipe in labelled:
        if len(options.seeds) + len(planned) > MAX_RUNS:
            raise UserError(
                f"{len(options.seeds)} seeds of each recipe: one command plans at most {MAX_RUNS} runs",
                "--seeds 5",
            )
        if recipe.init_from is not None:
            find_starting_weights(recipe.init_from, options.results)
        launch = options.execution.launch(recipe, options.gpus)
        key = recipe.dataset.model_dump_json()
        if key not in found:
            found[key] = _find_data(recipe.dataset, options)
        data = found[key]
        data.check_resizable(recipe.image_size)
        digest = recipes.compute_config_hash(recipe, data.fingerprint)
        configs = [] if options.force else sorted((options.results / "runs").glob(f"*/{digest}"))
        for seed in options.seeds:
            if (digest, seed) not in planned:
                own = RunFolder.of(options.results, recipe.name, digest, seed)
                folder = _furthest(own, [RunFolder(config / own.path.name) for config in configs])
                name = folder.path.parts[-3]
                named = recipe if name == recipe.name else recipe.model_copy(update={"name": name})
                todo = _todo(folder, options.retry_failed, options.force)
                planned[digest, seed] = PlannedRun(
                    named, seed, data, folder, todo, label, options.retry_failed, options.force, launch
                )
        for name in {planned[digest, seed].recipe.name for seed in options.seeds} - {recipe.name}:
            varied = f" with {label}" if label else ""
            options.notify(
                f"{recipe.name}{varied} is the same experiment as {name}/{digest}, whose runs are used"
            )
    return list(planned.values())


def _find_data(spec: DatasetSpec, options: PlanOptions) -> FoundDataset:
    """Return the data set; only its size where a forecast knows it and its folder is missing."""
    place, images = resolve_root(spec, options.data_root), options.known_images.get(spec.name)
    if images is None or place.exists():
        return find_dataset(spec, options.data_root, generate=options.generate)
    options.notify(f"data set '{spec.name}' is not in {place}: forecast for {images} training images")
    return FoundDataset(spec, place, [], {"train": images}, "unknown")


def _furthest(own: RunFolder, others: Sequence[RunFolder]) -> RunFolder:
    """Return the folder in which an experiment has come furthest; `own` where none has come further."""
    started = [run for run in others if run.path != own.path and run.record_file.exists()]

    def rank(run: RunFolder) -> int:
        try:
            record = run.read()
        except UserError:  # not there, or unreadable
            return 3
        if record.imported is not None:  # trained by MMDetection, which is no reason to skip our own
            return 4
        return {"done": 0, "running": 1}.get(run.state(record), 2)

    return min([own, *started], key=rank) if started else own


def _todo(folder: RunFolder, retry_failed: bool, force: bool) -> Todo:
    remaining: Todo = "resume" if folder.last_checkpoint() and not force else "start"
    try:
        state = folder.state()
    except NewerSchemaError:
        return "start" if force else "unreadable"
    except UserError:  # not there, or broken: what it lists is lost, its checkpoints are not
        return remaining
    if state == "running":
        return "running"
    if force:
        return "start"
    if state == "done":
        return "skip"
    return "failed" if state in ("failed", "cancelled") and not retry_failed else remaining


@contextlib.contextmanager
def claim_run(run: PlannedRun) -> Iterator[int]:
    """Lock the run, so that no other process prepares it or works on it.

    Yields:
        The lock's descriptor, for the worker.

    Raises:
        InUseError: Another process has locked it.
        UserError: The results folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with _writing(run.folder):
            run.folder.path.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(acquire_lock(run.folder, patience_s=0))
        yield lock


def prepare(run: PlannedRun, command: Sequence[str], threads: int | None = None) -> Todo:
    """Make the folder of a claimed run ready for a worker; what a resumed run needs stays as it is.

    Args:
        run, command: The run, and the command as typed.
        threads: Of each process; a resumed run keeps the number that it began with.

    Returns:
        What is left to do now: another command may have come first since the plan was made. The folder is
        ready only for `start` and `resume`.

    Raises:
        UserError: The results folder cannot be written.
    """
    folder = run.folder
    with _writing(folder):
        todo = _todo(folder, run.retry_failed, run.force)
        if todo not in ("start", "resume"):
            return todo
        record = _existing_or_new_record(run)
        if todo == "start" or not folder.recipe.exists():
            write_text(folder.recipe, recipes.dump(run.recipe))
        for stale in (folder.cancel, *folder.path.glob(".rank*.json")):
            stale.unlink(missing_ok=True)
        record.command = [hide_secrets(word) for word in command]
        record.dataset |= {
            "root": str(run.data.root),
            "problems": run.data.problems,
            "warning": run.data.warning_text,
        }
        record.launch = _adapt_launch(record.launch, run.launch.model_copy(update={"threads": threads}), todo)
        record.status = "queued"
        record.queue, record.slurm = identify_process(), None  # an earlier job has it no longer
        folder.write(record)
        return todo


def _writing(folder: RunFolder) -> contextlib.AbstractContextManager[None]:
    return refusing(f"the results folder {folder.path} cannot be written", "--results-dir DIR")


def _existing_or_new_record(run: PlannedRun) -> Record:
    """Return the run's record; a new one with `force`, for a new run, and if the old one is lost or broken."""
    folder = run.folder
    if run.force or not (folder.record_file.exists() or folder.last_checkpoint()):
        # Without `force` nothing is thrown away: a run that is queued may have a worker on its way.
        _clear(folder)
        return _new_record(run)
    try:
        return folder.read()
    except UserError:
        record = _new_record(run)
        lost = "is missing"
        if folder.record_file.exists():
            kept = name_for_damaged(folder.record_file)
            shutil.copyfile(folder.record_file, kept)
            lost = f"could not be read and is kept as {kept.name}"
        record.notes.append(
            f"{format_now()}: record.json {lost}: attempts and times before that are not listed"
        )
        return record


def _adapt_launch(before: Launch, launch: Launch, todo: Todo) -> Launch:
    """Return the launch less what ran out of memory before; a resumed run keeps its threads, for the same bits."""
    if before.reduced and before.micro_batch and launch.micro_batch:
        divisors = (n for n in range(launch.micro_batch, 0, -1) if launch.micro_batch % n == 0)
        images = next(n for n in divisors if n <= before.micro_batch)
        launch = launch.model_copy(update={"micro_batch": images, "reduced": True})
    if todo == "resume" and before.processes == launch.processes:
        launch = launch.model_copy(update={"threads": before.threads})
    return launch


def _clear(folder: RunFolder) -> None:
    """Remove what a run has left, but for the lock and the files that are about to be replaced."""
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in (folder.record_file, folder.recipe) and not path.name.startswith(folder.lock.name):
            path.unlink()


def _new_record(run: PlannedRun) -> Record:
    return Record(
        recipe=run.recipe.name,
        recipe_id=recipes.compute_recipe_id(run.recipe),
        config_hash=recipes.compute_config_hash(run.recipe, run.data.fingerprint),
        seed=run.seed,
        profile=run.recipe.profile,
        created=format_now(),
        dataset={
            "name": run.recipe.dataset.name,
            "format": run.recipe.dataset.format,
            "fingerprint": run.data.fingerprint,
            "images": run.data.images,
            "classes": list(run.data.classes),
        },
    )
