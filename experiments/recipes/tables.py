"""Table files: rows with recipes, and the published values where there are any. No torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PrivateAttr, model_validator

from experiments.common.checking import check_keys, validate
from experiments.common.errors import UserError, did_you_mean
from experiments.common.files import display_path
from experiments.recipes import catalogue
from experiments.recipes.loading import Variants, load_recipe, prepare_variants
from experiments.recipes.schema import Recipe

# The paper's tables, in its order.
PAPER = ("table1", "table2", "table3", "table4", "table5", "fig4")
ABLATIONS = "ablations"  # folder of the results for the tables that `msdet ablate` and `msdet compare` write
PATH_KEYS = ("dataset", "model", "init_from")  # of recipes: their values may be paths


class Row(BaseModel, extra="forbid", strict=True):
    """One row: the recipe that reproduces it, with `set` in place; without a recipe only the published values.

    A row with `mean_weights_of` is a control of another row: its recipe has the rule `static` with the mean weights
    of that row's runs (see `experiments.runs.mean_weights`) by level, or one mean over all levels. Its runs are
    known once that row's runs are done.
    """

    id: Annotated[str, Field(min_length=1)]  # unique in the table
    label: str
    backbone: str | None = None
    reimplemented: bool = False  # marked '*' in the paper: trained there on MMDetection by its authors
    reference: bool = False  # from another table, shown for comparison; not a row of this one
    published: list[float] | None = None
    recipe: str | None = None
    set: dict[str, Any] = {}  # dotted recipe keys to values that differ from the recipe's
    mean_weights_of: str | None = None  # id of the row whose runs give the weights
    mean: Literal["level", "overall"] = "level"
    baseline: str | None = None  # id of the row that this one is compared with
    own: bool = False  # the recipe as it stands, among rows that vary it

    @property
    def recipe_name(self) -> str | None:
        """The name of its recipe, wherever its page lies."""
        return self.recipe and catalogue.name_of(self.recipe)

    def overrides(self, weights: Sequence[float] = (1.0,)) -> dict[str, Any]:
        """Return `set`, with `weights` for a row of mean weights; the default stands for unknown ones."""
        return self.set if self.mean_weights_of is None else {**self.set, "weighting.weights": list(weights)}


class Study(BaseModel, extra="forbid", strict=True):
    """What `msdet compare` decides by; fixed when the study begins, so that no look can choose it.

    Attributes:
        effect: The smallest difference that matters, in points.
        spread: The expected standard deviation of a seed's difference. None: as large as the effect.
    """

    effect: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    spread: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def scale(self) -> float:
        """The effect in standard deviations, at which the test is most sensitive."""
        return self.effect / self.spread if self.spread else 1.0


class Block(BaseModel, extra="forbid", strict=True):
    """Rows that belong together, under a title."""

    title: str | None = None
    rows: Annotated[list[Row], Field(min_length=1)]


class Table(BaseModel, extra="forbid", strict=True):
    """A table: blocks of rows with the same columns.

    With a `profile` or `dataset`, all rows run under it, and every `set` comes after it: its values are what runs.
    In other tables a profile that the command names comes last, and scales their values.
    """

    name: str
    title: str
    columns: Annotated[list[str], Field(min_length=1)]
    note: str | None = None
    profile: str | None = None
    dataset: str | None = None
    set: dict[str, Any] = {}  # of all rows; a row's own `set` comes after it
    study: Study | None = None  # of a table whose seeds are added until its questions are settled
    blocks: Annotated[list[Block], Field(min_length=1)]
    _path: Path = PrivateAttr(Path("table.yaml"))
    _variants: dict[tuple[str, str | None], Variants] = PrivateAttr(default_factory=dict)

    @property
    def path(self) -> Path:
        """The table's file; paths in it are relative to its folder."""
        return self._path

    def at_path(self, path: Path) -> Table:
        """Set the table's file, and return the table."""
        self._path = path
        return self

    def recipe_of(self, row: Row, weights: Sequence[float] = (1.0,), profile: str | None = None) -> Recipe:
        """Return what a row runs.

        Args:
            row: One of the table's rows, with a recipe.
            weights: Of a row with `mean_weights_of`.
            profile: That of the command, for a table without one of its own.

        Raises:
            UserError: The recipe is not there, or wrong; or `profile` is not the table's own.
        """
        if self.profile is not None and profile not in (None, self.profile):
            own, typed = (catalogue.find("profile", ref) for ref in (self._located(self.profile), profile))
            if own != typed:
                text = f"table {self.name}: its rows run under profile {self.profile}, not {profile}"
                raise UserError(text, "leave out -p")
        chosen = {**self.set, **row.overrides(weights)}
        chosen |= {key: self._located(chosen[key]) for key in PATH_KEYS if isinstance(chosen.get(key), str)}
        recipe = self._located(row.recipe or "")
        under, dataset = (ref and self._located(ref) for ref in (self.profile or profile, self.dataset))
        if profile is not None and self.profile is None and self.dataset is None:
            return load_recipe(recipe, under, overrides=chosen)
        if (recipe, under) not in self._variants:  # hundreds of rows of one recipe read its files once
            self._variants[recipe, under] = prepare_variants(recipe, under, dataset)
        return self._variants[recipe, under](chosen)

    def _located(self, ref: str) -> str:
        """Return the path of a file that `ref` means from the table's folder; a name, or another text, as it is."""
        path = Path(os.path.normpath(catalogue.resolve_path(ref, self.path.parent)))  # works before mkdir
        return str(path) if catalogue.is_file(path) else ref

    def rows(self) -> Iterator[Row]:
        """Yield all rows, top to bottom, reference rows included."""
        for block in self.blocks:
            yield from block.rows

    def row(self, row_id: str) -> Row:
        """Return the row with an id; KeyError where there is none."""
        return {row.id: row for row in self.rows()}[row_id]

    def published_difference(self, row: Row) -> float | None:
        """Return the published first metric of a row less its baseline's; None where either is not published."""
        if row.published is None or row.baseline is None:  # before the baseline is looked for among thousands
            return None
        baseline = self.row(row.baseline).published
        return round(row.published[0] - baseline[0], 1) if baseline else None

    @property
    def has_published(self) -> bool:
        """Whether any row has published values."""
        return any(row.published is not None for row in self.rows())

    @model_validator(mode="after")
    def _fits_together(self) -> Table:
        ids = Counter(row.id for row in self.rows())
        measured = {row.id for row in self.rows() if row.recipe is not None and row.mean_weights_of is None}
        for row in self.rows():
            where, source = f"row '{row.id}'", row.mean_weights_of
            if ids[row.id] > 1:
                raise ValueError(f"{where} is given twice")
            if row.published is not None and len(row.published) != len(self.columns):
                raise ValueError(f"{where} has {len(row.published)} values for {len(self.columns)} columns")
            if row.baseline is not None and (row.baseline not in ids or row.baseline == row.id):
                raise ValueError(f"{where}: its baseline '{row.baseline}' is not another row of the table")
            if row.set and row.recipe is None:
                raise ValueError(f"{where} has `set` but no recipe")
            if source is not None and row.recipe is None:
                raise ValueError(f"{where} has `mean_weights_of` but no recipe")
            if source is not None and source not in measured:
                need = "a row of the table with a recipe and weights of its own"
                raise ValueError(f"{where}: mean_weights_of: '{source}' is not {need}")
        return self


def list_tables() -> list[str]:
    """Return the names of the paper's tables in its order, then of all others, the user's own included."""
    return [*PAPER, *(name for name in catalogue.list_pages("table") if name not in PAPER)]


def list_ablations(results: Path) -> dict[str, Path]:
    """Return name to file of the tables that commands have written below a results folder, sorted by name."""
    return {path.stem: path for path in sorted((results / ABLATIONS).glob("*.yaml"))}


def load_table(ref: str, results: Path | None = None) -> Table:
    """Return the table of a name (table1 to table5, fig4, controls, or one's own) or path.

    Args:
        results: The results folder whose ablations have names as well.

    Raises:
        UserError: There is no such table, or a key of it is wrong; names the dotted key.
    """
    own = list_ablations(results) if results is not None else {}
    if own and not catalogue.is_path(ref) and ref not in (*own, *list_tables()):
        raise UserError(
            f"table '{ref}' not found; {did_you_mean(ref, (*own, *list_tables()))}", "msdet ls tables"
        )
    path = own[ref].resolve() if ref in own else catalogue.find("table", ref)
    raw = catalogue.read_yaml(path)
    where = f"table {display_path(path)}"
    check_keys(raw, Table, where)
    return validate(Table, raw, where).at_path(path)
