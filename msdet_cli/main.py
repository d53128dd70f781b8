"""The entry: runs one command, and is the one place where an error becomes an exit code."""

from __future__ import annotations

import contextlib
import os
import sys

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
    from experiments.common.errors import BAD_INPUT, UserError
    from experiments.runs.lookup import SeveralRunsError
    from experiments.runs.run_folder import RunFolder
    from msdet_cli.console.encoding import spell_out_unencodable

    spell_out_unencodable()
    from msdet_cli.app import app
    from msdet_cli.hints import complete_hint, correct_slip

    candidates: list[RunFolder] = []
    try:
        return app(standalone_mode=False) or 0
    except UserError as error:
        candidates = error.runs if isinstance(error, SeveralRunsError) else []
        message, hint, code = error.message, error.hint and complete_hint(error.hint), error.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # of Typer's, which has no public base class for them
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.ctx.get_help())
            return BAD_INPUT
        text = UserError(error.format_message()).message.rstrip(".")
        path = error.ctx.command_path if getattr(error, "ctx", None) else "msdet"
        message, hint, code = text[0].lower() + text[1:], f"{path} --help", BAD_INPUT
    print(f"error: {message}", file=sys.stderr)
    if candidates:
        from msdet_cli.console.run_list import print_candidates

        print_candidates(candidates)
    hint = correct_slip(message) or hint
    if hint:
        print(f"  try: {hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
