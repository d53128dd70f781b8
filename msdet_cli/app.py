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
        "rm": rm.rm,
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
                sections["Arguments"].append((_name(param), getattr(param, "help", None) or ""))
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
        for title, names in GROUPS.items():
            with formatter.section(title):
                rows = [
                    (name.ljust(width), (self.commands[name].help or "").partition("\n")[0]) for name in names
                ]
                formatter.write_dl(rows)


app = typer.Typer(
    cls=Group,
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
    for _title, _command in _group.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_title)
            for _info in _command.registered_commands:
                _info.cls = Command
        else:
            app.command(_title, cls=Command)(_command)


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
