"""Asks before something is deleted."""

from __future__ import annotations

import sys

import typer

from experiments.common.errors import FAILED, UserError
from msdet_cli.hints import repeat_command


def confirm(question: str, is_agreed: bool) -> None:
    """Return if the user agrees, by `--yes` or now; end the command if not.

    Raises:
        UserError: Standard input is no terminal, so nobody can be asked.
    """
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise UserError(
            f"{question}: nobody can be asked, standard input is no terminal", repeat_command("--yes")
        )
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print("nothing is deleted", file=sys.stderr)
        raise typer.Exit(FAILED)
