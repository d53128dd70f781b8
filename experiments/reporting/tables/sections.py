"""What a page is made of: tables of cells, and sections of texts, grids and pictures. In no format yet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

COLUMN_PT = 300  # a column of a two-column paper has about 240


@dataclass(frozen=True)
class Grid:
    """A table of plain text; a renderer escapes it."""

    header: Sequence[str]  # one name a column
    rows: Sequence[Sequence[str]]  # as many cells each
    texts: int = 1  # how many columns, from the left, are text; the others are numbers, set to the right
    title: str = ""  # for above the grid; may be empty

    @property
    def view(self) -> TableView:
        """The grid as a table; a number sorts as one."""
        columns = [Column(str(i), name, i >= self.texts) for i, name in enumerate(self.header)]
        rows = [
            {c.key: Cell(text, _number(text) if c.is_number else None) for c, text in zip(columns, row)}
            for row in self.rows
        ]
        return TableView(self.title, columns, [("", rows)])


@dataclass(frozen=True)
class Picture:
    """A figure, drawn."""

    name: str  # stem of its files
    caption: str  # what it shows, of which runs, and how to read it
    alt: str  # the same in one sentence for those who cannot see it
    png: bytes
    svg: str

    def files(self) -> dict[str, bytes]:
        """Return the contents of `<name>.png` and `<name>.svg` by file name."""
        return {f"{self.name}.png": self.png, f"{self.name}.svg": self.svg.encode()}

    @property
    def is_wide(self) -> bool:
        """Whether it is wider than a column of a paper."""
        width = re.search(r'<svg[^>]*\swidth="([\d.]+)pt"', self.svg[:2000])
        return width is None or float(width[1]) > COLUMN_PT


@dataclass(frozen=True)
class Section:
    """A part of the page below the tables."""

    title: str
    texts: Sequence[str] = ()  # paragraphs of plain text, before grids and pictures
    grids: Sequence[Grid] = ()
    pictures: Sequence[Picture] = ()
    folders: Sequence[Path] = ()  # run folders that its numbers come from; a page links to them


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str  # what rows name their cell in it by
    title: str
    is_number: bool = False  # its cells are numbers, set to the right
    group: str = ""  # heading above it and its neighbours of the same group; mostly empty


@dataclass(frozen=True)
class Cell:
    """What a row shows in a column."""

    text: str = ""
    value: float | None = None  # the number to sort by; without one the text counts
    rank: int = 0  # 1 for the best value of its block, 2 for the second, else 0
    brief: str = ""  # the text without the number of seeds, where the row's first metric has the same number
    note: str = ""  # what follows the text: why there is no number, or the runs that gave none
    below: Cell | None = None  # in small print under this one
    folder: Path | None = None  # what the text links to
    runs: Sequence[Path] = ()  # run folders to link to after the text
    is_published: bool = False

    def __str__(self) -> str:
        """Return the text with its note, for formats that set both alike."""
        return ", ".join(part for part in (self.text, self.note) if part)


EMPTY = Cell()
ViewRow = Mapping[str, Cell]  # by column key


@dataclass(frozen=True)
class TableView:
    """A table as every format shows it; a format only draws it."""

    title: str
    columns: Sequence[Column]
    # Title (may be empty) and rows. Rows may have cells for columns that are not shown.
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


def _number(text: str) -> float | None:
    """Return the number that a text begins with; None where it does not."""
    try:
        return float(text.split()[0].rstrip("%s,").replace("−", "-"))
    except (ValueError, IndexError):
        return None
