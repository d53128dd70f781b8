"""What a report consists of: tables of rows, in no format yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Row
from experiments.reporting.collect import split_by
from experiments.reporting.stats.power import Power
from experiments.reporting.stats.statistics import MIN_SEEDS, Difference
from experiments.reporting.tables.controls import Control
from experiments.reporting.tables.groups import Group
from experiments.reporting.tables.matching import Context
from experiments.weighting.options import is_adaptive

LEGEND = (
    "Mean ± sd (seeds). Δ: to the baseline row, with its 95 % confidence interval: paired t where two or more seeds"
    f" match, else Welch's t. Gain or loss: it leaves out 0, from {MIN_SEEDS} seeds on, also adjusted (Holm) for the"
    " block's rows with that baseline. Run as: processes x images (x accumulated steps)."
)
ABBREVIATED = ("avw", "rlo", "dwa")  # rules whose names are written in capitals


@dataclass(frozen=True)
class TableRow:
    """One group of runs of a table's row, or the row without any."""

    definition: Row  # as the table's file has it
    group: Group | None  # None where the row has no runs
    published_difference: float | None  # of the first column, to the baseline row as published
    difference: Difference | None  # the same as measured
    remark: str  # "no runs", "no recipe yet", or what a reader must know of the group
    # Metric to 1 (best) or 2 (second) of its block, as measured on the same data; ties share a rank.
    ranks: dict[str, int] = field(default_factory=dict)
    published_ranks: dict[str, int] = field(default_factory=dict)  # the same for the published values
    gap: float | None = None  # of the first column, measured mean less published, in the table as published
    power: Power | None = None  # what the seeds behind the difference could have shown
    controls: tuple[Control, ...] = ()  # of a row of an adaptive rule that lies above its baseline
    recipe: Recipe | None = None  # of its runs; None without any, or where no page of it can be read
    baseline: Group | None = None  # the runs that the difference is to
    differs: str = ""  # in what a run that belongs to no table differs from the recipe of its name

    @property
    def label(self) -> str:
        """The row's name: with the paper's own mark of what its authors trained, or as the recipe's own value."""
        mark = "*" if self.definition.reimplemented else " (recipe)" if self.definition.own else ""
        return self.definition.label + mark

    @property
    def full_label(self) -> str:
        """The row's name with what it differs in, which tells apart runs that belong to no table."""
        return f"{self.label} ({self.differs})" if self.differs else self.label

    @property
    def name(self) -> str:
        """The row named by its recipe, and by the rule if that does not say it: `retinanet-r50-rlo (alpha = 5)`."""
        if self.recipe is None or self.definition.recipe is None:
            return self.label
        rule = str(self.recipe.weighting.get("rule"))
        name = str(self.definition.recipe_name)
        if rule not in name.split("-"):
            name = f"{rule.upper() if rule in ABBREVIATED else rule}, {name}"
        says_more = self.definition.set.keys() - {"weighting.rule"} or self.definition.mean_weights_of
        detail = self.differs or (self.label if says_more and not self.definition.own else "")
        return f"{name} ({detail})" if detail else name

    @property
    def is_rlo(self) -> bool:
        """Whether its runs had RLO, and not its control that learns nothing."""
        rule = self.recipe.weighting if self.recipe else {}
        return rule.get("rule") == "rlo" and is_adaptive(rule)


@dataclass(frozen=True)
class MeasuredTable:
    """A table as it is shown."""

    name: str
    title: str
    context: Context | None  # None for a table at full size on its rows' own data, as published
    columns: list[str]  # metrics; in a context those of the runs
    blocks: list[tuple[str, list[TableRow]]]  # title and rows
    notes: list[str] = field(default_factory=list)  # sentences for below the table
    common: str = ""  # the context in words; empty without one
    has_differs: bool = False  # its rows say in what they differ from a recipe: they belong to no table

    @property
    def rows(self) -> list[TableRow]:
        return [row for _, rows in self.blocks for row in rows]

    @property
    def groups(self) -> list[Group]:
        """The runs of all rows that have any."""
        return [row.group for row in self.rows if row.group is not None]

    @property
    def is_measured(self) -> bool:
        return bool(self.groups)

    @property
    def has_published(self) -> bool:
        """Whether there are published values to show, or to be compared with."""
        return any(row.definition.published is not None for row in self.rows)

    @property
    def is_as_published(self) -> bool:
        """Whether the measured values may stand beside published ones."""
        return self.has_published and self.context is None

    @property
    def is_stacked(self) -> bool:
        """Whether measured values of other metrics than the first have the published ones below them."""
        return self.is_as_published and self.is_measured and len(self.columns) > 1

    @property
    def folders(self) -> list[str]:
        """Patterns of the run folders that the numbers come from."""
        return list(dict.fromkeys(pattern for group in self.groups for pattern in group.patterns))

    @property
    def short_title(self) -> str:
        """`Table 1`, `Runs of no table`."""
        return self.title.partition(":")[0].partition(", ")[0]

    @property
    def long_name(self) -> str:
        """A name unique in the report: `table1`, `table1, profile tiny on shapes`."""
        return f"{self.name}, {self.common}" if self.common else self.name

    def shorten(self, max_rows: int) -> MeasuredTable:
        """Return the table with its first rows."""
        blocks, room = [], max_rows
        for title, rows in self.blocks:
            blocks += [(title, rows[:room])] if room > 0 else []
            room -= len(rows)
        return replace(self, blocks=blocks)

    def select(self, is_shown: Callable[[TableRow], bool]) -> MeasuredTable:
        """Return the table with some of its rows, and with those that they are compared with."""
        wanted = {row.definition.baseline for row in self.rows if is_shown(row)}
        blocks = [
            (title, [row for row in rows if is_shown(row) or row.definition.id in wanted])
            for title, rows in self.blocks
        ]
        return replace(self, blocks=[(title, rows) for title, rows in blocks if rows])


@dataclass(frozen=True)
class Report:
    """Everything that `msdet report` shows, in no format yet."""

    # A user's own ablations, then each table at full size and in its contexts, then runs that belong to none.
    tables: list[MeasuredTable]
    problems: list[str]
    has_runs: bool
    missing: list[str] = field(default_factory=list)  # why finished runs are in no row of a table asked for

    @property
    def by_name(self) -> dict[str, list[MeasuredTable]]:
        """Each table's name to all its forms."""
        return {forms[0].name: forms for forms in split_by(self.tables, lambda table: table.name)}

    @property
    def measured(self) -> list[MeasuredTable]:
        return [table for table in self.tables if table.is_measured]

    @property
    def groups(self) -> list[Group]:
        """Every group of runs in the report, once."""
        groups = (group for table in self.tables for group in table.groups)
        return list({tuple(run["path"] for run in group.runs): group for group in groups}.values())
