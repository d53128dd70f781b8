"""What `data verify` finds, as tables of boxes and a list of problems."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column, Table


def print_findings(found: dict[str, Any]) -> None:
    """Print what `verify` found."""
    # Names and paths are printed as they are, square brackets included.
    console = Console(highlight=False, markup=False, emoji=False)
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


def _overview(splits: dict[str, Any]) -> Table:
    table = _split_table("", splits)
    for key in ("images", "images_without_boxes", "boxes"):
        table.add_row(key.replace("_", " "), *(str(content[key]) for content in splits.values()))
    for size, bounds in (("small", "< 32²"), ("medium", "< 96²"), ("large", "")):
        cells = [_share(content["sizes"][size], content["boxes"]) for content in splits.values()]
        table.add_row(f"  {size} {bounds}".rstrip(), *cells)
    for key in ("crowd_boxes", "ignored_boxes", "difficult_boxes"):
        if any(content[key] for content in splits.values()):
            table.add_row(key.replace("_", " "), *(str(content[key]) for content in splits.values()))
    return table


def _by_class(splits: dict[str, Any]) -> Table:
    table = _split_table("boxes by class", splits)
    for name in splits["train"]["classes"]:
        counts = [content["classes"].get(name, 0) for content in splits.values()]
        table.add_row(f"  {name}", *(str(count) if count else "none" for count in counts))
    return table


def _split_table(title: str, splits: dict[str, Any]) -> Table:
    """Return an empty table with a column per split."""
    return Table(title, *(Column(split, justify="right") for split in splits), box=None, pad_edge=False)


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.0f} %)" if whole else str(part)
