"""How every command speaks: lines as they are, aligned rows, JSON, notes, and a question before it deletes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Sequence
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from experiments.common.errors import FAILED, UserError
from msdet_cli.hints import repeat_command

Cell = str | tuple[str, str]  # text, or text with its style
GAP = "  "  # between columns


def make_console(is_quiet: bool = False) -> Console:
    """Return standard output's console, 120 characters wide where the width is unknown; a quiet one prints nothing."""
    console = Console(quiet=is_quiet)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    return console


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line as it is, however long: without markup and without breaks."""
    console.print(Text(text, style), soft_wrap=True)


def print_lines(
    console: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    right: Collection[str] = (),
    optional: Sequence[str] = (),
    below: str = "",
) -> None:
    """Print a header and aligned rows, without empty columns; no cell is cut.

    Rich's tables take seconds for long lists.

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


def print_json(content: Any) -> None:
    """Print what `--json` asks for, in the one form of all commands."""
    print(json.dumps(content, indent=2, default=str))


def print_note(sentence: str) -> None:
    """Print what a person should know beside the result of a command."""
    print(f"note: {sentence}", file=sys.stderr)


def confirm(what: str, is_agreed: bool) -> None:
    """Return if the user agrees to what is deleted, by `--yes` or now; end the command if not.

    Raises:
        UserError: Standard input is no terminal, so nobody can be asked.
    """
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise UserError(
            f"{what}: standard input is no terminal, so --yes is required", repeat_command("--yes")
        )
    print(f"{what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing is deleted", file=sys.stderr)
        raise typer.Exit(FAILED)
