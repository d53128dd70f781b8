"""`msdet data download`: download, check and unpack the official archives of COCO and VOC."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from experiments.common.errors import BAD_INPUT, INTERRUPTED, UserError, did_you_mean
from experiments.data.find import resolve_root
from experiments.data.verify import verify
from experiments.recipes.catalogue import load_dataset
from msdet_cli.console.dataset_view import plain_console, print_findings

EXAMPLES = {"coco": "retinanet-r50-rlo", "voc": "retinanet-r50-voc-rlo"}  # data set: recipe
LINE_INTERVAL_S = 30  # between lines if the output is no terminal


def complete_official(incomplete: str) -> list[str]:
    """Return the names of data sets with archives, for shell completion."""
    from experiments.data.download.archives import ARCHIVES

    return [name for name in ARCHIVES if name.startswith(incomplete)]


def download(
    name: Annotated[
        str, typer.Argument(metavar="coco|voc", help="The data set.", autocompletion=complete_official)
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            "--data-root",
            metavar="DIR",
            help="Target folder (default data/coco or data/VOCdevkit).",
        ),
    ] = None,
    keep_archives: Annotated[
        bool,
        typer.Option("--keep-archives", help="Keep unpacked archives in DIR/archives."),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A folder on another server with the same files."),
    ] = None,
) -> None:
    """Download COCO 2017 (20 GB) or VOC 2007 and 2012 (3 GB).

    The archives are checked and unpacked. After Ctrl-C the same command resumes. Existing files are kept; an
    archive that is already in DIR/archives is checked and used.

    \b
    msdet data download voc
    msdet data download coco --root /data/coco
    """
    from experiments.data.download.archives import ARCHIVES
    from experiments.data.download.official_sets import FOLDER
    from experiments.data.download.official_sets import download as download_archives

    if name not in ARCHIVES:
        raise UserError(
            f"data set '{name}' has no official archives; {did_you_mean(name, ARCHIVES)}",
            "msdet data ls",
        )
    spec = load_dataset(name)
    place = resolve_root(spec, root)
    console = plain_console()
    try:
        with DownloadView() as view:
            outcomes = download_archives(ARCHIVES[name], place, view, mirror, keep_archives)
    except KeyboardInterrupt:
        print(f"stopped; downloaded parts are kept in {place / FOLDER}", file=sys.stderr)
        print(f"  try: {resume_command(name, root, keep_archives, mirror)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    for outcome in outcomes:
        result = f"checked ({outcome.checks}) and unpacked" if outcome.checks else "already unpacked"
        console.print(f"{outcome.name}: {result}", soft_wrap=True)
    _verify(spec, place, root, console)


def resume_command(name: str, root: Path | None, keep: bool, mirror: str | None) -> str:
    """Return the command that resumes the download."""
    words = ["msdet data download", name]
    words += ["--root", str(root)] if root is not None else []
    words += ["--keep-archives"] if keep else []
    words += ["--mirror", mirror] if mirror is not None else []
    return " ".join(words)


def _verify(spec: Any, place: Path, root: Path | None, console: Console) -> None:
    """Check that every annotated file exists; the archives' checksums cover the images."""
    found = verify(spec, place, read_images=False)
    if not found["usable"]:
        print_findings(found, console)
        raise typer.Exit(BAD_INPUT)
    counts = ", ".join(f"{content['images']} {split}" for split, content in found["splits"].items())
    data_root = f" --data-root {place}" if root is not None else ""
    console.print(f"{place}: {counts} images, none missing", soft_wrap=True)
    console.print(f"next: msdet run {EXAMPLES[spec.name]}{data_root}", soft_wrap=True)


class DownloadView:
    """A progress bar with speed and ETA on a terminal, lines from time to time elsewhere."""

    def __init__(self) -> None:
        self._console = plain_console(stderr=True)
        columns = (
            "{task.description}",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._now: tuple[str, str] | None = None
        self._task: Any = None
        self._next_line = 0.0

    def __enter__(self) -> DownloadView:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def at(self, phase: str, name: str, done: int, total: int | None) -> None:
        if (phase, name) != self._now:
            if self._task is not None:
                self._bars.remove_task(self._task)
            # `completed` is set first, so that bytes of an earlier command do not count as speed
            self._task = self._bars.add_task(f"{phase} {name}", total=total, completed=done)
            self._now, self._next_line = (phase, name), 0.0
        self._bars.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_INTERVAL_S
            share = f", {100 * done / total:.0f} %" if total else ""
            self.say(f"{phase} {name}: {done / 1e6:.0f} MB{share}")

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)
