"""`msdet data download`: download, check and unpack the official archives of COCO and VOC."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from experiments.common.errors import BAD_INPUT, INTERRUPTED, UserError, did_you_mean
from experiments.data.find import resolve_root
from experiments.data.verify import verify
from experiments.recipes.catalogue import load_dataset
from msdet_cli.console.dataset_view import make_plain_console, print_findings

EXAMPLES = {"coco": "retinanet-r50-rlo", "voc": "retinanet-r50-voc-rlo"}  # data set: recipe
LINE_INTERVAL_S = 30  # between lines if the output is no terminal


def complete_official(incomplete: str) -> list[str]:
    """Return the names of data sets with archives, for shell completion."""
    return [name for name in EXAMPLES if name.startswith(incomplete)]


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
    console = make_plain_console()
    try:
        with DownloadView() as view:
            checks = download_archives(ARCHIVES[name], place, view, mirror, keep_archives)
    except KeyboardInterrupt:
        words = ["msdet", "data", "download", name, *(["--root", str(root)] if root is not None else [])]
        words += ["--keep-archives"] * keep_archives + (["--mirror", mirror] if mirror is not None else [])
        print(f"stopped; downloaded parts are kept in {place / FOLDER}", file=sys.stderr)
        print(f"  try: {shlex.join(words)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    for archive, how in zip(ARCHIVES[name], checks):
        result = f"checked ({how}) and unpacked" if how else "already unpacked"
        console.print(f"{archive.name}: {result}", soft_wrap=True)
    found = verify(spec, place, read_images=False)  # the archives' checksums cover the images
    if not found["usable"]:
        print_findings(found, console)
        raise typer.Exit(BAD_INPUT)
    counts = ", ".join(f"{content['images']} {split}" for split, content in found["splits"].items())
    console.print(f"{place}: {counts} images, none missing", soft_wrap=True)
    data_root = f" --data-root {place}" if root is not None else ""
    console.print(f"next: msdet run {EXAMPLES[name]}{data_root}", soft_wrap=True)


class DownloadView(Progress):
    """A progress bar with speed and ETA on a terminal, lines from time to time elsewhere."""

    def __init__(self) -> None:
        console = make_plain_console(stderr=True)
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        super().__init__("{task.description}", *columns, console=console, disable=not console.is_terminal)
        self._next_line = 0.0

    def at(self, phase: str, name: str, done: int, total: int | None) -> None:
        description = f"{phase} {name}"
        if not self.tasks or self.tasks[0].description != description:
            for task in self.task_ids:
                self.remove_task(task)
            # `completed` is set first, so that bytes of an earlier command do not count as speed
            self.add_task(description, total=total, completed=done)
            self._next_line = 0.0
        self.update(self.task_ids[0], completed=done, total=total)
        if not self.console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_INTERVAL_S
            share = f", {100 * done / total:.0f} %" if total else ""
            self.say(f"{description}: {done / 1e6:.0f} MB{share}")

    def say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)
