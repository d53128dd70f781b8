"""What stands behind a row's number, in the same words for every format: seeds, power, controls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from experiments.reporting.render.text import label
from experiments.reporting.stats.statistics import Difference, signed
from experiments.reporting.tables.report_model import MeasuredTable, TableRow
from experiments.reporting.tables.sections import Grid

if TYPE_CHECKING:
    from experiments.reporting.tables.controls import Control


MOST_PAIRS = 12  # whose differences are listed one by one


def controls_to_show(line: TableRow) -> list[Control]:
    """All controls beside a gain, run or not; beside anything else those that were run."""
    if line.difference is not None and line.difference.verdict == "gain":
        return list(line.controls)
    return [control for control in line.controls if control.spread is not None]


def controls_in_brief(line: TableRow) -> str:
    """`above 1 of 2 controls, 2 not run`, for a gain that needs controls; else empty."""
    if not line.controls or line.difference is None or line.difference.verdict != "gain":
        return ""
    run = [control for control in line.controls if control.spread is not None]
    if not run:
        return "its controls were not run"
    above = sum(control.difference is not None and control.difference.verdict == "gain" for control in run)
    absent = len(line.controls) - len(run)
    return f"above {above} of {len(run)} controls" + (f", {absent} not run" if absent else "")


def controls_in_words(controls: Sequence[Control]) -> str:
    """Each control with the row's difference to it, in sentences; empty without any."""
    there = [f"{c.name} {c.difference} ({c.difference.verdict})" for c in controls if c.difference]
    absent = [f"{c.name} ({c.note})" if c.note else c.name for c in controls if c.spread is None]
    texts = [f"Minus its controls: {'; '.join(there)}."] if there else []
    if absent:
        texts.append(
            f"{'Controls not run' if there else 'None of its controls was run'}: {'; '.join(absent)}."
        )
    return " ".join(texts)


def control_grid(table: MeasuredTable) -> Grid | None:
    """The controls of all rows of a table that have any."""
    rows = [
        [
            label(line),
            control.name,
            str(control.spread or (f"not run: {control.note}" if control.note else "not run")),
            str(control.difference or ""),
            control.difference.verdict if control.difference else "",
            " ".join(map(str, control.missing)),
        ]
        for line in table.lines
        for control in controls_to_show(line)
    ]
    metric = table.columns[0]
    header = ["Row", "Control", metric, "Row - control [95 %]", "Verdict", "Seeds missing"]
    return Grid(header, rows, 2, "Controls: the same seeds without what the rule learns") if rows else None


def control_commands(table: MeasuredTable) -> list[str]:
    """What to type for the controls that are missing."""
    commands = [command for line in table.lines for c in controls_to_show(line) for command in c.commands]
    return list(dict.fromkeys(commands))


def row_notes(table: MeasuredTable) -> list[tuple[str, str]]:
    """What stands behind each measured row, its label first; what holds for all of them is said once."""
    lines = [line for line in table.lines if line.group]
    ways = {line.group.execution for line in lines if line.group} - {""}
    shared = f"run as {ways.pop()}" if len(lines) > 1 and len(ways) == 1 else ""
    notes = [(label(line), "; ".join(text for text in evidence(line) if text != shared)) for line in lines]
    common = [("Unless said otherwise", shared)] if shared else []
    return common + [(name, text) for name, text in notes if text]


def evidence(line: TableRow, resampling: bool = True) -> list[str]:
    """What a reader must know of a measured row beside its number, in phrases.

    Args:
        resampling: Whether to give the bootstrap interval, too. The console does not: loading SciPy's statistics alone
            would take a third of its time.
    """
    texts = line.remark.split("; ") if line.remark else []
    return texts + differences_in_words(line, resampling)


def differences_in_words(line: TableRow, resampling: bool = True) -> list[str]:
    """The difference seed by seed, its bootstrap interval, and what it would have taken."""
    change, texts = line.difference, []
    if change is not None and change.paired:
        if len(change.pairs) <= MOST_PAIRS:
            texts.append(f"differences by seed: {', '.join(signed(pair) for pair in change.pairs)}")
        resampled = bootstrap(change) if resampling else None
        if resampled is not None:
            texts.append(f"bootstrap interval [{signed(resampled[0])}, {signed(resampled[1])}]")
    return texts + ([str(line.power)] if line.power else [])


@lru_cache(maxsize=4096)
def bootstrap(change: Difference) -> tuple[float, float] | None:
    """Its bootstrap interval; drawn once, however many tables and formats show it."""
    return change.bootstrap()
