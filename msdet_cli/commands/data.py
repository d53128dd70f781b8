"""`msdet data`: list, check, make and download data sets."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from experiments.common.errors import BAD_INPUT, INTERRUPTED, UserError, did_you_mean
from experiments.common.files import display_path
from experiments.data.find import find_dataset, resolve_root
from experiments.data.find import make as make_dataset
from experiments.data.verify import verify as verify_dataset
from experiments.recipes.catalogue import list_pages, load_dataset
from msdet_cli.completion import complete, complete_words
from msdet_cli.console.dataset_view import print_findings
from msdet_cli.console.output import print_json, print_line, print_lines
from msdet_cli.options import DataRootOpt, JsonOpt, argument, option

app = typer.Typer(no_args_is_help=True, help="List, check, make or download data sets.")
EXAMPLES = {"coco": "retinanet-r50-rlo", "voc": "retinanet-r50-voc-rlo"}  # data set: recipe
LINE_INTERVAL_S = 30  # between lines if the output is no terminal


@app.command("ls")
def ls(as_json: JsonOpt = False) -> None:
    """List data sets: format, folder, images, state.

    \b
    msdet data ls
    msdet data ls --json
    """
    rows = [_state(str(path)) for path in list_pages("dataset").values()]
    if as_json:
        print_json(rows)
        return
    lines = []
    for row in rows:
        counts = " + ".join(str(count) for count in (row["images"] or {}).values())
        folder = display_path(Path(row["root"])) if row["root"] else ""
        lines.append([row["name"], row["format"], folder, counts, row["state"]])
    console = Console()
    print_lines(console, ["data set", "format", "folder", "images", "state"], lines)
    console.print(Text("to check one: msdet data verify NAME", "dim"))


@app.command("verify")
def verify(
    name: Annotated[str, argument("NAME|FILE", "A data set or its YAML file.", complete("dataset"))],
    data_root: DataRootOpt = None,
    no_images: Annotated[bool, option("--no-images", "Do not read the images.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Check a data set: images, boxes, classes.

    Counts boxes by size and class; finds missing and unreadable images, empty boxes and boxes outside. The exit
    code is 2 if the data set cannot be used.

    \b
    msdet data verify coco --data-root /data/coco
    msdet data verify my-data.yaml --no-images
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading annotations", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, description="reading images", completed=done, total=total)

        found = verify_dataset(load_dataset(name), data_root, not no_images, report)
    if as_json:
        print_json(found)
    else:
        print_findings(found)
    if not found["usable"]:
        raise typer.Exit(BAD_INPUT)


@app.command("make")
def make(
    name: Annotated[str, argument("NAME|FILE", "A built-in data set.", complete("dataset"))] = "shapes",
    data_root: DataRootOpt = None,
    force: Annotated[bool, option("--force", "Replace the existing one.")] = False,
) -> None:
    """Make the built-in data set; a run that needs it makes it, too.

    \b
    msdet data make shapes
    msdet data make shapes --data-root my-shapes --force
    """
    spec = load_dataset(name)
    if spec.generate is None:
        raise UserError(
            f"data set '{spec.name}' is not built in, so it cannot be made", "msdet data make shapes"
        )
    if force:
        make_dataset(spec, resolve_root(spec, data_root), force=True)
    found = find_dataset(spec, data_root)
    counts = ", ".join(f"{count} {split}" for split, count in found.images.items())
    print_line(Console(), f"{found.root}: {counts} images, {len(found.classes)} classes")


@app.command("download")
def download(
    name: Annotated[str, argument("coco|voc", "The data set.", complete_words(EXAMPLES))],
    root: Annotated[
        Path | None, option("--root --data-root DIR", "Target folder (default data/coco or data/VOCdevkit).")
    ] = None,
    keep_archives: Annotated[
        bool, option("--keep-archives", "Keep unpacked archives in DIR/archives.")
    ] = False,
    mirror: Annotated[
        str | None, option("--mirror URL", "A folder on another server with the same files.")
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
            f"data set '{name}' has no official archives; {did_you_mean(name, ARCHIVES)}", "msdet data ls"
        )
    spec = load_dataset(name)
    place = resolve_root(spec, root)
    console = Console()
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
        print_line(console, f"{archive.name}: {result}")
    found = verify_dataset(spec, place, read_images=False)  # the archives' checksums cover the images
    if not found["usable"]:
        print_findings(found)
        raise typer.Exit(BAD_INPUT)
    counts = ", ".join(f"{content['images']} {split}" for split, content in found["splits"].items())
    print_line(console, f"{place}: {counts} images, none missing")
    data_root = f" --data-root {place}" if root is not None else ""
    print_line(console, f"next: msdet run {EXAMPLES[name]}{data_root}")


def _state(ref: str) -> dict[str, Any]:
    """Return a row of `ls`; an error of one data set is its state."""
    row: dict[str, Any] = {"name": Path(ref).stem, "format": "", "root": "", "found": False, "images": None}
    try:
        spec = load_dataset(ref)
        row.update(name=spec.name, format=spec.format, root=str(resolve_root(spec)))
        if not Path(row["root"]).is_dir():
            return {**row, "state": "made when needed" if spec.generate is not None else "not found"}
        row["images"] = find_dataset(spec, generate=False).images
    except UserError as error:
        return {**row, "state": error.message}
    return {**row, "found": True, "state": "found"}


class DownloadView(Progress):
    """A progress bar with speed and ETA on a terminal, lines from time to time elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
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
        print_line(self.console, line)
