"""A report as LaTeX: a file per table, to be \\input into a paper, and one document of them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from experiments.marks import joined, legend
from experiments.reporting.render import words
from experiments.reporting.render.latex_text import comment, tex
from experiments.reporting.sections import Grid, Picture, Section
from experiments.reporting.statistics import signed
from experiments.reporting.tables import LEGEND, Line, MeasuredTable, OtherRuns, Report

PACKAGES = "booktabs and graphicx"
MOST_ON_A_PAGE = 35  # rows
MOST_FLOATS = 6  # that wait for their place at once
MOST_BELOW = 8  # notes on rows that stand right below a table
_PREAMBLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage[landscape,margin=18mm]{geometry}
\usepackage{booktabs,longtable,graphicx}
\usepackage[hidelinks]{hyperref}
\setlength{\parindent}{0pt}\setlength{\parskip}{4pt}
\renewcommand{\labelitemi}{$\bullet$}  % without the fonts of TS1
\setlength{\emergencystretch}{3em}\raggedbottom
\makeatletter  % captions without a number: their text names the paper's
\long\def\@makecaption#1#2{\vskip\abovecaptionskip{\centering #2\par}\vskip\belowcaptionskip}
\makeatother
"""


def latex_table(table: MeasuredTable) -> str:
    """Floats: published beside measured beside their differences, with run folders as comments.

    As in the paper where nothing was measured. With runs the first metric comes first; other metrics, and what stands
    behind the rows (seeds, power, controls), have floats of their own. What is wider than the line, shrinks.
    """
    own, measured = table.has_published and table.context is None, any(line.group for line in table.lines)
    tabulars = _parts(table) if own and measured else [_as_printed(table)] if own else [_in_context(table)]
    notes = list(table.notes)
    if measured:
        marks = legend(joined([line.group.marks for line in table.lines if line.group]))
        notes += [f"{LEGEND} {words.RANKS}", *marks]
    behind = _behind(table)
    rows = [f"{name}: {text}." for name, text in words.row_notes(table)]
    if len(rows) <= MOST_BELOW and words.control_grid(table) is None:
        notes, behind = [*rows, *notes], []
    caption, name = _caption(table), words.file_name(words.long_name(table))
    floats = [_float(caption, name, [_fitted(tabulars[0]), _small(notes)])]
    floats += [_float(f"{caption}: the other metrics", f"{name}-more", [_fitted(t)]) for t in tabulars[1:]]
    floats += [_float(f"{caption}: behind the rows", f"{name}-rows", behind)] if behind else []
    commands = words.control_commands(table)
    if commands:
        floats += [
            comment("For the controls that are missing:"),
            *[comment(f"  {text}") for text in commands],
        ]
    return "\n".join([comment(f"Needs the packages {PACKAGES}."), *floats]) + "\n"


def latex_report(
    report: Report,
    made: words.Made,
    sections: Sequence[Section] = (),
    files: Mapping[str, str] | None = None,
) -> str:
    """A document that pdflatex compiles.

    Args:
        files: Where each table is read from, by `words.long_name`; without, the tables themselves are in it.
    """
    measured = [table for table in report.tables if any(line.group for line in table.lines)]
    published = [table for table in report.tables if table not in measured]
    found, standing = words.claims(report.tables), words.standing(report, made.folders)
    parts = [_PREAMBLE, r"\begin{document}", r"\section*{Published beside measured}"]
    parts += [tex(words.made_line(report, made)), ""]
    if standing:
        parts += [tex(standing), ""]
    else:
        parts += [r"\subsection*{What can be claimed}", tex(words.balance(found)), "", *_claims(found)]
    parts += [tex(f"Left out: {text}") + "\n" for text in report.problems]
    parts.append(r"\clearpage")
    parts += _measured_tables(measured, files)
    parts += [*(_read(table, files) for table in published), r"\clearpage"]
    parts += [_other(report.other), r"\clearpage"] if report.other else []
    parts += [_section(section) for section in sections]
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def _measured_tables(tables: Sequence[MeasuredTable], files: Mapping[str, str] | None) -> list[str]:
    """With page breaks before LaTeX has more floats to place than it can."""
    parts, waiting = [], 0
    for table in tables:
        floats = latex_table(table).count(r"\begin{table*}")
        if waiting and waiting + floats > MOST_FLOATS:
            parts.append(r"\clearpage")
            waiting = 0
        parts.append(_read(table, files))
        waiting += floats
    return [*parts, r"\clearpage"]


def _read(table: MeasuredTable, files: Mapping[str, str] | None) -> str:
    return latex_table(table) if files is None else rf"\input{{{files[words.long_name(table)]}}}"


def _claims(found: Sequence[words.Claim]) -> list[str]:
    if not found:
        return []
    items = [rf"\item \textbf{{{tex(claim.difference.verdict)}}}: {tex(str(claim))}" for claim in found]
    return [r"\begin{itemize}\setlength{\itemsep}{0pt}", *items, r"\end{itemize}"]


def _as_printed(table: MeasuredTable) -> str:
    """Nothing measured: the paper's columns."""
    names = [f"{tex(name)}" for name in table.columns]
    head = ["Method", "Backbone", *names, tex(f"Δ {table.columns[0]}"), ""]
    rows: list[list[str] | str] = []
    for title, lines in table.blocks:
        rows.append(_block(title, len(head)))
        for line in lines:
            cells = [tex(words.label(line)), tex(line.row.backbone or ""), *_published(line, table)]
            rows.append([*cells, tex(words.published_change(line)), tex(line.remark)])
    return _tabular("ll" + "r" * len(names) + "rl", [_row(head)], rows)


def _parts(table: MeasuredTable) -> list[str]:
    """The main metric, published beside measured; then the other metrics."""
    main, *others = table.columns
    above = rf"\multicolumn{{3}}{{c}}{{{tex(main)}}} & \multicolumn{{2}}{{c}}{{{tex('Δ ' + main)}}}"
    spans = rf" & & {above} & \\"
    rule = r"\cmidrule(lr){3-5}\cmidrule(lr){6-7}"
    beside = ["published", "measured", "measured $-$ published", "published", r"measured [95\,\%]"]
    head = ["Method", "Backbone", *beside, ""]
    first: list[list[str] | str] = []
    for title, lines in table.blocks:
        first.append(_block(title, len(head)))
        for line in lines:
            published = _published(line, table)[0] if words.is_first(line, table) else ""
            shown = tex(words.published_change(line)) if published else ""
            gap = "" if line.gap is None else tex(signed(line.gap))
            cells = [tex(words.label(line)), tex(line.row.backbone or ""), published, _measured(line, main)]
            first += [*_sources(line), [*cells, gap, shown, *_change(line)]]
    made = [_tabular("llrrrrrl", [spans, rule, _row(head)], first)]
    if others and any(line.group and line.group.metrics for line in table.lines):
        made.append(_other_metrics(table, others))
    return made


def _other_metrics(table: MeasuredTable, others: Sequence[str]) -> str:
    n = len(others)
    spans = rf" & & \multicolumn{{{n}}}{{c}}{{published}} & \multicolumn{{{n}}}{{c}}{{measured}} \\"
    rule = rf"\cmidrule(lr){{3-{2 + n}}}\cmidrule(lr){{{3 + n}-{2 + 2 * n}}}"
    head = ["Method", "Backbone", *[tex(name) for name in others] * 2]
    rows: list[list[str] | str] = []
    for title, lines in table.blocks:
        rows.append(_block(title, len(head)))
        for line in lines:
            published = _published(line, table)[1:] if words.is_first(line, table) else [""] * n
            cells = [tex(words.label(line)), tex(line.row.backbone or ""), *published]
            rows.append(
                [
                    *cells,
                    *[_ranked(words.value(line, name, n=False), line.ranks.get(name, 0)) for name in others],
                ]
            )
    return _tabular("ll" + "r" * 2 * n, [spans, rule, _row(head)], rows)


def _in_context(table: MeasuredTable) -> str:
    main, *others = table.columns
    head = ["Row", "Recipe", tex(main), tex(f"Δ {main} [95 %]"), "", *[tex(name) for name in others]]
    rows: list[list[str] | str] = []
    for title, lines in table.blocks:
        rows.append(_block(title, len(head)))
        for line in lines:
            more = [_ranked(words.value(line, name, n=False), line.ranks.get(name, 0)) for name in others]
            cells = [tex(words.label(line)), tex(line.row.recipe or ""), _measured(line, main)]
            rows += [*_sources(line), [*cells, *_change(line), *more]]
    return _tabular("llrrl" + "r" * len(others), [_row(head)], rows)


def _published(line: Line, table: MeasuredTable) -> list[str]:
    values: Sequence[float | None] = line.row.published or [None] * len(table.columns)
    return [
        "" if value is None else _ranked(f"{value:.1f}", line.published_ranks.get(name, 0))
        for name, value in zip(table.columns, values)
    ]


def _measured(line: Line, metric: str) -> str:
    found = _ranked(words.value(line, metric), line.ranks.get(metric, 0))
    return ", ".join(text for text in (found, tex(words.absence(line))) if text)


def _change(line: Line) -> list[str]:
    if line.difference is None:
        return ["", ""]
    brief = words.controls_in_brief(line)
    return [tex(str(line.difference)), tex(line.difference.verdict + (f"; {brief}" if brief else ""))]


def _ranked(text: str, rank: int) -> str:
    form = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(rank, "%s")
    return form % tex(text) if text else ""


def _caption(table: MeasuredTable) -> str:
    """The title in words that stand a number before them: LaTeX counts tables in its own way."""
    name, _, rest = table.title.partition(": ")
    if rest:
        return f"{rest} ({name} of the paper)" if table.has_published else f"{rest} ({name})"
    return f"Rows of the paper's {table.title}" if table.has_published else table.title


def _float(caption: str, label: str, parts: Sequence[str]) -> str:
    head = [
        r"\begin{table*}[htbp]",
        r"\centering\small\renewcommand{\arraystretch}{1.15}",
        rf"\caption{{{tex(caption)}.}}",
        rf"\label{{tab:{label}}}",
    ]
    return "\n".join([*head, "\n\\par\\smallskip\n".join(part for part in parts if part), r"\end{table*}"])


def _small(notes: Sequence[str]) -> str:
    text = "\\par\n".join(tex(note) for note in notes)
    return rf"\parbox{{\linewidth}}{{\scriptsize\raggedright {text}}}" if text else ""


def _behind(table: MeasuredTable) -> list[str]:
    controls = words.control_grid(table)
    notes = [f"{name}: {text}." for name, text in words.row_notes(table)]
    return [text for text in (_small(notes), _fitted(_plain(controls)) if controls else "") if text]


def _sources(line: Line) -> list[str]:
    """The run folders of the row below, as comments."""
    return [comment(str(folder)) for folder in line.group.folders] if line.group else []


def _block(title: str, width: int) -> str:
    return rf"\addlinespace\multicolumn{{{width}}}{{@{{}}l}}{{\emph{{{tex(title)}}}}} \\" if title else ""


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tabular(columns: str, head: Sequence[str], rows: Sequence[list[str] | str]) -> str:
    """Rows are cells, or a line as it stands."""
    body = [row if isinstance(row, str) else _row(row) for row in rows]
    lines = [
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        *head,
        r"\midrule",
        *body,
        r"\bottomrule",
    ]
    return "\n".join([*(line for line in lines if line), r"\end{tabular}"])


def _fitted(tabular: str) -> str:
    """As large as it is, or shrunk to the width of the line and to a page's height."""
    return "\n".join(
        [
            f"\\sbox0{{%\n{tabular}}}%",
            r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
            r"\ifdim\dimexpr\ht0+\dp0\relax>.8\textheight\sbox0{\resizebox*{!}{.8\textheight}{\usebox0}}\fi",
            r"\usebox0",
        ]
    )


def _plain(grid: Grid) -> str:
    title = (
        [rf"\multicolumn{{{len(grid.header)}}}{{@{{}}l}}{{\emph{{{tex(grid.title)}}}}} \\"]
        if grid.title
        else []
    )
    columns = "l" * grid.texts + "r" * (len(grid.header) - grid.texts)
    rows: list[list[str] | str] = [[tex(cell) for cell in row] for row in grid.rows]
    return _tabular(columns, [*title, _row([tex(name) for name in grid.header])], rows)


def _other(other: Sequence[OtherRuns]) -> str:
    rows: list[list[str] | str] = []
    for runs in other:
        rows += [comment(str(folder)) for folder in runs.group.folders]
        found = [
            f"{name} {spread}{runs.group.marks}" for name, spread in list(runs.group.metrics.items())[:1]
        ]
        cells = [runs.of(column) for column in ("recipe", "profile", "dataset", "config_hash")]
        rows.append([tex(cell) for cell in [*cells, "".join(found) or runs.group.counts(), runs.differs]])
    head = [_row(["Recipe", "Profile", "Data set", "Config", "", "Differs from the recipe"])]
    wide = r"l" * 5 + r"p{.3\linewidth}"
    return rf"\subsection*{{{tex(words.OTHER_TITLE)}}}" + "\n" + _long(wide, head, rows)


def _long(columns: str, head: Sequence[str], rows: Sequence[list[str] | str]) -> str:
    """A table that goes on over pages."""
    body = [row if isinstance(row, str) else _row(row) for row in rows]
    begin = [
        r"{\small",
        rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        *head,
        r"\midrule\endhead",
    ]
    return "\n".join([*begin, *body, r"\bottomrule", r"\end{longtable}}"])


def _section(section: Section) -> str:
    parts = [rf"\section*{{{tex(section.title)}}}", *[tex(text) + "\n" for text in section.texts]]
    return "\n".join([*parts, *map(_grid_section, section.grids), *_pictures(section.pictures)])


def _grid_section(grid: Grid) -> str:
    title = rf"\subsection*{{{tex(grid.title)}}}" + "\n" if grid.title else ""
    if len(grid.rows) <= MOST_ON_A_PAGE:
        return f"{title}{{\\centering\\small\n{_fitted(_plain(replace(grid, title='')))}\\par}}\\medskip"
    columns = "l" * grid.texts + "r" * (len(grid.header) - grid.texts)
    rows: list[list[str] | str] = [[tex(cell) for cell in row] for row in grid.rows]
    return title + _long(columns, [_row([tex(name) for name in grid.header])], rows)


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    """Two beside one another where they are no wider than a column."""
    parts, column = [], 0
    for picture in pictures:
        wide = words.is_wide(picture)
        parts.append(r"\hfill" if column == 1 and not wide else r"\par\bigskip\noindent")
        column = 0 if wide or column == 1 else 1
        file = f"figures/{words.file_name(picture.name)}.png"
        parts += [
            rf"\begin{{minipage}}[t]{{{'' if wide else '.48'}\linewidth}}\vspace{{0pt}}\centering",
            _fitted(rf"\includegraphics{{{file}}}"),
            rf"\par\smallskip{{\footnotesize\raggedright {tex(picture.caption)}\par}}",
            r"\end{minipage}",
        ]
    return [*parts, r"\par"] if parts else []
