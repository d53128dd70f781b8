"""`msdet report`: what can be said of the runs, then the tables, published beside measured."""

from __future__ import annotations

import dataclasses
import gc
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from experiments.common.errors import UserError
from experiments.runs.lookup import find_existing_results_dir
from msdet_cli import __version__
from msdet_cli.completion import complete_tables, complete_words
from msdet_cli.console.file_output import write_all
from msdet_cli.console.output import make_console, print_json, print_line
from msdet_cli.console.result_tables import print_claims, print_empty, print_problems, print_tables
from msdet_cli.options import DatasetsOpt, JsonOpt, ProfilesOpt, RecipesOpt, argument, check_choice, option

if TYPE_CHECKING:
    from experiments.reporting import Report
    from experiments.reporting.render import ReportMetadata
    from experiments.reporting.tables.sections import Section

WRITTEN = ("md", "csv", "latex", "html")  # formats that can be files
FORMATS = ("console", *WRITTEN, "all")
AN_EXAMPLE = "msdet report --format html --out report/"


def report(
    tables: Annotated[
        list[str] | None,
        argument(
            "TABLE",
            "table1 to table5, fig4, controls, an ablation, or a file; default: what has runs.",
            complete_tables,
        ),
    ] = None,
    recipes: RecipesOpt = None,
    profiles: ProfilesOpt = None,
    datasets: DatasetsOpt = None,
    against: Annotated[
        str | None, option("--against ROW", "What Δ is to: a row's id or label, `recipe` or `baseline`.")
    ] = None,
    form: Annotated[
        str,
        option("--format FORMAT", "console, md, csv, latex, html, or all of these.", complete_words(FORMATS)),
    ] = "console",
    as_json: JsonOpt = False,
    out: Annotated[
        Path | None, option("--out DIR", "Write files there, figures too (all: default report/).")
    ] = None,
    no_figures: Annotated[bool, option("--no-figures", "Leave the figures out: quicker.")] = False,
    results: Annotated[
        list[Path] | None,
        option(
            "--results-dir DIR",
            "Where run folders are kept. Repeatable: runs of several machines in one report.",
            envvar="MSDET_RESULTS",
        ),
    ] = None,
) -> None:
    """Say what the runs show, then print the tables.

    Runs belong to a row by what their recipe says, whatever it is called. Runs under a profile, or on
    another data set, get tables of their own: they do not compare with the published numbers. Without
    table names, tables without runs are one line, and runs that fit no table close the report. The files
    of --out and the page of html have figures, error analysis and bench below the tables.

    \b
    msdet report
    msdet report table1 table4                        whole, even without runs
    msdet report controls                             RLO beside its controls and rivals
    msdet report --recipe retinanet-r50-rlo --profile tiny
    msdet report --format html --out report/          one page: report/report.html
    msdet report --json                               the same for programs
    """
    from experiments.reporting import build_report, collect
    from experiments.reporting.render import ReportFiles, ReportMetadata, explain_no_results, report_content

    check_choice("--format", form, FORMATS)
    if out is not None and (form == "console" or as_json):
        what = "JSON is" if as_json else "the console's tables are"
        raise UserError(f"--out: {what} not written to files", AN_EXAMPLE)
    out = Path("report") if form == "all" and out is None else out
    folders = list(dict.fromkeys(map(find_existing_results_dir, results or ()))) or [
        find_existing_results_dir()
    ]
    aside = Console(stderr=True)
    gc.set_threshold(100_000)  # among thousands of runs, all needed, collections take a tenth of the time
    with aside.status("reading runs"):
        collected = collect(folders).select(profile=profiles, dataset=datasets)
        report = build_report(collected, tables or (), recipes or (), against)
    made = ReportMetadata(datetime.now(timezone.utc), __version__, folders)
    if as_json:
        print_json(report_content(report))
        return
    if form == "console":
        _print(report, made, is_whole=bool(tables))
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
        _print_warnings(aside, report)
        if sentence := explain_no_results(report, folders):
            print_line(aside, sentence)


def _sections(report: Report, folders: list[Path], with_figures: bool, aside: Console) -> list[Section]:
    """Return what stands below the tables; problems of reading it become the report's."""
    from experiments.reporting import breakdown, figures
    from experiments.reporting.bench import results as bench

    with aside.status("reading benches"):
        benches, problems = bench.read(folders)
    report.problems.extend(problems)
    found: list[Section] = []
    if with_figures:
        with aside.status("drawing figures"):
            found += figures.build_figure_sections(report, benches)
    found += breakdown.build_breakdown_sections(report)  # says itself what it is at
    found += bench.build_bench_sections(benches)
    return found if with_figures else [dataclasses.replace(section, pictures=()) for section in found]


def _print(report: Report, made: ReportMetadata, is_whole: bool) -> None:
    """Print what can be said, then the tables that have runs, or all that were asked for."""
    from experiments.reporting.render import explain_no_results

    console = make_console()
    sentence = explain_no_results(report, made.folders)
    if not sentence:
        print_claims(console, report.tables)
    unmeasured = [table for table in report.tables if not table.is_measured]
    print_tables(console, [*report.measured, *(unmeasured if is_whole else ())])
    if not is_whole:
        empty = [name for name, forms in report.by_name.items() if not any(t.is_measured for t in forms)]
        print_empty(console, empty)
    _print_warnings(console, report)
    last = sentence or f"With figures, error analysis and bench: {AN_EXAMPLE}"
    print_line(console, last, "" if sentence else "dim")


def _print_warnings(console: Console, report: Report) -> None:
    for text in report.missing:
        print_line(console, text, "yellow")
    print_problems(console, report.problems)
