"""`msdet data`: list, check, make and download data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msdet_cli.commands import download
from msdet_cli.options import DataRootOpt, JsonOpt, complete

if TYPE_CHECKING:
    from rich.console import Console

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
    from experiments.recipes.catalogue import names

    rows = [_state(str(path)) for path in names("dataset").values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    table = Table("data set", "format", "folder", "images", "state", box=None, pad_edge=False)
    for row in rows:
        images = row["images"] or {}
        counts = " + ".join(str(count) for count in images.values())
        table.add_row(row["name"], row["format"], row["root"], counts, row["state"])
    console = plain_console()
    console.print(table)
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
    from rich.progress import Progress

    from experiments.common.errors import BAD_INPUT
    from experiments.data.verify import verify as verify_dataset
    from experiments.recipes.catalogue import load_dataset

    console = plain_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading annotations", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, description="reading images", completed=done, total=total)

        found = verify_dataset(load_dataset(name), data_root, not no_images, report)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_findings(found, plain_console())
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
    from experiments.common.errors import UserError
    from experiments.data.find import find_dataset, resolve_root
    from experiments.data.find import make as make_dataset
    from experiments.recipes.catalogue import load_dataset

    spec = load_dataset(name)
    if spec.generate is None:
        raise UserError(
            f"data set '{spec.name}' is not built in, so it cannot be made",
            "msdet data make shapes",
        )
    if force:
        make_dataset(spec, resolve_root(spec, data_root), force=True)
    found = find_dataset(spec, data_root)
    counts = ", ".join(f"{count} {split}" for split, count in found.images.items())
    plain_console().print(f"{found.root}: {counts} images, {len(found.classes)} classes", soft_wrap=True)


def _state(ref: str) -> dict[str, Any]:
    """Return a row of `ls`; an error of one data set is its state."""
    from experiments.common.errors import UserError
    from experiments.data.find import find_dataset, resolve_root
    from experiments.recipes.catalogue import load_dataset

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


def print_findings(found: dict[str, Any], console: Console) -> None:
    """Print what `verify` found."""
    splits = found["splits"]
    console.print(f"{found['name']} ({found['format'].upper()} format) in {found['root']}", soft_wrap=True)
    console.print(_overview(splits))
    console.print()
    console.print(_by_class(splits))
    for split, content in splits.items():
        if content["other_classes"]:
            others = ", ".join(f"{name} ({count})" for name, count in content["other_classes"].items())
            console.print(f"{split}: ignored, not classes of the data set: {others}")
        for kind, problem in content["problems"].items():
            style = "yellow" if problem["changes_numbers"] else "dim"
            style = "bold red" if problem["prevents_training"] else style
            console.print(f"\n{split}: {kind}: {problem['count']}", style=style)
            for example in problem["examples"]:
                console.print(f"  {example}", soft_wrap=True)
            if problem["count"] > len(problem["examples"]):
                console.print(f"  and {problem['count'] - len(problem['examples'])} more")
    if not found["usable"]:
        console.print("\nthis data set cannot be used: fix the errors shown in red", style="bold red")


def _overview(splits: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("", *splits, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for key in ("images", "images_without_boxes", "boxes"):
        table.add_row(key.replace("_", " "), *(str(content[key]) for content in splits.values()))
    for size, bounds in (("small", "< 32²"), ("medium", "< 96²"), ("large", "")):
        cells = [_share(content["sizes"][size], content["boxes"]) for content in splits.values()]
        table.add_row(f"  {size} {bounds}".rstrip(), *cells)
    for key in ("crowd_boxes", "ignored_boxes", "difficult_boxes"):
        if any(content[key] for content in splits.values()):
            table.add_row(key.replace("_", " "), *(str(content[key]) for content in splits.values()))
    return table


def _by_class(splits: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("boxes by class", *splits, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in splits["train"]["classes"]:
        counts = [content["classes"].get(name, 0) for content in splits.values()]
        table.add_row(f"  {name}", *(str(count) if count else "none" for count in counts))
    return table


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.0f} %)" if whole else str(part)


def plain_console(stderr: bool = False) -> Console:
    """Return a console that prints names and paths as they are, square brackets included."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)
