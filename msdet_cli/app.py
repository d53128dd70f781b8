"""The app: commands in groups, and help that is read at 80 columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from msdet_cli import __version__
from msdet_cli.commands import (
    ablate,
    bench,
    cancel,
    compare,
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
    rm,
    run,
    runs,
    show,
    validate,
)

GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Train": (run.run, ablate.ablate, compare.compare, reproduce.reproduce, logs.logs, cancel.cancel),
    "Compare": (report.report, errors.errors, diff.diff, plot.plot, bench.bench),
    "Inspect": (runs.runs, evaluate.evaluate, predict.predict, imports.import_, export.export, rm.rm),
    "Data": (prior.prior,),
    "Set-up": (ls.ls, show.show, cp.cp, validate.validate, doctor.doctor),
}
NAMES = {"evaluate": "eval", "import_": "import"}  # of commands that Python has words for


class Command(TyperCommand):
    """A command whose help has options in the groups that `rich_help_panel` names.

    Typer prints panels only with Rich, whose boxes leave examples too few of 80 columns.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return `[OPTIONS] RECIPE...`, an optional argument in brackets."""
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *(_name(a) if a.required else f"[{_name(a)}]" for a in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then a section per group of options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":
                default = f"  [default: {param.default}]" if isinstance(param.default, str) else ""
                sections["Arguments"].append((_name(param), (getattr(param, "help", "") or "") + default))
            elif record := param.get_help_record(ctx):
                sections.setdefault(getattr(param, "rich_help_panel", None) or "Options", []).append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _name(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip("[].")
    return f"{name}..." if argument.nargs == -1 else name


class Group(TyperGroup):
    """The command line, whose help lists the commands in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section per group."""
        width = max(map(len, self.commands))
        for title in GROUPS:
            named = {n: c for n, c in self.commands.items() if getattr(c, "rich_help_panel", None) == title}
            rows = [(n.ljust(width), (c.help or "").partition("\n")[0]) for n, c in named.items()]
            with formatter.section(title):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=Group,
    name="msdet",
    help="Reproduce, extend and compare experiments on multi-scale loss weighting for object detectors.\n\n\b\n"
    "msdet run retinanet-r50-rlo -p tiny  train a recipe, minutes on a CPU\n"
    "msdet ablate --alpha 5,50,100        vary it\n"
    "msdet report                         the tables, published beside measured",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _title, _commands in GROUPS.items():
    for _command in _commands:
        app.command(NAMES.get(_command.__name__), cls=Command, rich_help_panel=_title)(_command)
app.add_typer(data.app, name="data", rich_help_panel="Data")
for _info in data.app.registered_commands:
    _info.cls = Command


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
