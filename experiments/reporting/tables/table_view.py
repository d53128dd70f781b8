"""A table as every format shows it: columns, and rows of cells. A format only draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.reporting.tables.sections import Grid


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: What rows name their cell in it by.
        title: Its heading.
        is_number: Whether its cells are numbers, set to the right.
        group: Heading above it and its neighbours of the same group; mostly empty.
    """

    key: str
    title: str
    is_number: bool = False
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """What a row shows in a column.

    Attributes:
        value: The number to sort by; without one the text counts.
        rank: 1 for the best value of its block, 2 for the second, else 0.
        brief: The text without the number of seeds, where the row's first metric has the same number.
        note: What follows the text: why there is no number, or the runs that gave none.
        below: A cell in small print under this one.
        folder: What the text links to.
        runs: Run folders to link to after the text.
    """

    text: str = ""
    value: float | None = None
    rank: int = 0
    brief: str = ""
    note: str = ""
    below: Cell | None = None
    folder: Path | None = None
    runs: Sequence[Path] = ()
    is_published: bool = False

    def __str__(self) -> str:
        """Return the text with its note, for formats that set both alike."""
        return ", ".join(part for part in (self.text, self.note) if part)


EMPTY = Cell()
ViewRow = Mapping[str, Cell]  # by column key


@dataclass(frozen=True)
class TableView:
    """A table of cells.

    Attributes:
        blocks: Title (may be empty) and rows. Rows may have cells for columns that are not shown.
    """

    title: str
    columns: Sequence[Column]
    blocks: Sequence[tuple[str, Sequence[ViewRow]]]

    @property
    def rows(self) -> list[ViewRow]:
        return [row for _, rows in self.blocks for row in rows]

    def without(self, *keys: str) -> TableView:
        """Return the table without those of its columns."""
        return replace(self, columns=[column for column in self.columns if column.key not in keys])

    def cells(self, row: ViewRow) -> list[Cell]:
        """Return a row's cells, one for each column."""
        return [row.get(column.key, EMPTY) for column in self.columns]


def build_grid_view(grid: Grid) -> TableView:
    """Return a grid of text as a table; a number sorts as one."""
    columns = [Column(str(i), name, i >= grid.texts) for i, name in enumerate(grid.header)]
    rows = [
        {c.key: Cell(text, _number(text) if c.is_number else None) for c, text in zip(columns, row)}
        for row in grid.rows
    ]
    return TableView(grid.title, columns, [("", rows)])


def _number(text: str) -> float | None:
    """Return the number that a text begins with; None where it does not."""
    try:
        return float(text.split()[0].rstrip("%s,").replace("−", "-"))
    except (ValueError, IndexError):
        return None
