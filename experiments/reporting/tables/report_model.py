"""What a report consists of: tables of rows, and runs that fit no table; in no format yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Row
from experiments.reporting.stats.power import Power
from experiments.reporting.stats.statistics import MIN_SEEDS, Difference
from experiments.reporting.tables.controls import Control
from experiments.reporting.tables.groups import Group
from experiments.reporting.tables.matching import Context
from experiments.weighting.options import adapts

LEGEND = (
    "Measured: mean ± sample standard deviation (number of seeds). Δ: to the baseline row, with its 95 % confidence"
    " interval: the seeds' differences where two or more seeds match (paired t), else the difference of the means"
    f" (Welch's t). Gain or loss: the interval leaves out 0, from {MIN_SEEDS} seeds on; among twenty rows one does so"
    " by chance. Best and second go by the digits shown, whatever the noise."
    " Run as: processes x images per process and step (x accumulated steps)."
)


@dataclass(frozen=True)
class TableRow:
    """One group of runs of a table's row, or the row without any.

    Attributes:
        definition: The row as the table's file has it.
        group: None where the row has no runs.
        published_difference: Of the first column, to the baseline row as published.
        difference: The same as measured.
        remark: "no runs", "no recipe yet", or what a reader must know of the group.
        ranks: Metric to 1 (best) or 2 (second) of its block, as measured on the same data; ties share a rank.
        published_ranks: The same for the published values.
        gap: Of the first column, measured mean minus published; only in the table as published.
        power: What the seeds behind the difference could have shown.
        controls: Of a row of an adaptive rule that lies above its baseline.
        recipe: What its runs were started from; None without runs, or where no page of it can be read.
        baseline: The runs that the difference is to.
    """

    definition: Row
    group: Group | None
    published_difference: float | None
    difference: Difference | None
    remark: str
    ranks: dict[str, int] = field(default_factory=dict)
    published_ranks: dict[str, int] = field(default_factory=dict)
    gap: float | None = None
    power: Power | None = None
    controls: tuple[Control, ...] = ()
    recipe: Recipe | None = None
    baseline: Group | None = None

    @property
    def label(self) -> str:
        """The row's name, with the paper's own mark of what its authors trained themselves."""
        return self.definition.label + ("*" if self.definition.reimplemented else "")

    @property
    def is_rlo(self) -> bool:
        """Whether its runs had RLO, and not its control that learns nothing."""
        rule = self.recipe.weighting if self.recipe else {}
        return rule.get("rule") == "rlo" and adapts(rule)


@dataclass(frozen=True)
class MeasuredTable:
    """A table as it is shown.

    Attributes:
        context: None for the table at full size on its rows' own data, as published.
        columns: Metrics; in a context those of the runs.
        blocks: Title and rows.
        notes: Sentences for below the table.
        common: The context in words; empty without one.
    """

    name: str
    title: str
    context: Context | None
    columns: list[str]
    blocks: list[tuple[str, list[TableRow]]]
    notes: list[str] = field(default_factory=list)
    common: str = ""

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
    def folders(self) -> list[str]:
        """Patterns of the run folders that the numbers come from."""
        return patterns(self.groups)


@dataclass(frozen=True)
class OtherRuns:
    """Runs of one config that belong to no row.

    Attributes:
        differs: In what they differ from the recipe of their name, as far as known.
    """

    group: Group
    differs: str

    def of(self, column: str) -> str:
        """Return a column of the collected frame: recipe, profile, dataset, config_hash."""
        return str(self.group.runs[column].iloc[0])


@dataclass(frozen=True)
class Report:
    """Everything that `msdet report` shows, in no format yet.

    Attributes:
        published: The tables at full size on their rows' own data.
        in_contexts: Their rows as run under a profile, or on other data.
        variants: Runs of no row that differ from a recipe: a user's own ablations, a table for each recipe and context.
        other: What is left.
    """

    published: list[MeasuredTable]
    in_contexts: list[MeasuredTable]
    other: list[OtherRuns]
    problems: list[str]
    has_runs: bool
    variants: list[MeasuredTable] = field(default_factory=list)

    @property
    def by_name(self) -> dict[str, list[MeasuredTable]]:
        """Each table's name to its published form and its contexts; then the variants."""
        tables = [*self.published, *self.in_contexts, *self.variants]
        return {name: [t for t in tables if t.name == name] for name in dict.fromkeys(t.name for t in tables)}

    @property
    def groups(self) -> list[Group]:
        """Every group of runs in the report, once."""
        shown = [group for table in self.tables for group in table.groups]
        found = {tuple(group.runs["path"]): group for group in [*shown, *(runs.group for runs in self.other)]}
        return list(found.values())

    @property
    def tables(self) -> list[MeasuredTable]:
        """All tables in the order of a page."""
        return [table for forms in self.by_name.values() for table in forms]


def patterns(groups: Iterable[Group]) -> list[str]:
    """Return `results/runs/<recipe>/<hash>/seed*`, one for each config."""
    return list(dict.fromkeys((config / "seed*").as_posix() for group in groups for config in group.configs))


def describe_context(context: Context, contexts: Sequence[Context]) -> str:
    """Return `profile tiny on shapes` or `full size on coco`, with a digest if the name is ambiguous."""
    name = context.dataset.name
    if len({c.data for c in contexts if c.dataset.name == name}) > 1:
        name += f" (definition {context.digest})"
    return f"profile {context.profile} on {name}" if context.profile else f"full size on {name}"
