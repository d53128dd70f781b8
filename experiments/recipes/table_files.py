"""Table files that are written: whole, or with rows added to what people have edited. No torch."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from experiments.common.checking import validate
from experiments.common.errors import UserError
from experiments.common.files import display_path, read_text, refusing, write_text
from experiments.common.locks import file_lock
from experiments.recipes import catalogue
from experiments.recipes.tables import Block, Row, Table, load_table
from experiments.recipes.yaml_format import dump_yaml, parse_yaml


def update_table(path: Path, make: Callable[[], Table]) -> Table:
    """Make a table and write its file, while no other process writes one there.

    Comments in the file stay as long as rows are only added.

    Args:
        make: Returns the table, from what the file has by then.

    Raises:
        UserError: The file cannot be written.
    """
    with refusing(f"{display_path(path)} cannot be written", "--results-dir DIR"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.parent / ".lock"):
            table = make()
            save_table(table)
    return table


def save_table(table: Table) -> None:
    """Write a table's file, whole or not at all."""
    text, header = None, _header(table)
    if table.path.exists():
        before = load_table(str(table.path))
        if before.model_dump() == table.model_dump():
            return
        text = _with_added_rows(read_text(table.path), before, table)
        header = catalogue.read_header_comment(table.path)
    if text is None:
        comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
        text = comment + dump_yaml(table.model_dump(exclude_defaults=True))
    write_text(table.path, text)


def _header(table: Table) -> str:
    place = display_path(table.path)
    return (
        f"{table.title}\n"
        f"Written by `msdet {'compare' if table.study else 'ablate'}`, which adds rows;"
        " titles, labels and rows may be edited.\n"
        f"  msdet reproduce {place} --seeds 3    run what is missing\n"
        f"  msdet report {place}"
    )


def _with_added_rows(text: str, before: Table, after: Table) -> str | None:
    """Return the file's text with the new rows put between its lines; None where that is not all that changes."""
    lines = text.splitlines(keepends=True)
    blocks = _value(yaml.compose(text, yaml.SafeLoader), "blocks")
    old = {row.id for row in before.rows()}
    added: list[tuple[int, str]] = []  # line number and what comes before that line
    for node, block in zip(blocks.value, after.blocks):
        rows = _value(node, "rows")
        following = list(rows.value)
        for row in block.rows:
            if row.id in old:
                following = following[1:]
            else:
                place = following[0].start_mark.line if following else _end(rows)
                added.append((_above_comments(lines, place), _item(row, rows)))
    added += [(_end(blocks), _item(block, blocks)) for block in after.blocks[len(before.blocks) :]]
    for place, item in reversed(added):
        lines[place:place] = [item]
    changed = "".join(lines)
    try:
        read = validate(Table, parse_yaml(changed, after.name), after.name).at_path(after.path)
    except UserError:
        return None
    return changed if read.model_dump() == after.model_dump() else None


def _value(mapping: Any, name: str) -> yaml.Node:
    return next(value for key, value in mapping.value if key.value == name)


def _above_comments(lines: list[str], place: int) -> int:
    while lines[place - 1].lstrip().startswith("#"):
        place -= 1
    return place


def _end(node: yaml.Node) -> int:
    """Return the number of the line after a node's last value; its end mark may lie below comments."""
    while isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.line) + 1


def _item(content: Row | Block, beside: yaml.Node) -> str:
    """Return a row or block as an item of a list, indented as the others."""
    item = dump_yaml([content.model_dump(exclude_defaults=True)])
    return textwrap.indent(item, " " * beside.start_mark.column)
