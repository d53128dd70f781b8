"""The evidence for a row's number, in the same words for every format: seeds, power, controls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from experiments.reporting.stats.sequences import SequentialDifference, add_sequence
from experiments.reporting.stats.statistics import Difference, format_signed
from experiments.reporting.tables.controls import Control
from experiments.reporting.tables.report_model import MeasuredTable, TableRow

MAX_PAIRS = 12  # whose differences are listed one by one

draw_bootstrap = lru_cache(maxsize=4096)(Difference.bootstrap)  # once for all tables and formats


def choose_controls(row: TableRow) -> list[Control]:
    """Return all controls beside a gain; beside anything else those that were run."""
    if row.difference is not None and row.difference.verdict == "gain":
        return list(row.controls)
    return [control for control in row.controls if control.spread is not None]


def summarize_controls(row: TableRow) -> str:
    """Return `above 1 of 2 controls, 2 not run` for a gain that needs controls; else empty."""
    if not row.controls or row.difference is None or row.difference.verdict != "gain":
        return ""
    run = [control for control in row.controls if control.spread is not None]
    if not run:
        return "its controls were not run"
    above = sum(control.difference is not None and control.difference.verdict == "gain" for control in run)
    absent = len(row.controls) - len(run)
    return f"above {above} of {len(run)} controls" + (f", {absent} not run" if absent else "")


def describe_controls(controls: Sequence[Control]) -> str:
    """Return each control with the row's difference to it, in sentences; empty without any."""
    there = [f"{c.name} {c.difference} ({c.difference.verdict})" for c in controls if c.difference]
    absent = [f"{c.name} ({c.note})" if c.note else c.name for c in controls if c.spread is None]
    texts = [f"Minus its controls: {'; '.join(there)}."] if there else []
    if absent:
        what = "Controls not run" if there else "None of its controls was run"
        texts.append(f"{what}: {'; '.join(absent)}.")
    return " ".join(texts)


def list_control_commands(table: MeasuredTable) -> list[str]:
    """Return the commands that run the missing controls."""
    commands = [command for row in table.rows for c in choose_controls(row) for command in c.commands]
    return list(dict.fromkeys(commands))


def list_row_notes(table: MeasuredTable, has_resampling: bool = True) -> list[tuple[str, str]]:
    """Return the evidence of each measured row after its label; what all share comes once.

    Args:
        has_resampling: Whether to give the bootstrap interval, too. The console does not: loading SciPy's statistics
            alone would take a third of its time.
    """
    rows = [row for row in table.rows if row.group]
    ways = {group.execution for group in table.groups} - {""}
    shared = f"run as {ways.pop()}" if len(rows) > 1 and len(ways) == 1 else ""
    notes = [("Unless said otherwise", shared)] if shared else []
    for row in rows:
        texts = [*(row.remark.split("; ") if row.remark else []), *_describe_difference(row, has_resampling)]
        told = "; ".join(text for text in texts if text != shared)
        notes += [(row.full_label, told)] if told else []
    return notes


def find_anytime_valid(row: TableRow) -> SequentialDifference | None:
    """Return the difference of a study, and that of seeds that were added after a first look; else None."""
    change = row.difference
    if change is None or isinstance(change, SequentialDifference):
        return change
    return add_sequence(change) if change.paired and _has_added_seeds(row) else None


def _has_added_seeds(row: TableRow) -> bool:
    """Return whether the difference has seeds that were planned after a first look at others."""
    groups = [group for group in (row.group, row.baseline) if group is not None]
    done = [{run["seed"] for run in group.runs if run["state"] == "done"} for group in groups]
    is_paired = row.difference is not None and row.difference.paired
    # a baseline may have more than the row
    counted = set.intersection(*done) if is_paired else set().union(*done)
    return any(counted.intersection(group.seeds_added_later()) for group in groups)


def _describe_judgement(row: TableRow) -> list[str]:
    """Return how an anytime-valid interval differs from the t interval, and what Holm's adjustment changes."""
    change, anytime, texts = row.difference, find_anytime_valid(row), []
    if anytime is not None:
        evidence = f"e-value {anytime.e_value:.3g}, p {anytime.p_value:.2g}"
        if anytime is change:
            holds = "no interval yet" if change.low is None else "the interval holds at every look"
            texts.append(f"study: {holds}, {evidence}")
        else:
            ends = str(anytime).partition(" ")[2] or "unbounded"
            texts.append(f"seeds were added after a first look: anytime-valid interval {ends}, {evidence}")
    elif change is not None and change.low is not None and _has_added_seeds(row):
        texts.append("seeds were added after a first look, which this interval does not allow for")
    if change is not None and (change.p_value or 0) < 0.05 <= (change.p_adjusted or 0):
        texts.append(f"p {change.p_value:.2g}, over {change.family} rows {change.p_adjusted:.2g} (Holm)")
    return texts


def _describe_difference(row: TableRow, has_resampling: bool) -> list[str]:
    """Return the difference's judgement, the difference by seed, its bootstrap interval, and its power."""
    change, texts = row.difference, _describe_judgement(row)
    if change is not None and change.paired:
        if len(change.pairs) <= MAX_PAIRS:
            texts.append(f"differences by seed: {', '.join(format_signed(pair) for pair in change.pairs)}")
        if has_resampling and (ends := draw_bootstrap(change)):
            texts.append(f"bootstrap interval [{format_signed(ends[0])}, {format_signed(ends[1])}]")
    return texts + ([str(row.power)] if row.power else [])
