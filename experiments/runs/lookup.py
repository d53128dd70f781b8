"""Runs by reference: the results folder, all runs below it, the one that a person names. No torch."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from experiments.common.errors import UserError, did_you_mean
from experiments.common.printable import printable
from experiments.runs.run_folder import RunFolder

DEFAULT_RESULTS = Path("results")
RESULTS_CONTENT = ("runs", "queues", "ablations", "slurm")  # folders of a results folder, made when needed
MAX_NAMES = 3  # that the message of an ambiguous reference lists


class SeveralRunsError(UserError):
    """A reference that fits several `runs` where one is needed."""

    def __init__(self, reference: str, runs: list[RunFolder], hint: str = "msdet runs") -> None:
        names = ", ".join(run.name for run in runs[:MAX_NAMES]) + (", ..." if len(runs) > MAX_NAMES else "")
        super().__init__(f"run '{reference}' fits {len(runs)} runs: {names}", hint)
        self.runs = runs


def find_results_dir(option: Path | None = None) -> Path:
    """Return `--results-dir`, else `$MSDET_RESULTS`, else `./results`."""
    return Path(option or os.environ.get("MSDET_RESULTS") or DEFAULT_RESULTS)


def find_existing_results_dir(option: Path | None = None) -> Path:
    """Return the same, for a command that only reads.

    Raises:
        UserError: It is no results folder. `./results` need not exist: there are no runs yet.
    """
    folder = find_results_dir(option)
    if folder == DEFAULT_RESULTS and (folder.is_dir() or not folder.exists()):
        return folder
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"results folder {folder} {what}", "msdet runs --results-dir DIR")
    has_any = any((folder / name).is_dir() for name in RESULTS_CONTENT)
    if not has_any and _list_folder(str(folder), lambda error: None):
        above = folder.resolve().parent if folder.name == "runs" else "DIR"
        raise UserError(
            f"{folder} is no results folder: it has no folder `runs`", f"msdet runs --results-dir {above}"
        )
    return folder


def iterate(results: Path, report: Callable[[OSError], object] = lambda error: None) -> Iterator[RunFolder]:
    """Yield every run folder below a results folder, which need not exist, ordered by name.

    Args:
        report: Called with the error of each folder that cannot be listed, or whose name would reach terminals.
    """
    for recipe in _list_folder(str(Path(results) / "runs"), report):
        for config in _list_folder(recipe, report):
            for run in _list_folder(config, report):
                is_run = os.path.basename(run).startswith("seed")  # noqa: PTH119
                if not is_run or not _exists(f"{run}/record.json", report):
                    continue
                found = RunFolder(run)
                if found.name == "/".join(found.path.parts[-3:]):
                    yield found
                else:
                    report(OSError(errno.EINVAL, "its name holds control characters", printable(run)))


def resolve(reference: str, results: Path) -> RunFolder:
    """Return the run that a reference means.

    A reference is a run folder, `<recipe>/<hash>/seed<k>`, or any unambiguous part of that.

    Raises:
        SeveralRunsError: More than one run fits.
        UserError: No run fits.
    """
    fitting = find_runs(reference, results)
    if len(fitting) > 1:
        raise SeveralRunsError(reference, fitting)
    return fitting[0]


def find_runs(reference: str, results: Path) -> list[RunFolder]:
    """Return every run that a reference fits; raise UserError where none does.

    Args:
        reference: A run folder, the folder of a config or recipe, or consecutive whole parts of a run's name.
        results: The results folder.
    """
    for path in (Path(reference), Path(results) / "runs" / reference):
        for depth in ("", "seed*/", "*/seed*/"):  # a run, a config, a recipe
            if found := sorted(path.glob(f"{depth}record.json")):
                return [RunFolder(record.parent) for record in found]
    runs = list(iterate(results))
    if fitting := [run for run in runs if f"/{reference.strip('/')}/" in f"/{run.name}/"]:
        return fitting
    where = f"run '{reference}' not found in {Path(results).resolve()}"
    if not runs:
        raise UserError(f"{where}: it has no runs", "msdet run --help")
    raise UserError(f"{where}; {did_you_mean(reference, [run.name for run in runs])}", "msdet runs")


def select(references: Sequence[str], results: Path, has_all: bool) -> list[RunFolder]:
    """Return the runs that a command names, each once.

    Args:
        has_all: Whether `--all` is given: all runs, or all that a reference fits.

    Raises:
        UserError: None is named, no run fits one, or several do without `--all`.
    """
    if not references and not has_all:
        raise UserError("name a RUN, or use --all", "msdet runs")
    found = [] if references else list(iterate(results))
    for reference in references:
        fitting = find_runs(reference, results)
        if len(fitting) > 1 and not has_all:
            hint = "give more of the name, or take all that match with --all"
            raise SeveralRunsError(reference, fitting, hint)
        found += fitting
    return list({run.path.resolve(): run for run in found}.values())


def find_starting_weights(init_from: str, results: Path) -> Path:
    """Return the checkpoint that a recipe's `init_from` names: a file, or the last one of a run; else UserError."""
    if Path(init_from).is_file():
        return Path(init_from)
    if init_from.endswith(".pth"):
        raise UserError(
            f"init_from: no such file: {Path(init_from).absolute()}", "name a checkpoint or a run: msdet runs"
        )
    try:
        return resolve(init_from, results).newest_checkpoint()
    except UserError as error:
        raise UserError(f"init_from: {error.message}", error.hint) from None


def _exists(file: str, report: Callable[[OSError], object]) -> bool:
    try:
        os.stat(file)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        report(error)
        return False
    return True


def _list_folder(folder: str, report: Callable[[OSError], object]) -> list[str]:
    """Return the paths in a folder, ordered by name; none where there is no such folder. Plain text, for speed."""
    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(folder))]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        report(error)
        return []
