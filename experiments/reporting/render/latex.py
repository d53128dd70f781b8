"""A report as LaTeX: a file per table, to be \\input into a paper, and one document of them all."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.reporting.render import row_evidence as behind
from experiments.reporting.render import text as words
from experiments.reporting.render.latex_text import comment, tex
from experiments.reporting.stats.statistics import signed
from experiments.reporting.tables.report_model import LEGEND, MeasuredTable, TableRow
from experiments.reporting.tables.sections import Grid
from experiments.runs.run_flags import joined, legend

PACKAGES = "booktabs and graphicx"
MOST_BELOW = 8  # notes on rows that stand right below a table


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
    further = _behind(table)
    rows = [f"{name}: {text}." for name, text in behind.row_notes(table)]
    if len(rows) <= MOST_BELOW and behind.control_grid(table) is None:
        notes, further = [*rows, *notes], []
    caption, name = _caption(table), words.file_name(words.long_name(table))
    floats = [_float(caption, name, [fitted(tabulars[0]), _small(notes)])]
    floats += [_float(f"{caption}: the other metrics", f"{name}-more", [fitted(t)]) for t in tabulars[1:]]
    floats += [_float(f"{caption}: behind the rows", f"{name}-rows", further)] if further else []
    commands = behind.control_commands(table)
    if commands:
        floats += [
            comment("For the controls that are missing:"),
            *[comment(f"  {text}") for text in commands],
        ]
    return "\n".join([comment(f"Needs the packages {PACKAGES}."), *floats]) + "\n"


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
    return _tabular("ll" + "r" * len(names) + "rl", [row_of(head)], rows)


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
    made = [_tabular("llrrrrrl", [spans, rule, row_of(head)], first)]
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
    return _tabular("ll" + "r" * 2 * n, [spans, rule, row_of(head)], rows)


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
    return _tabular("llrrl" + "r" * len(others), [row_of(head)], rows)


def _published(line: TableRow, table: MeasuredTable) -> list[str]:
    values: Sequence[float | None] = line.row.published or [None] * len(table.columns)
    return [
        "" if value is None else _ranked(f"{value:.1f}", line.published_ranks.get(name, 0))
        for name, value in zip(table.columns, values)
    ]


def _measured(line: TableRow, metric: str) -> str:
    found = _ranked(words.value(line, metric), line.ranks.get(metric, 0))
    return ", ".join(text for text in (found, tex(words.absence(line))) if text)


def _change(line: TableRow) -> list[str]:
    if line.difference is None:
        return ["", ""]
    brief = behind.controls_in_brief(line)
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
    controls = behind.control_grid(table)
    notes = [f"{name}: {text}." for name, text in behind.row_notes(table)]
    return [text for text in (_small(notes), fitted(grid_tabular(controls)) if controls else "") if text]


def _sources(line: TableRow) -> list[str]:
    """The run folders of the row below, as comments."""
    return [comment(str(folder)) for folder in line.group.folders] if line.group else []


def _block(title: str, width: int) -> str:
    return rf"\addlinespace\multicolumn{{{width}}}{{@{{}}l}}{{\emph{{{tex(title)}}}}} \\" if title else ""


def row_of(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tabular(columns: str, head: Sequence[str], rows: Sequence[list[str] | str]) -> str:
    """Rows are cells, or a line as it stands."""
    body = [row if isinstance(row, str) else row_of(row) for row in rows]
    lines = [
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        *head,
        r"\midrule",
        *body,
        r"\bottomrule",
    ]
    return "\n".join([*(line for line in lines if line), r"\end{tabular}"])


def fitted(tabular: str) -> str:
    """As large as it is, or shrunk to the width of the line and to a page's height."""
    return "\n".join(
        [
            f"\\sbox0{{%\n{tabular}}}%",
            r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
            r"\ifdim\dimexpr\ht0+\dp0\relax>.8\textheight\sbox0{\resizebox*{!}{.8\textheight}{\usebox0}}\fi",
            r"\usebox0",
        ]
    )


def grid_parts(grid: Grid) -> tuple[str, str, list[list[str] | str]]:
    """Columns, header and rows of a grid."""
    columns = "l" * grid.texts + "r" * (len(grid.header) - grid.texts)
    return (
        columns,
        row_of([tex(name) for name in grid.header]),
        [[tex(cell) for cell in row] for row in grid.rows],
    )


def grid_tabular(grid: Grid) -> str:
    columns, head, rows = grid_parts(grid)
    title = (
        rf"\multicolumn{{{len(grid.header)}}}{{@{{}}l}}{{\emph{{{tex(grid.title)}}}}} \\"
        if grid.title
        else ""
    )
    return _tabular(columns, [title, head], rows)
