"""A table as the cells of a page: what each shows, sorts by and links to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.reporting.render import row_evidence as behind
from experiments.reporting.render import text as words
from experiments.reporting.stats.statistics import signed
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.sections import Grid


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        sort: What the column is sorted by; without, the text, and an empty one comes last.
        rank: 1 for the best of its block, 2 for the second.
        href: Where the text links to.
        below: A second line, in small print, with its own rank.
        published: Which of the two is a published value: "text", "below", or neither.
        links: After the text.
        verdict: Where the text is one.
        aside: In small print after the text.
    """

    text: str = ""
    sort: float | None = None
    rank: int = 0
    href: str = ""
    below: str = ""
    below_rank: int = 0
    links: list[tuple[str, str]] = field(default_factory=list)
    verdict: str = ""
    aside: str = ""
    published: Literal["", "text", "below"] = ""


@dataclass(frozen=True)
class Column:
    """A column's name, in `above` what the name belongs to, and whether it holds numbers."""

    name: str
    is_number: bool = False
    above: str = ""


@dataclass(frozen=True)
class TableView:
    """A table of cells.

    Attributes:
        blocks: Title and rows.
        notes: Below the table; `row_notes` for one row each, its label first.
        table: What it shows, if that is one of the report's tables.
        stacked: Whether cells have a published value below the measured one.
    """

    anchor: str
    title: str
    columns: list[Column]
    blocks: list[tuple[str, list[list[Cell]]]]
    notes: Sequence[str] = ()
    row_notes: Sequence[tuple[str, str]] = ()
    controls: TableView | None = None
    commands: Sequence[str] = ()
    patterns: Sequence[str] = ()
    table: MeasuredTable | None = None
    stacked: bool = False

    @property
    def heading(self) -> str:
        return words.short_heading(self.table) if self.table else self.title

    @property
    def is_measured(self) -> bool:
        return self.table is None or any(line.group for line in self.table.lines)


def table_view(table: MeasuredTable, anchor: str, base: Path) -> TableView:
    """One of the report's tables. Numbers link to run folders, relative to `base`."""
    own = table.has_published and table.context is None
    measured = any(line.group for line in table.lines)
    layout = _AsPrinted(table) if own and not measured else _Beside(table, base, own)
    blocks = [(title, [layout.cells(line) for line in lines]) for title, lines in table.blocks]
    return TableView(
        anchor,
        table.title,
        layout.columns,
        blocks,
        table.notes,
        behind.row_notes(table),
        _controls(table, f"{anchor}c", base),
        behind.control_commands(table),
        table.folders,
        table,
        own and measured and len(table.columns) > 1,
    )


def grid_view(grid: Grid, anchor: str) -> TableView:
    columns = [Column(name, index >= grid.texts) for index, name in enumerate(grid.header)]
    rows = [
        [_plain(cell) if i >= grid.texts else Cell(cell) for i, cell in enumerate(row)] for row in grid.rows
    ]
    return TableView(anchor, grid.title, columns, [("", rows)])


class _AsPrinted:
    """A table of published values only, in the paper's columns."""

    def __init__(self, table: MeasuredTable) -> None:
        self.table = table
        names = [Column(name, True) for name in table.columns]
        self.columns = [
            Column("Method"),
            Column("Backbone"),
            *names,
            Column(f"Δ {table.columns[0]}", True),
            Column(""),
        ]

    def cells(self, line: TableRow) -> list[Cell]:
        row = line.row
        values: Sequence[float | None] = row.published or [None] * len(self.table.columns)
        cells = [Cell(words.label(line)), Cell(row.backbone or "")]
        cells += [_published(value, line, name) for name, value in zip(self.table.columns, values)]
        change = line.published_difference
        return [*cells, Cell(words.minus(words.published_change(line)), sort=change), Cell(line.remark)]


class _Beside:
    """Measured values, with the published ones beside where there are any."""

    def __init__(self, table: MeasuredTable, base: Path, own: bool) -> None:
        self.table, self.base, self.own = table, base, own
        main, *others = table.columns
        self.columns = [Column("Method" if own else "Row"), Column("Backbone" if own else "Recipe")]
        if own:
            self.columns += [Column("published", True, main), Column("measured", True, main)]
            self.columns += [
                Column("measured − published", True, main),
                Column("published", True, f"Δ {main}"),
            ]
            self.columns += [Column("measured [95\u00a0%]", True, f"Δ {main}")]
        else:
            self.columns += [Column(main, True), Column(f"Δ {main} [95 %]", True)]
        self.columns += [Column("Verdict"), *[Column(name, True) for name in others], Column("Seeds")]

    def cells(self, line: TableRow) -> list[Cell]:
        main, *others = self.table.columns
        row = line.row
        first = row.published is not None and words.is_first(line, self.table)
        published = dict(zip(self.table.columns, row.published or ())) if first and self.own else {}
        cells = [Cell(words.label(line)), Cell((row.backbone if self.own else row.recipe) or "")]
        if self.own:
            shown = words.published_change(line) if first else ""
            cells += [_published(published.get(main), line, main), self._measured(line, main)]
            cells += [Cell("" if line.gap is None else words.minus(signed(line.gap)), sort=line.gap)]
            cells += [
                Cell(words.minus(shown), sort=line.published_difference if shown else None, published="text")
            ]
        else:
            cells += [self._measured(line, main)]
        cells += _change(line)
        cells += [self._more(line, name, published.get(name)) for name in others]
        return [*cells, Cell(links=seed_links(line.group.folders if line.group else (), self.base))]

    def _measured(self, line: TableRow, metric: str) -> Cell:
        absent = words.absence(line)
        spread = line.group.metrics.get(metric) if line.group else None
        if line.group is None or spread is None:
            return Cell(absent)
        folders = list(dict.fromkeys(folder.parent for folder in line.group.folders))
        href = words.link(folders[0], self.base) + "/"
        return Cell(words.value(line, metric), spread.mean, line.ranks.get(metric, 0), href, aside=absent)

    def _more(self, line: TableRow, metric: str, published: float | None) -> Cell:
        below = "" if published is None else f"{published:.1f}"
        rank = line.published_ranks.get(metric, 0)
        spread = line.group.metrics.get(metric) if line.group else None
        if spread is None:
            return Cell(below=below, below_rank=rank, published="below")
        same = (
            spread.n == getattr(line.group.metrics.get(self.table.columns[0]), "n", 0) if line.group else True
        )
        text = words.value(line, metric, n=not same)
        return Cell(
            text, spread.mean, line.ranks.get(metric, 0), below=below, below_rank=rank, published="below"
        )


def _change(line: TableRow) -> list[Cell]:
    change = line.difference
    if change is None:
        return [Cell(), Cell()]
    brief = behind.controls_in_brief(line)
    return [
        Cell(words.minus(str(change)), sort=change.value),
        Cell(change.verdict, verdict=change.verdict, below=brief),
    ]


def _published(value: float | None, line: TableRow, metric: str) -> Cell:
    if value is None:
        return Cell(published="text")
    return Cell(f"{value:.1f}", value, line.published_ranks.get(metric, 0), published="text")


def _controls(table: MeasuredTable, anchor: str, base: Path) -> TableView | None:
    """As `behind.control_grid`, with links to the controls' runs."""
    grid = behind.control_grid(table)
    if grid is None:
        return None
    plain = grid_view(grid, anchor)
    controls = [control for line in table.lines for control in behind.controls_to_show(line)]
    rows = []
    for (row, name, value, change, verdict, missing), control in zip(plain.blocks[0][1], controls):
        links = seed_links(control.folders, base)
        told = control.difference.verdict if control.difference else ""
        rows.append(
            [
                row,
                Cell(name.text, below=control.note),
                value,
                change,
                Cell(verdict.text, verdict=told),
                missing,
                Cell(links=links),
            ]
        )
    columns = [
        Column(c.name, c.name not in ("Verdict", "Seeds missing") and c.is_number) for c in plain.columns
    ]
    return TableView(anchor, plain.title, [*columns, Column("Seeds")], [("", rows)])


def seed_links(folders: Sequence[Path], base: Path) -> list[tuple[str, str]]:
    """`0`, `1`, ... each with where its run folder is."""
    return [(folder.name.removeprefix("seed"), words.link(folder, base) + "/") for folder in folders]


def _plain(text: str) -> Cell:
    """A number in a grid sorts as one, if it begins with one."""
    try:
        return Cell(words.minus(text), sort=float(text.split()[0].rstrip("%s,").replace("−", "-")))
    except (ValueError, IndexError):
        return Cell(text)
