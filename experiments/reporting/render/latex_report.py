"""The document that holds all of a report's LaTeX tables, and what stands below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.reporting.render import text as report_text
from experiments.reporting.render.claims import Claim, count_verdicts, find_claims
from experiments.reporting.render.latex import (
    align_columns,
    fit_to_page,
    render_body,
    render_head,
    render_latex_table,
    view_tabular,
)
from experiments.reporting.render.latex_text import escape_tex
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.sections import Grid, Picture, Section, TableView, build_grid_view

MAX_ROWS_ON_A_PAGE = 35  # rows
_PREAMBLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage[landscape,margin=18mm]{geometry}
\usepackage{booktabs,longtable,graphicx}
\usepackage[hidelinks]{hyperref}
\setlength{\parindent}{0pt}\setlength{\parskip}{4pt}
\renewcommand{\labelitemi}{$\bullet$}  % without the fonts of TS1
\setlength{\emergencystretch}{3em}\raggedbottom
\extrafloats{500}  % tables that wait for their place at once
\makeatletter  % captions without a number: their text names the paper's
\long\def\@makecaption#1#2{\vskip\abovecaptionskip{\centering #2\par}\vskip\belowcaptionskip}
\makeatother
"""


def render_latex_report(
    report: Report,
    made: report_text.ReportMetadata,
    sections: Sequence[Section] = (),
    files: Mapping[str, str] | None = None,
) -> str:
    """Return a document that pdflatex compiles.

    Args:
        files: Where each table is read from, by the tables' `long_name`; without, the tables themselves are in it.
    """
    claims, standing = find_claims(report.tables), report_text.explain_no_results(report, made.folders)
    parts = [_PREAMBLE, r"\begin{document}", r"\section*{Published beside measured}"]
    parts += [escape_tex(report_text.describe_origin(report, made)), ""]
    if standing:
        parts += [escape_tex(standing), ""]
    else:
        parts += [
            r"\subsection*{What can be claimed}",
            escape_tex(count_verdicts(claims)),
            "",
            *_claims(claims),
        ]
    parts += [escape_tex(text) + "\n" for text in report.missing]
    parts += [escape_tex(f"Left out: {text}") + "\n" for text in report.problems]
    parts.append(r"\clearpage")
    for tables in (report.measured, [table for table in report.tables if not table.is_measured]):
        parts += [*(_read(table, files) for table in tables), r"\clearpage"]
    parts += [_section(section) for section in sections]
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def _read(table: MeasuredTable, files: Mapping[str, str] | None) -> str:
    return render_latex_table(table) if files is None else rf"\input{{{files[table.long_name]}}}"


def _claims(claims: Sequence[Claim]) -> list[str]:
    if not claims:
        return []
    items = [rf"\item \textbf{{{escape_tex(claim.verdict)}}}: {escape_tex(str(claim))}" for claim in claims]
    return [r"\begin{itemize}\setlength{\itemsep}{0pt}", *items, r"\end{itemize}"]


def _long(view: TableView, columns: str) -> str:
    """Return a table that continues over pages."""
    begin = rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}"
    lines = [r"{\small", begin, r"\toprule", render_head(view), r"\midrule\endhead", *render_body(view)]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}}"])


def _section(section: Section) -> str:
    parts = [
        rf"\section*{{{escape_tex(section.title)}}}",
        *[escape_tex(text) + "\n" for text in section.texts],
    ]
    return "\n".join([*parts, *map(_grid_section, section.grids), *_pictures(section.pictures)])


def _grid_section(grid: Grid) -> str:
    view = build_grid_view(grid)
    title = rf"\subsection*{{{escape_tex(grid.title)}}}" + "\n" if grid.title else ""
    if len(grid.rows) <= MAX_ROWS_ON_A_PAGE:
        return f"{title}{{\\centering\\small\n{fit_to_page(view_tabular(view, with_title=False))}\\par}}\\medskip"
    return title + _long(view, align_columns(view))


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    """Return pictures, two beside one another where they are no wider than a column."""
    parts, column = [], 0
    for picture in pictures:
        wide = report_text.is_wide(picture)
        parts.append(r"\hfill" if column == 1 and not wide else r"\par\bigskip\noindent")
        column = 0 if wide or column == 1 else 1
        file = f"figures/{report_text.make_file_name(picture.name)}.png"
        parts += [
            rf"\begin{{minipage}}[t]{{{'' if wide else '.48'}\linewidth}}\vspace{{0pt}}\centering",
            fit_to_page(rf"\includegraphics{{{file}}}"),
            rf"\par\smallskip{{\footnotesize\raggedright {escape_tex(picture.caption)}\par}}",
            r"\end{minipage}",
        ]
    return [*parts, r"\par"] if parts else []
