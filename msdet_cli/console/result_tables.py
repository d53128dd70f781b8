"""Tables of results on the console. What they show is decided in `experiments.reporting`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from experiments.runs.run_flags import joined, legend

if TYPE_CHECKING:  # these import pandas
    from experiments.reporting.stats.statistics import Spread
    from experiments.reporting.tables.groups import Group
    from experiments.reporting.tables.report_model import MeasuredTable, OtherRuns, TableRow
    from experiments.reporting.tables.run_comparison import Comparison

MOST_ROWS = 60  # of a table; longer ones are for a file
STYLES = {1: "bold", 2: "underline"}  # best and second of a block
COLOURS = {"done": "green", "failed": "red", "running": "cyan", "interrupted": "yellow"}


def make_console() -> Console:
    """Standard output; 120 characters where it is no terminal and nothing says how wide it is."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    return console


def coloured(state: str) -> Text:
    return Text(state, COLOURS.get(state, ""))


def print_comparison(console: Console, compared: Comparison) -> None:
    """Prints what `comparison` found: a row for each label, and the difference to the first row."""
    main = compared.metrics[:1]
    change = any(row.difference for row in compared.rows)

    def grid(more: Sequence[str]) -> Table:
        made = _grid(
            ["", *(main or ["runs"]), *([f"Δ {name}" for name in main] if change else []), *more], texts=1
        )
        for row in compared.rows:
            found = row.metrics.get(main[0]) if main else None
            cells = [row.label, value(found, row.states, row.marks)]
            cells += [str(row.difference or "")] if change else []
            made.add_row(*[Text(cell) for cell in [*cells, *_means(row.metrics, more)]])
        return made

    console.print(_fitting(console, grid, compared.metrics[1:]))
    for row in compared.rows:
        if row.remark:
            _line(console, f"{row.label}: {row.remark}")
    if main:
        both = "mean ± standard deviation (seeds)"
        _line(console, f"{both}; Δ: to the first row [its 95 % interval]" if change else both)
    print_marks(console, [row.marks for row in compared.rows])
    print_problems(console, compared.problems)


def print_table(console: Console, table: MeasuredTable) -> None:
    """Prints one of the report's tables, what must be said of it, and where its runs are."""
    console.print(Text(table.title, "bold"))
    numbered = {id(line): f"[{i}]" for i, line in enumerate((x for x in table.lines if x.group), start=1)}
    left_out = len(table.lines) - MOST_ROWS
    table = _shortened(table)
    if table.has_published and table.context is None:
        console.print(_published_grid(table, numbered))
    else:
        console.print(_fitting(console, lambda more: _context_grid(table, numbered, more), table.columns[1:]))
    for note in table.notes:
        console.print(Text(note, "dim"))
    if left_out > 0:
        console.print(Text(f"{left_out} more rows: msdet report --format csv", "dim"))
    if len(table.columns) > 1:
        console.print(Text(f"All of {', '.join(table.columns)}: --format md, csv or html.", "dim"))
    for line in table.lines:
        if line.group:
            _print_evidence(console, numbered[id(line)], line)
    console.print()


def _shortened(table: MeasuredTable) -> MeasuredTable:
    """The table with no more rows than a person scrolls through."""
    blocks, room = [], MOST_ROWS
    for title, lines in table.blocks:
        if room > 0:
            blocks.append((title, lines[:room]))
        room -= len(lines)
    return replace(table, blocks=blocks)


def _print_evidence(console: Console, number: str, line: TableRow) -> None:
    """What stands behind a row's number: the verdict, how it was compared, its controls, its runs."""
    from experiments.reporting.render import row_evidence as behind

    group = line.group
    if group is None:
        return
    verdict = [line.difference.verdict] if line.difference else []
    told = "; ".join([*verdict, *behind.evidence(line, resampling=False)])
    _line(console, f"{number} {line.row.label}: {told + ': ' if told else ''}{_where(group)}")
    controls = behind.controls_to_show(line)
    if controls:
        _line(console, f"    {behind.controls_in_words(controls)}")
    for command in dict.fromkeys(command for control in controls for command in control.commands):
        _line(console, f"    {command}")


def print_legend(console: Console) -> None:
    """Prints, once for all tables, how measured numbers read."""
    from experiments.reporting.tables.report_model import LEGEND

    console.print(Text(LEGEND, "dim"))
    console.print()


def print_marks(console: Console, marks: Sequence[str]) -> None:
    """Prints what those marks mean that were shown."""
    for line in legend(joined(list(marks))):
        console.print(Text(line, "dim"), soft_wrap=True)


def print_other(console: Console, other: Sequence[OtherRuns]) -> None:
    """Prints the closing section, for runs that no table has."""
    from experiments.reporting.render import OTHER_TITLE, metrics_of

    metric = next(iter(metrics_of(runs.group for runs in other)), "runs")
    console.print(Text(OTHER_TITLE, "bold"))
    grid = _grid(["Recipe", "Profile, data set", "Config", metric], texts=3)
    for runs in other[:MOST_ROWS]:
        found = next(iter(runs.group.metrics.values()), None)
        context = " on ".join(text for text in (runs.of("profile"), runs.of("dataset")) if text)
        grid.add_row(
            Text(runs.of("recipe")),
            Text(context),
            runs.of("config_hash"),
            value(found, runs.group.states, runs.group.marks),
        )
    console.print(grid)
    if len(other) > MOST_ROWS:
        console.print(Text(f"{len(other) - MOST_ROWS} more: msdet report --format csv", "dim"))
    for runs in other[:MOST_ROWS]:
        differs = f"; differs from the recipe: {runs.differs}" if runs.differs else ""
        _line(console, f"{runs.of('config_hash')}: {runs.group.remark()}{differs}: {_where(runs.group)}")
    console.print()


def print_problems(console: Console, problems: Sequence[str]) -> None:
    for problem in problems:
        console.print(Text(f"Left out: {problem}", "yellow"), soft_wrap=True)


def _published_grid(table: MeasuredTable, numbered: dict[int, str]) -> Table:
    from experiments.reporting.render import label

    metric = table.columns[0]
    header = ["", "Backbone", f"{metric}\npublished", "Δ", f"{metric}\nmeasured"]
    grid = _grid([*header, *(["Δ", ""] if numbered else [])], texts=2)
    for title, lines in table.blocks:
        if title:
            grid.add_section()
            grid.add_row(Text(title, "italic"))
        for line in lines:
            change = "" if line.published_difference is None else f"{line.published_difference:+.1f}"
            cells = [
                label(line),
                line.row.backbone or "",
                f"{line.row.published[0]:.1f}" if line.row.published else "",
                change,
                _cell(line, metric),
            ]
            cells += [str(line.difference or ""), numbered.get(id(line), "")] if numbered else []
            texts = [Text(cell) for cell in cells]
            texts[2].stylize(STYLES.get(line.published_ranks.get(metric, 0), ""))
            texts[4].stylize(STYLES.get(line.ranks.get(metric, 0), ""))
            grid.add_row(*texts)
    return grid


def _context_grid(table: MeasuredTable, numbered: dict[int, str], more: Sequence[str]) -> Table:
    metric = table.columns[0]
    recipes = [line.row.recipe or "" for line in table.lines] if more else []
    grid = _grid(
        ["", *(["Recipe"] if recipes else []), metric, f"Δ {metric}", *more, ""], texts=1 + bool(recipes)
    )
    titled = {id(lines[0]): title for title, lines in table.blocks if title}
    for line, recipe in zip_longest(table.lines, recipes):
        if id(line) in titled:
            grid.add_section()
            grid.add_row(Text(titled[id(line)], "italic"))
        texts = [Text(line.row.label), *([] if recipe is None else [Text(recipe)])]
        ranked = [Text(_cell(line, metric)), Text(str(line.difference or ""))]
        ranked += map(Text, _means(line.group.metrics if line.group else {}, more))
        for cell, name in zip([ranked[0], *ranked[2:]], [metric, *more]):
            cell.stylize(STYLES.get(line.ranks.get(name, 0), ""))
        grid.add_row(*texts, *ranked, numbered.get(id(line), ""))
    return grid


def _fitting(console: Console, grid: Callable[[Sequence[str]], Table], more: Sequence[str]) -> Table:
    """The grid with more metrics than the main one, if the console is wide enough for it."""
    whole = grid(more)
    needed = Measurement.get(console, console.options.update(width=10_000), whole).maximum
    return whole if needed <= console.width else grid([])


def _grid(header: Sequence[str], texts: int) -> Table:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(header):
        grid.add_column(Text(name), justify="left" if index < texts else "right", no_wrap=index >= texts)
    return grid


def _cell(line: TableRow, metric: str) -> str:
    group = line.group
    return value(group.metrics.get(metric), group.states, group.marks) if group else line.remark


def value(found: Spread | None, states: dict[str, int], marks: str = "") -> str:
    """`36.9 ± 0.2 (3)†, 1 failed`: runs that gave no number are not passed over."""
    missing = [f"{n} {state}" for state, n in states.items() if state != "done"]
    return ", ".join([*([f"{found}{marks}"] if found else []), *missing])


def _means(metrics: dict[str, Spread], names: Sequence[str]) -> list[str]:
    return [f"{metrics[name].mean:.1f}" if name in metrics else "" for name in names]


def _where(group: Group) -> str:
    from experiments.reporting.tables.report_model import patterns

    return ", ".join(patterns([group]))


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
