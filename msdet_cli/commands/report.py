"""`msdet report`: the paper's tables, published beside measured."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from experiments.common.errors import UserError, did_you_mean
from experiments.runs.lookup import results_dir
from msdet_cli import __version__
from msdet_cli.console.file_output import write_all
from msdet_cli.console.result_tables import (
    make_console,
    print_legend,
    print_marks,
    print_other,
    print_problems,
    print_table,
)
from msdet_cli.options import complete

if TYPE_CHECKING:
    from experiments.reporting import Report
    from experiments.reporting.render import ReportMetadata
    from experiments.reporting.tables.sections import Section

WRITTEN = ("md", "csv", "latex", "html")  # formats that can be files
FORMATS = ("console", *WRITTEN, "all")
DEFAULT_OUT = Path("report")  # of --format all
AN_EXAMPLE = "msdet report --format html --out report/"


def report(
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            help="table1 to table5, fig4, controls; default all.",
            autocompletion=complete("table"),
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="console, md, csv, latex, html, or all of these."),
    ] = "console",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write files there, figures too (all: default report/)."),
    ] = None,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Leave the figures out: quicker.")] = False,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results-dir",
            metavar="DIR",
            envvar="MSDET_RESULTS",
            help="Where run folders are kept. Repeatable: runs of several machines in one report.",
        ),
    ] = None,
) -> None:
    """Show the paper's tables, published beside measured.

    Runs belong to a row by what their recipe says, whatever it is called. Runs under a profile, or on
    another data set, get tables of their own: they do not compare with the published numbers. Without
    table names, runs that fit no table close the report, and tables without published numbers are left out
    while they have no run of their own. The files of --out and the page of html have figures, error analysis
    and bench below the tables.

    \b
    msdet report
    msdet report table1 table4
    msdet report controls                RLO beside its controls and rivals
    msdet report --format html --out report/          one page: report/report.html
    msdet report --format all --results-dir A --results-dir B
    """
    from experiments.reporting import build_report, collect
    from experiments.reporting.render import ReportFiles, ReportMetadata, no_results_message

    _check(form, out)
    out = DEFAULT_OUT if form == "all" and out is None else out
    folders = list(dict.fromkeys(results_dir(folder) for folder in results)) if results else [results_dir()]
    aside = Console(stderr=True)
    with aside.status("reading runs"), _without_garbage_collection():
        report = build_report(collect(folders), tables or ())
    made = ReportMetadata(datetime.now(timezone.utc), __version__, folders)
    if form == "console":
        _print(report, made)
        return
    sections: list[Section] = []
    if form != "csv" and (out is not None or form == "html"):
        sections = _sections(report, folders, not no_figures, aside)
    rendered = ReportFiles(report, made, sections)
    if out is None:
        print(rendered.text(form), end="")
    else:
        forms = WRITTEN if form == "all" else (form,)
        with aside.status("writing"):
            files = rendered.files(forms, out)
        write_all(files, out)
    if form == "csv" or out is not None:  # elsewhere it is part of the page
        print_problems(aside, report.problems)
        if sentence := no_results_message(report, folders):
            aside.print(Text(sentence), soft_wrap=True)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Switch the garbage collector off: among thousands of runs, all needed, it takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _check(form: str, out: Path | None) -> None:
    if form not in FORMATS:
        raise UserError(f"--format: '{form}' is unknown; {did_you_mean(form, FORMATS)}", AN_EXAMPLE)
    if out is not None and form == "console":
        raise UserError("--out: the console's tables are not written to files", AN_EXAMPLE)


def _sections(report: Report, folders: list[Path], with_figures: bool, aside: Console) -> list[Section]:
    """Return what stands below the tables; problems of reading it become the report's."""
    from dataclasses import replace

    from experiments.reporting import breakdown, figures
    from experiments.reporting.bench import results as bench

    with aside.status("reading benches"):
        benches, problems = bench.read(folders)
    report.problems.extend(problems)
    found: list[Section] = []
    if with_figures:
        with aside.status("drawing figures"):
            found += figures.sections(report, benches)
    found += breakdown.sections(report)  # says itself what it is at
    found += bench.sections(benches)
    return found if with_figures else [replace(section, pictures=()) for section in found]


def _print(report: Report, made: ReportMetadata) -> None:
    """Print the tables: contexts first while no published table has a measured value."""
    from experiments.reporting.render import no_results_message

    console = make_console()
    console.print()
    if any(table.folders for table in report.published):
        tables = report.tables
    else:
        tables = [*report.in_contexts, *report.variants, *report.published]
    for table in tables:
        print_table(console, table)
    if any(table.folders for table in tables):
        print_legend(console)
    if report.other:
        print_other(console, report.other)
    print_marks(console, [group.marks for group in report.groups])
    print_problems(console, report.problems)
    if sentence := no_results_message(report, made.folders):
        console.print(Text(sentence), soft_wrap=True)
    else:
        console.print(Text(f"With figures, error analysis and bench: {AN_EXAMPLE}", "dim"), soft_wrap=True)
