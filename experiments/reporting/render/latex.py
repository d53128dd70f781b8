"""A report as LaTeX: a file per table, to be \\input into a paper, and one document of them all."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from experiments.reporting.render import text as report_text
from experiments.reporting.render.claims import count_verdicts, find_claims
from experiments.reporting.tables import row_evidence
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.report_views import build_controls_view, build_measured_view
from experiments.reporting.tables.sections import EMPTY, Cell, Column, Grid, Picture, Section, TableView

PACKAGES = "booktabs and graphicx"
MAX_ROWS = 60  # of a table; more cannot be read on a page
MAX_ROWS_ON_A_PAGE = 35  # of a grid below the tables; a longer one continues over pages
MAX_NOTES_BELOW = 8  # notes on rows that stand right below a table
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
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\ensuremath{\mathdollar}", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "'": "{'}", "`": "{`}",
    "[": "{[}", "]": "{]}",  # at the start of a row, `[` would be an option of the `\\` before it
    "-": "{-}",  # no ligatures: `--seeds` must stay as it is typed
    "±": r"\ensuremath{\pm}", "×": r"\ensuremath{\times}", "·": r"\ensuremath{\cdot}", "−": r"\ensuremath{-}",
    "≤": r"\ensuremath{\le}", "≥": r"\ensuremath{\ge}", "≈": r"\ensuremath{\approx}", "≠": r"\ensuremath{\neq}",
    "→": r"\ensuremath{\to}", "←": r"\ensuremath{\leftarrow}", "√": r"\ensuremath{\surd}", "∞": r"\ensuremath{\infty}",
    "†": r"\ensuremath{\dagger}", "‡": r"\ensuremath{\ddagger}", "§": r"\S{}", "¶": r"\P{}",
    "°": r"\ensuremath{^\circ}",
    "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\dots{}", "•": r"\ensuremath{\bullet}",
    "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "µ": r"\ensuremath{\mu}", "÷": r"\ensuremath{\div}",
}  # fmt: skip
_GREEK = {  # LaTeX has no names for what looks like a Latin letter
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho",
    "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma",
    "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi",
    "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip


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
    parts += [] if standing else [r"\subsection*{What can be claimed}"]
    parts += [escape_tex(standing or count_verdicts(claims)), ""]
    items = [rf"\item \textbf{{{escape_tex(claim.verdict)}}}: {escape_tex(str(claim))}" for claim in claims]
    parts += [r"\begin{itemize}\setlength{\itemsep}{0pt}", *items, r"\end{itemize}"] if items else []
    parts += [escape_tex(text) + "\n" for text in report.missing]
    parts += [escape_tex(f"Left out: {text}") + "\n" for text in report.problems]
    parts.append(r"\clearpage")
    for tables in (report.measured, [table for table in report.tables if not table.is_measured]):
        for table in tables:
            parts.append(rf"\input{{{files[table.long_name]}}}" if files else render_latex_table(table))
        parts.append(r"\clearpage")
    parts += map(_section, sections)
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def render_latex_table(table: MeasuredTable) -> str:
    """Return floats: published beside measured beside their differences, with run folders as comments.

    As in the paper where nothing was measured. With runs the first metric comes first; many notes on the rows (seeds,
    power) and their controls have a float of their own. What is wider than the line, shrinks.
    """
    left_out, table = len(table.rows) - MAX_ROWS, table.shorten(MAX_ROWS)
    notes = [f"{left_out} more rows: msdet report --format csv"] if left_out > 0 else []
    notes += [*table.notes, *(report_text.list_reading_notes(table.groups) if table.is_measured else [])]
    view, controls = build_measured_view(table).without("runs"), build_controls_view(table)
    below = [f"{name}: {text}." for name, text in row_evidence.list_row_notes(table)]
    further = [_small(below)] if below else []
    if controls is not None:
        further.append(_fit_to_page(_tabular(controls.without("runs"), is_below=True)))
    elif len(below) <= MAX_NOTES_BELOW:
        notes, further = [*below, *notes], []
    caption, name = _caption(table), report_text.make_file_name(table.long_name)
    floats = [_float(caption, name, [_fit_to_page(_tabular(view)), _small(notes)])]
    floats += [_float(f"{caption}: behind the rows", f"{name}-rows", further)] if further else []
    commands = [f"  {command}" for command in row_evidence.list_control_commands(table)]
    if commands:
        floats += map(make_comment, ["For the controls that are missing:", *commands])
    return "\n".join([make_comment(f"Needs the packages {PACKAGES}."), *floats]) + "\n"


def _caption(table: MeasuredTable) -> str:
    """Return the title reworded to stand without a number, because LaTeX numbers tables itself."""
    name, _, rest = table.title.partition(": ")
    if rest:
        return f"{rest} ({name} of the paper)" if table.has_published else f"{rest} ({name})"
    return f"Rows of the paper's {table.title}" if table.has_published else table.title


def _float(caption: str, label: str, parts: Sequence[str]) -> str:
    head = [
        r"\begin{table*}[htbp]",
        r"\centering\small\renewcommand{\arraystretch}{1.15}",
        rf"\caption{{{escape_tex(caption)}.}}",
        rf"\label{{tab:{label}}}",
    ]
    return "\n".join([*head, "\n\\par\\smallskip\n".join(part for part in parts if part), r"\end{table*}"])


def _small(notes: Sequence[str]) -> str:
    text = "\\par\n".join(escape_tex(note) for note in notes)
    return rf"\parbox{{\linewidth}}{{\scriptsize\raggedright {text}}}" if text else ""


def _tabular(view: TableView, environment: str = "tabular", is_below: bool = False) -> str:
    """Return a table as `tabular`, or as `longtable` that continues over pages.

    Args:
        is_below: Whether it stands below another table: with its title, without run folders as comments on its rows.
    """
    columns = "".join("r" if column.is_number else "l" for column in view.columns)
    lines = [rf"\begin{{{environment}}}{{@{{}}{columns}@{{}}}}", r"\toprule"]
    lines += [rf"{_spanning(view, view.title)} \\"] if is_below else []
    lines += [*_groups(view.columns), _row(escape_tex(column.title) for column in view.columns)]
    lines.append(r"\midrule\endhead" if environment == "longtable" else r"\midrule")
    for title, rows in view.blocks:
        lines += [rf"\addlinespace{_spanning(view, title)} \\"] if title else []
        for row in rows:
            lines += [] if is_below else [make_comment(str(run)) for run in row.get("runs", EMPTY).runs]
            lines.append(_row(_cell(cell, column) for cell, column in zip(view.cells(row), view.columns)))
    return "\n".join([*lines, r"\bottomrule", rf"\end{{{environment}}}"])


def _spanning(view: TableView, title: str) -> str:
    return rf"\multicolumn{{{len(view.columns)}}}{{@{{}}l}}{{\emph{{{escape_tex(title)}}}}}"


def _groups(columns: Sequence[Column]) -> list[str]:
    """Return the line of headings above several columns, and the rules below them."""
    spans: list[str] = []
    rules, place = "", 1
    for group, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        spans += [rf"\multicolumn{{{width}}}{{c}}{{{escape_tex(group)}}}"] if group else [""] * width
        rules += rf"\cmidrule(lr){{{place}-{place + width - 1}}}" if group else ""
        place += width
    return [_row(spans), rules] if rules else []


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell, column: Column) -> str:
    text = ", ".join(filter(None, (_ranked(cell.brief or cell.text, cell.rank), escape_tex(cell.note))))
    if cell.below is None or not cell.below.text:
        return text
    below, side = _ranked(cell.below.text, cell.below.rank), "r" if column.is_number else "l"
    return rf"\shortstack[{side}]{{{text}\\\scriptsize {below}}}"


def _ranked(text: str, rank: int) -> str:
    form = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(rank, "%s")
    return form % escape_tex(text) if text else ""


def _fit_to_page(content: str) -> str:
    """Return it as large as it is, or shrunk to the width of the line and to a page's height."""
    lines = [
        f"\\sbox0{{%\n{content}}}%",
        r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
        r"\ifdim\dimexpr\ht0+\dp0\relax>.8\textheight\sbox0{\resizebox*{!}{.8\textheight}{\usebox0}}\fi",
        r"\usebox0",
    ]
    return "\n".join(lines)


def _section(section: Section) -> str:
    title, texts = escape_tex(section.title), [escape_tex(text) + "\n" for text in section.texts]
    grids, pictures = map(_grid_section, section.grids), _pictures(section.pictures)
    return "\n".join([rf"\section*{{{title}}}", *texts, *grids, *pictures])


def _grid_section(grid: Grid) -> str:
    title = rf"\subsection*{{{escape_tex(grid.title)}}}" + "\n" if grid.title else ""
    if len(grid.rows) > MAX_ROWS_ON_A_PAGE:
        return f"{title}{{\\small\n{_tabular(grid.view, 'longtable')}}}"
    return f"{title}{{\\centering\\small\n{_fit_to_page(_tabular(grid.view))}\\par}}\\medskip"


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    """Return pictures, two beside one another where they are no wider than a column."""
    parts, column = [], 0
    for picture in pictures:
        parts.append(r"\hfill" if column == 1 and not picture.is_wide else r"\par\bigskip\noindent")
        column = 0 if picture.is_wide or column == 1 else 1
        file = f"figures/{report_text.make_file_name(picture.name)}.png"
        parts += [
            rf"\begin{{minipage}}[t]{{{'' if picture.is_wide else '.48'}\linewidth}}\vspace{{0pt}}\centering",
            _fit_to_page(rf"\includegraphics{{{file}}}"),
            rf"\par\smallskip{{\footnotesize\raggedright {escape_tex(picture.caption)}\par}}",
            r"\end{minipage}",
        ]
    return [*parts, r"\par"] if parts else []


def escape_tex(text: str) -> str:
    """Return one line of LaTeX; a character that the fonts lack becomes its code point, `U+4E2D`."""
    return "".join(_character(character) for character in report_text.minus(" ".join(text.split())))


def make_comment(text: str) -> str:
    """Return a comment of one line, whatever the text holds."""
    return "% " + " ".join(text.split()).encode("ascii", "backslashreplace").decode()


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _GREEK:
        return rf"\ensuremath{{\{_GREEK[character]}}}"
    is_plain = " " <= character <= "~" or _is_accented(character)
    return character if is_plain else f"U+{ord(character):04X}"


def _is_accented(character: str) -> bool:
    """Return whether it is a Latin-1 letter with an accent, or another that every font has."""
    is_decomposed = len(unicodedata.normalize("NFD", character)) == 2
    return (is_decomposed and "À" <= character <= "ÿ") or character in "ßæøÆØ"
