"""`msdet data download`: the official archives of COCO and VOC, from the servers to a checked data set."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = {"coco": "retinanet-r50-rlo", "voc": "retinanet-r50-voc-rlo"}  # recipes that train on it
EVERY_S = 30  # between lines where nobody watches a bar


def complete_official(incomplete: str) -> list[str]:
    """Names of data sets with archives, for the shell."""
    from experiments.data.download.archives import ARCHIVES

    return [name for name in ARCHIVES if name.startswith(incomplete)]


def download(
    name: Annotated[
        str, typer.Argument(metavar="coco|voc", help="The data set.", autocompletion=complete_official)
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", "--data-root", metavar="DIR", help="Where to, in place of data/coco or data/VOCdevkit."
        ),
    ] = None,
    keep_archives: Annotated[
        bool,
        typer.Option("--keep-archives", help="Keep the archives in DIR/archives once they are unpacked."),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A folder on another server that holds the same files; checked the same way."
        ),
    ] = None,
) -> None:
    """Download COCO 2017 (20 GB) or VOC 2007 and 2012 (3 GB), check the archives, unpack them.

    Ctrl-C leaves what has arrived; the same command again goes on from there. What is there already is not touched,
    and an archive put into DIR/archives by hand is checked and used.

    \b
    msdet data download voc
    msdet data download coco --root /data/coco
    """
    from experiments.common.errors import INTERRUPTED, UserError, did_you_mean
    from experiments.data.download.archives import ARCHIVES
    from experiments.data.download.official_sets import FOLDER
    from experiments.data.download.official_sets import download as bring
    from experiments.data.find import resolve_root
    from experiments.recipes.catalogue import load_dataset
    from msdet_cli.commands.data import console_of

    if name not in ARCHIVES:
        raise UserError(
            f"data set '{name}' has no official archives here; {did_you_mean(name, ARCHIVES)}",
            "msdet data ls",
        )
    spec = load_dataset(name)
    place = resolve_root(spec, root)
    console = console_of()
    try:
        with Bars() as bars:
            outcomes = bring(ARCHIVES[name], place, bars, mirror, keep_archives)
    except KeyboardInterrupt:
        print(f"stopped; what has arrived is kept in {place / FOLDER}", file=sys.stderr)
        print(f"  try: {typed(name, root, keep_archives, mirror)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    for outcome in outcomes:
        done = (
            f"checked ({outcome.checks}) and unpacked" if outcome.checks else "its content was there already"
        )
        console.print(f"{outcome.name}: {done}", soft_wrap=True)
    _look_through(spec, place, root, console)


def typed(name: str, root: Path | None, keep: bool, mirror: str | None) -> str:
    """The command that goes on."""
    words = ["msdet data download", name]
    words += ["--root", str(root)] if root is not None else []
    words += ["--keep-archives"] if keep else []
    words += ["--mirror", mirror] if mirror is not None else []
    return " ".join(words)


def _look_through(spec: Any, place: Path, root: Path | None, console: Console) -> None:
    """Whether all that the annotations name is there; the archives' checksums have answered for the images."""
    from experiments.common.errors import BAD_INPUT
    from experiments.data.verify import verify
    from msdet_cli.commands.data import show_findings

    found = verify(spec, place, read_images=False)
    if not found["usable"]:
        show_findings(found, console)
        raise typer.Exit(BAD_INPUT)
    counts = ", ".join(f"{content['images']} {split}" for split, content in found["splits"].items())
    elsewhere = f" --data-root {place}" if root is not None else ""
    console.print(f"{place}: {counts} images; none is missing", soft_wrap=True)
    console.print(f"next: msdet run {EXAMPLES[spec.name]}{elsewhere}", soft_wrap=True)


class Bars:
    """A bar with speed and remaining time for the archive at work; where nobody watches, a line now and then."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        from msdet_cli.commands.data import console_of

        self._console = console_of(stderr=True)
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

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def at(self, phase: str, name: str, done: int, total: int | None) -> None:
        if (phase, name) != self._now:
            if self._task is not None:
                self._bars.remove_task(self._task)
            # `completed` from the start: bytes of an earlier command do not count into the speed
            self._task = self._bars.add_task(f"{phase} {name}", total=total, completed=done)
            self._now, self._next_line = (phase, name), 0.0
        self._bars.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + EVERY_S
            share = f", {100 * done / total:.0f} %" if total else ""
            self.say(f"{phase} {name}: {done / 1e6:.0f} MB{share}")

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)
