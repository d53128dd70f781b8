"""The entry: runs one command, and is the one place where an error becomes an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.common.errors import UserError

SIGINT_CODE = 130  # as shells report Ctrl-C


def main() -> None:
    """Run one command; print a user's mistake as `error:` and `try:`, and exit with its code."""
    # Set before torch is loaded: waiting threads that spin slow a training wherever cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = _run()  # with its imports, which take a second in which Ctrl-C may come
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = SIGINT_CODE
    except (BrokenPipeError, SystemExit) as error:
        # Typer and Rich leave with code 1 when the reader, such as `head`, has closed the pipe.
        is_pipe = isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError)
        if not is_pipe:
            raise
        code = 0
        with contextlib.suppress(OSError, ValueError):  # nothing is left to flush at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run() -> int:
    from experiments.runs.lookup import SeveralRunsError
    from msdet_cli.console.encoding import spell_out_unencodable

    spell_out_unencodable()
    from msdet_cli.app import app
    from msdet_cli.hints import complete_hint, correct_slip

    try:
        return app(prog_name="msdet", standalone_mode=False) or 0
    except Exception as error:
        mistake = _user_error(error)
        if mistake is None:
            raise
    print(f"error: {mistake.message}", file=sys.stderr)
    if isinstance(mistake, SeveralRunsError):
        from msdet_cli.console.run_list import print_candidates

        print_candidates(mistake.runs)
    hint = correct_slip(mistake.message) or (mistake.hint and complete_hint(mistake.hint))
    if hint:
        print(f"  try: {hint}", file=sys.stderr)
    return mistake.exit_code


def _user_error(error: Exception) -> UserError | None:
    """Return a user's mistake as such, also one that Typer or the file system has found; None for other errors."""
    from experiments.common.errors import UserError

    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UserError(f"{error.filename}: is longer than a path may be")
    if not hasattr(error, "format_message"):  # of Typer's own, which have no public base class
        return None
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.ctx.get_help())  # type: ignore[attr-defined]
        sys.exit(2)
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "msdet"
    return UserError(text[0].lower() + text[1:], f"{path} --help")


if __name__ == "__main__":
    main()
