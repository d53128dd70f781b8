"""What a person finds in a page: its tables cell by cell, its links, its text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class HtmlCell:
    """A cell's first line and what stands below it in small print, each with its mark: `b`, `u` or none."""

    text: str = ""
    below: str = ""
    mark: str = ""
    below_mark: str = ""


@dataclass
class HtmlTable:
    title: str
    rows: list[list[HtmlCell]] = field(default_factory=list)


class Page(HTMLParser):
    """Reads a page; `tables` with the headings they stand under, `targets` of links and pictures, tags, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[HtmlTable] = []
        self.targets: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.text = ""
        self._heading = ""
        self._open: list[str] = []
        self._below = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        given = dict(attrs)
        self.targets += [
            (tag, given[name] or "") for name in ("href", "src", "srcset", "action") if name in given
        ]
        if tag in ("h2", "h3", "h4", "summary"):
            self._heading = ""
        elif tag == "table":
            self.tables.append(HtmlTable(self._heading))
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("td", "th"):
            self.tables[-1].rows[-1].append(HtmlCell())
            self._below = False
        elif tag == "span" and "below" in (given.get("class") or "").split():
            self._below = True

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            return
        self.text += data
        if any(tag in self._open for tag in ("h2", "h3", "h4", "summary")):
            self._heading += data
        if not any(tag in self._open for tag in ("td", "th")) or not self.tables:
            return
        cell = self.tables[-1].rows[-1][-1]
        mark = next((tag for tag in ("b", "u") if tag in self._open), "")
        if self._below:
            cell.below, cell.below_mark = cell.below + data, cell.below_mark or mark
        else:
            cell.text, cell.mark = cell.text + data, cell.mark or mark


def latex_rows(text: str) -> list[list[str]]:
    r"""The cells of a LaTeX table's rows, `\textbf` and `\underline` left as they are."""
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", row.removesuffix(r"\\"))] for row in rows]


def plain(cell: str) -> str:
    r"""A LaTeX cell without its mark; `36.9` of `\textbf{36.9}`."""
    return re.sub(r"^\\(?:textbf|underline)\{(.*)\}$", r"\1", cell)
