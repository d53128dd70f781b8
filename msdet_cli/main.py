"""The app: commands in groups, and the one place where an error becomes an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from experiments.common.errors import UserError
from msdet_cli import __version__
from msdet_cli.commands import (
    ablate,
    bench,
    cancel,
    cp,
    data,
    diff,
    doctor,
    errors,
    evaluate,
    export,
    imports,
    logs,
    ls,
    plot,
    predict,
    prior,
    report,
    reproduce,
    run,
    runs,
    show,
    validate,
)

GROUPS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Train": {
        "run": run.run,
        "ablate": ablate.ablate,
        "reproduce": reproduce.reproduce,
        "logs": logs.logs,
        "cancel": cancel.cancel,
    },
    "Compare": {
        "report": report.report,
        "errors": errors.errors,
        "diff": diff.diff,
        "plot": plot.plot,
        "bench": bench.bench,
    },
    "Inspect": {
        "runs": runs.runs,
        "eval": evaluate.evaluate,
        "predict": predict.predict,
        "import": imports.import_,
        "export": export.export,
    },
    "Data": {"data": data.app, "prior": prior.prior},
    "Set-up": {
        "ls": ls.ls,
        "show": show.show,
        "cp": cp.cp,
        "validate": validate.validate,
        "doctor": doctor.doctor,
    },
}


class GroupedCommands(TyperGroup):
    """The command line, whose help lists the commands in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section per group."""
        width = max(map(len, self.commands))
        for title, names in GROUPS.items():
            with formatter.section(title):
                rows = {
                    name: self.commands[name].get_short_help_str(formatter.width - 6 - width)
                    for name in names
                }
                formatter.write_dl([(name.ljust(width), text) for name, text in rows.items()])


app = typer.Typer(
    cls=GroupedCommands,
    name="msdet",
    help="Reproduce, extend and compare experiments on multi-scale loss weighting for object detectors.\n\n\b\n"
    "msdet run retinanet-r50-rlo -p tiny    train one recipe, minutes on a CPU, no download\n"
    "msdet ablate --alpha 5,50,100          vary it\n"
    "msdet report                           the paper's tables, published beside measured",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _group in GROUPS.values():
    for _name, _command in _group.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name)
        else:
            app.command(_name)(_command)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"msdet {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options before any command."""


def main() -> None:
    """Run one command; print a user's mistake as `error:` and `try:`, and exit with its code."""
    # Set before torch is loaded: waiting threads that spin slow a training wherever cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except UserError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  try: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
