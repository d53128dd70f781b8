"""Runs by reference: the results folder, all runs below it, the one that a person names. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.common.errors import UserError, did_you_mean
from experiments.runs.run_folder import RunFolder


class SeveralRunsError(UserError):
    """A reference that fits more than one run where one is needed."""


def results_dir(option: Path | None = None) -> Path:
    """Return `--results-dir`, else `$MSDET_RESULTS`, else `./results`."""
    return Path(option or os.environ.get("MSDET_RESULTS") or "results")


def iterate(results: Path, unreadable: Callable[[OSError], object] | None = None) -> Iterator[RunFolder]:
    """Yield every run folder below a results folder, ordered by name.

    Args:
        results: The results folder; it need not exist.
        unreadable: Called with the error of each folder that cannot be listed.
    """
    report = unreadable or (lambda error: None)
    for recipe in _list_folder(Path(results) / "runs", report):
        for config in _list_folder(recipe, report):
            for run in _list_folder(config, report):
                if run.name.startswith("seed") and _exists(run / "record.json", report):
                    yield RunFolder(run)


def resolve(reference: str, results: Path) -> RunFolder:
    """Return the run that a reference means.

    Args:
        reference: A run folder, `<recipe>/<hash>/seed<k>`, or any unambiguous part of that.
        results: The results folder.

    Raises:
        SeveralRunsError: More than one run fits.
        UserError: No run fits.
    """
    for path in (Path(reference), Path(results) / "runs" / reference):
        if (path / "record.json").is_file():
            return RunFolder(path)
    runs = {run.name: run for run in iterate(results)}
    fitting = (
        [runs[reference]] if reference in runs else [run for n, run in runs.items() if fits(reference, n)]
    )
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        some = ", ".join(run.name for run in fitting[:3]) + (", ..." if len(fitting) > 3 else "")
        raise SeveralRunsError(f"run '{reference}' fits {len(fitting)} runs: {some}", "msdet runs")
    where = f"run '{reference}' not found in {Path(results).resolve()}"
    if not runs:
        raise UserError(f"{where}: it has no runs", "msdet run --help")
    raise UserError(f"{where}; {did_you_mean(reference, runs)}", "msdet runs")


def fits(reference: str, name: str) -> bool:
    """Whether `reference` is a run's name or consecutive whole parts of it."""
    return f"/{reference.strip('/')}/" in f"/{name}/"


def starting_weights(init_from: str, results: Path) -> Path:
    """Return the checkpoint that a recipe's `init_from` names: a file, or the last one of a run.

    Raises:
        UserError: There is none.
    """
    if Path(init_from).is_file():
        return Path(init_from)
    if init_from.endswith(".pth"):
        raise UserError(
            f"init_from: no such file: {Path(init_from).absolute()}", "name a checkpoint or a run: msdet runs"
        )
    try:
        run = resolve(init_from, results)
    except UserError as error:
        raise UserError(f"init_from: {error.message}", error.hint) from None
    checkpoint = run.last_checkpoint()
    if checkpoint is None:
        raise UserError(f"init_from: run {run.name} has no checkpoint yet", "msdet runs")
    return checkpoint


def _exists(file: Path, report: Callable[[OSError], object]) -> bool:
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        report(error)
        return False
    return True


def _list_folder(folder: Path, report: Callable[[OSError], object]) -> list[Path]:
    """Return the paths in a folder, ordered by name; none where there is no such folder."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        report(error)
        return []
