"""`msdet data`: list, check, make and download data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from experiments.common.errors import BAD_INPUT, UserError
from experiments.common.files import display_path
from experiments.data.find import find_dataset, resolve_root
from experiments.data.find import make as make_dataset
from experiments.data.verify import verify as verify_dataset
from experiments.recipes.catalogue import list_pages, load_dataset
from msdet_cli.commands import download
from msdet_cli.completion import complete
from msdet_cli.console.dataset_view import make_plain_console, print_findings
from msdet_cli.console.text_lines import print_lines
from msdet_cli.options import DataRootOpt, JsonOpt

app = typer.Typer(no_args_is_help=True, help="List, check, make or download data sets.")
app.command("download")(download.download)

NameArg = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE", help="A data set or its YAML file.", autocompletion=complete("dataset")
    ),
]


@app.command("ls")
def ls(as_json: JsonOpt = False) -> None:
    """List data sets: format, folder, images, state.

    \b
    msdet data ls
    msdet data ls --json
    """
    rows = [_state(str(path)) for path in list_pages("dataset").values()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    lines = []
    for row in rows:
        counts = " + ".join(str(count) for count in (row["images"] or {}).values())
        folder = display_path(Path(row["root"])) if row["root"] else ""
        lines.append([row["name"], row["format"], folder, counts, row["state"]])
    console = make_plain_console()
    print_lines(console, ["data set", "format", "folder", "images", "state"], lines)
    console.print("to check one: msdet data verify NAME", style="dim")


@app.command("verify")
def verify(
    name: NameArg,
    data_root: DataRootOpt = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="Do not read the images.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Check a data set: images, boxes, classes.

    Counts boxes by size and class; finds missing and unreadable images, empty boxes and boxes outside. The exit
    code is 2 if the data set cannot be used.

    \b
    msdet data verify coco --data-root /data/coco
    msdet data verify my-data.yaml --no-images
    """
    console = make_plain_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading annotations", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, description="reading images", completed=done, total=total)

        found = verify_dataset(load_dataset(name), data_root, not no_images, report)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_findings(found, make_plain_console())
    if not found["usable"]:
        raise typer.Exit(BAD_INPUT)


@app.command("make")
def make(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE", help="A built-in data set.", autocompletion=complete("dataset")),
    ] = "shapes",
    data_root: DataRootOpt = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the existing one.")] = False,
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
    make_plain_console().print(f"{found.root}: {counts} images, {len(found.classes)} classes", soft_wrap=True)


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
