"""The command line: all commands by name, and the one place where an error becomes an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

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

app = typer.Typer(
    name="msdet",
    help="Experiments on multi-scale loss weighting for object detectors: recipes in, honest tables out.\n\n\b\n"
    "msdet run retinanet-r50-rlo -p tiny    train one recipe, minutes on a CPU, no download\n"
    "msdet ablate --alpha 5,50,100          vary it\n"
    "msdet report                           the paper's tables, published beside measured",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("ablate")(ablate.ablate)
app.command("reproduce")(reproduce.reproduce)
app.command("report")(report.report)
app.command("runs")(runs.runs)
app.command("logs")(logs.logs)
app.command("cancel")(cancel.cancel)
app.command("diff")(diff.diff)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("plot")(plot.plot)
app.command("errors")(errors.errors)
app.command("import")(imports.import_)
app.command("export")(export.export)
app.command("ls")(ls.ls)
app.command("show")(show.show)
app.command("cp")(cp.cp)
app.command("validate")(validate.validate)
app.command("prior")(prior.prior)
app.add_typer(data.app, name="data")
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)


def _print_version(asked: bool) -> None:
    if asked:
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
    """Runs one command; a user's mistake is one line, a second line says what to type next."""
    # Before torch is loaded, here or in a worker: threads that spin while they wait make a training several
    # times slower wherever something else runs beside it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except UserError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  try: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
