"""Asks before something is deleted."""

from __future__ import annotations

import sys

import typer

from experiments.common.errors import FAILED, UserError
from msdet_cli.hints import repeat_command


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
