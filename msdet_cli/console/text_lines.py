"""Rows as aligned lines of text, for long lists: Rich's tables take seconds there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

Cell = str | tuple[str, str]  # text, or text with its style
GAP = "  "


def print_lines(
    console: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    right: Collection[str] = (),
    optional: Sequence[str] = (),
    below: str = "",
) -> None:
    """Print a header and aligned rows, without empty columns; no cell is cut.

    Args:
        right: Names of the right-aligned columns.
        optional: Names of columns to leave out where rows are wider than the console, in this order.
        below: One of those, whose cells then get a line of their own, so that nothing of it is lost.
    """
    parts = [[(cell, "") if isinstance(cell, str) else cell for cell in row] for row in rows]
    kept = [i for i in range(len(header)) if not rows or any(row[i][0] for row in parts)]
    lines = [[(name, "bold") for name in header], *parts]
    widths = {i: max(cell_len(line[i][0]) for line in lines) for i in kept}
    for name in optional:
        if sum(widths[i] + len(GAP) for i in kept) - len(GAP) > console.width:
            kept = [i for i in kept if header[i] != name]
    text = Text()
    lines_below = [header.index(below)] if below and header.index(below) not in kept else []
    for line in lines:
        for i in kept:
            plain, style = line[i]
            space = " " * (widths[i] - cell_len(plain))
            text.append(space if header[i] in right else "")
            text.append(plain, style or None)
            if i != kept[-1]:
                text.append(GAP if header[i] in right else space + GAP)
        text.append("\n")
        for i in lines_below:
            if line is not lines[0] and (plain := line[i][0]):
                text.append(f"{GAP}{plain[: console.width - len(GAP)]}\n")
    console.print(text, soft_wrap=True, end="")
