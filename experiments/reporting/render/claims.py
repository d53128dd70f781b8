"""Claims: each measured difference once, however many tables show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.reporting.render.text import short_title
from experiments.reporting.stats.statistics import Difference, Verdict
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.row_evidence import controls_in_words, controls_to_show

AS_PUBLISHED = "full size, as published"
# The order in which claims are listed.
VERDICTS: tuple[Verdict, ...] = ("gain", "loss", "within noise", "too few seeds")


@dataclass(frozen=True)
class Claim:
    """A difference to a baseline, once, however many tables show it.

    Attributes:
        baseline: The baseline row's label.
        tables: Those that show it, the first one first.
    """

    row: TableRow
    difference: Difference
    baseline: str
    tables: list[MeasuredTable]

    @property
    def metric(self) -> str:
        return self.tables[0].columns[0]

    @property
    def name(self) -> str:
        return self.row.label

    @property
    def how(self) -> str:
        """`paired, 3 seeds`."""
        seeds = f"{self.difference.n} seed{'' if self.difference.n == 1 else 's'}"
        return f"paired, {seeds}" if self.difference.paired else f"not paired, {seeds}"

    @property
    def context(self) -> str:
        return self.tables[0].common or AS_PUBLISHED

    def __str__(self) -> str:
        where = ", ".join(short_title(table) for table in self.tables)
        text = (
            f"{self.name} ({where}; {self.context}): {self.metric} {self.difference} against {self.baseline}"
        )
        return f"{text}, {self.how}. {controls_in_words(controls_to_show(self.row))}".strip()


def claims(tables: Sequence[MeasuredTable]) -> list[Claim]:
    """Return all measured differences: full size first, by verdict, then in the tables' order."""
    found: dict[object, Claim] = {}
    for table in tables:
        for row in table.rows:
            if row.difference is None or row.group is None:
                continue
            behind = row.baseline.folders if row.baseline else []
            key = (tuple(row.group.folders), tuple(behind), table.context)
            if key not in found:
                name = next(
                    other.label for other in table.rows if other.definition.id == row.definition.baseline
                )
                found[key] = Claim(row, row.difference, name, [])
            if table not in found[key].tables:
                found[key].tables.append(table)
    contexts = list(dict.fromkeys(claim.context for claim in found.values()))
    contexts.sort(key=lambda context: context != AS_PUBLISHED)
    return sorted(
        found.values(), key=lambda c: (contexts.index(c.context), VERDICTS.index(c.difference.verdict))
    )


def balance(made: Sequence[Claim]) -> str:
    """Return how many comparisons came out how, and how many chance alone would let stand out."""
    if not made:
        return "No measured row has a measured baseline yet: nothing can be claimed."
    counted = Counter(claim.difference.verdict for claim in made)
    several = {"gain": "gains", "loss": "losses"}
    parts = ", ".join(
        f"{n} {verdict if n == 1 else several.get(verdict, verdict)}"
        for verdict in VERDICTS
        if (n := counted[verdict])
    )
    text = f"{len(made)} {'row is' if len(made) == 1 else 'rows are'} compared with a baseline: {parts}."
    judged = len(made) - counted["too few seeds"]
    if judged > 1:
        text += (
            f" With {judged} intervals at 95 %, {0.05 * judged:.1f} would be expected to leave out 0 even if no"
            " row differed from its baseline."
        )
    return text
