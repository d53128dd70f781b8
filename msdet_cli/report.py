"""`msdet report`: the paper's tables, published beside measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from experiments.errors import UserError, did_you_mean
from experiments.files import write_text
from experiments.runs import results_dir
from msdet_cli.options import RESULTS, ResultsOpt, complete
from msdet_cli.tables import print_legend, print_marks, print_other, print_problems, print_table, wide_console

if TYPE_CHECKING:
    from experiments.reporting import Report

FORMATS = ("console", "md", "csv")


def report(
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            help="table1 to table5, fig4, controls; default all.",
            autocompletion=complete("table"),
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="console, md or csv.")] = "console",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write a file per table there (md and csv).")
    ] = None,
    results: ResultsOpt = RESULTS,
) -> None:
    """The paper's tables: every row as published, and beside it what was measured here.

    Runs belong to a row by what their recipe says, whatever it is called. Runs under a profile, or on
    another data set, get tables of their own: they do not compare with the published numbers. Without
    table names, runs that fit no table close the report, and tables without published numbers are left out
    while they have no run of their own.

    \b
    msdet report
    msdet report table1 table4
    msdet report controls                RLO beside its controls and rivals
    msdet report --format md --out report/
    """
    from experiments.reporting import build_report, collect

    if form not in FORMATS:
        raise UserError(
            f"--format: '{form}' is unknown; {did_you_mean(form, FORMATS)}", "msdet report --format md"
        )
    if out is not None and form == "console":
        raise UserError(
            "--out: the console's tables are not written to files", "msdet report --format md --out DIR"
        )
    folder = results_dir(results)
    made = build_report(collect(folder), tables or ())
    if form == "console":
        _print(made, folder)
    elif out is None:
        print(_whole(made, form, folder), end="")
    else:
        _write(made, form, out)
    if form == "csv" or out is not None:  # elsewhere it is part of the page
        aside = Console(stderr=True)
        print_problems(aside, made.problems)
        if not made.has_runs:
            aside.print(Text(_no_runs(folder)), soft_wrap=True)


def _print(made: Report, folder: Path) -> None:
    """Contexts first while nothing measured stands in the published tables, else each below its own."""
    console = wide_console()
    console.print()
    if any(table.folders for table in made.published):
        tables = [table for forms in made.by_name.values() for table in forms]
    else:
        tables = [*made.in_contexts, *made.published]
    for table in tables:
        print_table(console, table)
    if any(table.folders for table in tables):
        print_legend(console)
    if made.other:
        print_other(console, made.other)
    groups = [line.group for table in tables for line in table.lines if line.group]
    print_marks(console, [group.marks for group in [*groups, *(runs.group for runs in made.other)]])
    print_problems(console, made.problems)
    if not made.has_runs:
        console.print(Text(_no_runs(folder)), soft_wrap=True)


def _no_runs(folder: Path) -> str:
    return f"There are no runs in {folder} yet. For a first one: msdet run retinanet-r50-rlo -p tiny"


def _whole(made: Report, form: str, folder: Path) -> str:
    """The report as one text; its links start from the working directory."""
    from experiments.reporting import render

    tables = [table for forms in made.by_name.values() for table in forms]
    if form == "csv":
        return render.csv_text(tables, made.other)
    parts = [render.markdown(table, Path.cwd()) for table in tables]
    parts += [render.markdown_other(made.other, Path.cwd())] if made.other else []
    parts += [] if made.has_runs else [render.escaped(_no_runs(folder)) + "\n"]
    parts += (
        ["".join(f"- {render.escaped(f'Left out: {text}')}\n" for text in made.problems)]
        if made.problems
        else []
    )
    return "\n".join(parts)


def _write(made: Report, form: str, out: Path) -> None:
    """One file per table, its own contexts with it; what fits none in `other-runs`."""
    from experiments.reporting import render

    texts = {}
    for name, forms in made.by_name.items():
        stem = render.file_name(name)
        texts[stem] = (
            "\n".join(render.markdown(t, out) for t in forms) if form == "md" else render.csv_text(forms)
        )
    if made.other:
        other = render.markdown_other(made.other, out) if form == "md" else render.csv_text([], made.other)
        texts["other-runs"] = other
    console = Console()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stem, text in texts.items():
            write_text(out / f"{stem}.{form}", text)
            console.print(Text(str(out / f"{stem}.{form}")), soft_wrap=True)
    except OSError as error:
        raise UserError(
            f"--out: {out} cannot be written: {error.strerror or error}", "name another folder"
        ) from None
