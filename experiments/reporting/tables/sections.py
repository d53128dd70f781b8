"""Sections of a page: texts, grids and pictures, in no format yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Grid:
    """A table of plain text.

    Attributes:
        header: One name a column.
        rows: As many cells each. A renderer escapes them.
        texts: How many columns, from the left, are text; the others are numbers, set to the right.
        title: For above the grid; may be empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure, drawn.

    Attributes:
        name: Stem of its files.
        caption: What it shows, of which runs, and how to read it.
        alt: The same in one sentence for those who cannot see it.
        png, svg: The files' contents.
    """

    name: str
    caption: str
    alt: str
    png: bytes
    svg: str

    def files(self) -> dict[str, bytes]:
        """Return the contents of `<name>.png` and `<name>.svg` by file name."""
        return {f"{self.name}.png": self.png, f"{self.name}.svg": self.svg.encode()}


@dataclass(frozen=True)
class Section:
    """A part of the page below the tables.

    Attributes:
        texts: Paragraphs of plain text, before grids and pictures.
        folders: Run folders that its numbers come from; a page links to them.
    """

    title: str
    texts: Sequence[str] = ()
    grids: Sequence[Grid] = ()
    pictures: Sequence[Picture] = ()
    folders: Sequence[Path] = field(default_factory=tuple)
