"""Claims: each measured difference once, however many tables show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.reporting.stats.sequences import SequentialDifference
from experiments.reporting.stats.statistics import MIN_SEEDS, Difference, Verdict
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.row_evidence import choose_controls, describe_controls

AS_PUBLISHED = "full size, as published"
# The order in which claims are listed.
VERDICTS: tuple[Verdict, ...] = ("gain", "loss", "smaller than the effect", "within noise", "too few seeds")


@dataclass(frozen=True)
class Claim:
    """A difference to a baseline, once, however many tables show it.

    Attributes:
        baseline: The baseline row, named by rule and recipe; by its rule alone if the row's name has the recipe.
        tables: Those that show it, the first one first.
    """

    row: TableRow
    difference: Difference
    baseline: str
    tables: list[MeasuredTable]

    @property
    def verdict(self) -> Verdict:
        return self.difference.verdict

    @property
    def metric(self) -> str:
        return self.tables[0].columns[0]

    @property
    def how(self) -> str:
        """`paired, 3 seeds`; of a study, whose interval holds at every look, `study, 3 seeds`."""
        is_study = isinstance(self.difference, SequentialDifference)
        kind = "study" if is_study else "paired" if self.difference.paired else "not paired"
        return f"{kind}, {self.difference.n} seed{'' if self.difference.n == 1 else 's'}"

    @property
    def context(self) -> str:
        return self.tables[0].common or AS_PUBLISHED

    @property
    def text(self) -> str:
        """`retinanet-r50-rlo: AP +1.0 [+0.6, +1.4] against uniform; paired, 3 seeds`."""
        return f"{self.row.name}: {self.metric} {self.difference} against {self.baseline}; {self.how}"

    def __str__(self) -> str:
        where = ", ".join(table.short_title for table in self.tables)
        controls = describe_controls(choose_controls(self.row))
        return f"{self.text} ({where}; {self.context}). {controls}".strip()


def find_claims(tables: Sequence[MeasuredTable]) -> list[Claim]:
    """Return all measured differences: full size first, by verdict, then in the tables' order."""
    found: dict[object, Claim] = {}
    for table in tables:
        names = {row.definition.id: row.name for row in reversed(table.rows)}
        for row in table.rows:
            if row.difference is None or row.group is None:
                continue
            behind = row.baseline.folders if row.baseline else []
            key = (tuple(row.group.folders), tuple(behind), table.context)
            if key not in found:
                rule, _, recipe = (name := names[row.definition.baseline or ""]).partition(", ")
                is_said = bool(recipe) and (row.definition.recipe_name or "").startswith(recipe)
                found[key] = Claim(row, row.difference, rule if is_said else name, [])
            if table not in found[key].tables:
                found[key].tables.append(table)
    contexts = list(dict.fromkeys([AS_PUBLISHED, *(claim.context for claim in found.values())]))
    return sorted(
        found.values(), key=lambda claim: (contexts.index(claim.context), VERDICTS.index(claim.verdict))
    )


def count_verdicts(claims: Sequence[Claim]) -> str:
    """Return how many comparisons came out how, and how many chance alone would let stand out."""
    if not claims:
        return "No measured row has a measured baseline yet: nothing can be claimed."
    counted = Counter(claim.verdict for claim in claims)
    several = {"gain": "gains", "loss": "losses"}
    parts = ", ".join(
        f"{n} {verdict if n == 1 else several.get(verdict, verdict)}"
        for verdict in VERDICTS
        if (n := counted[verdict])
    )
    text = f"{len(claims)} {'row is' if len(claims) == 1 else 'rows are'} compared with a baseline: {parts}."
    judged = len(claims) - counted["too few seeds"]
    if judged > 1:
        text += (
            f" With {judged} intervals at 95 %, {0.05 * judged:.1f} would be expected to leave out 0 even if no"
            " row differed from its baseline. Verdicts are adjusted for that within each block (Holm)."
        )
    elif not judged:
        text += f" A verdict takes {MIN_SEEDS} seeds on each side: --seeds {MIN_SEEDS}."
    return text
