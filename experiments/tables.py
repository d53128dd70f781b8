"""The paper's tables: their rows, the published values, and the recipe that reproduces a row. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from experiments import catalogue
from experiments.checking import check_keys, validate


class Row(BaseModel):
    """One row. `recipe` and `set` say what reproduces it; without a recipe it shows what was published."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(min_length=1)]  # within the table
    label: str
    backbone: str | None = None
    reimplemented: bool = False  # marked '*' in the paper: trained there on MMDetection by its authors
    reference: bool = False  # from another table, shown for comparison; not a row of this one
    published: list[float]
    recipe: str | None = None
    set: dict[str, Any] = {}  # dotted recipe keys, where the row differs from its recipe
    baseline: str | None = None  # id of the row that this one is compared with


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    title: str | None = None
    rows: Annotated[list[Row], Field(min_length=1)]


class Table(BaseModel):
    """A table as printed: blocks of rows under the same columns."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    title: str
    columns: Annotated[list[str], Field(min_length=1)]
    note: str | None = None
    blocks: Annotated[list[Block], Field(min_length=1)]

    def rows(self) -> Iterator[Row]:
        """All rows, top to bottom, reference rows included."""
        for block in self.blocks:
            yield from block.rows

    def row(self, row_id: str) -> Row:
        """The row of that id; KeyError where there is none."""
        return {row.id: row for row in self.rows()}[row_id]

    @model_validator(mode="after")
    def _fits_together(self) -> Table:
        ids = [row.id for row in self.rows()]
        for row in self.rows():
            if ids.count(row.id) > 1:
                raise ValueError(f"row '{row.id}' is given twice")
            if len(row.published) != len(self.columns):
                raise ValueError(
                    f"row '{row.id}' has {len(row.published)} values for {len(self.columns)} columns"
                )
            if row.baseline is not None and (row.baseline not in ids or row.baseline == row.id):
                raise ValueError(
                    f"row '{row.id}': its baseline '{row.baseline}' is not another row of the table"
                )
            if row.set and row.recipe is None:
                raise ValueError(f"row '{row.id}' has `set` but no recipe")
        return self


def load_table(ref: str) -> Table:
    """The table of that name (table1 to table5, or one's own) or path.

    Raises:
        UserError: Not found, or the page is wrong (dotted path, nearest valid key).
    """
    path = catalogue.find("table", ref)
    raw = catalogue.read_yaml(path)
    where = f"table {catalogue.shown(path)}"
    check_keys(raw, Table, where)
    return validate(Table, raw, where)
