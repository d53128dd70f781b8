"""A study as `msdet compare` runs it: rounds of seeds, a look after each, and what a look prints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rich.console import Console

from experiments.common.errors import UserError
from experiments.common.files import display_path
from experiments.launching.leases import ResourcePool
from experiments.launching.plan import PlannedRun
from experiments.recipes.loading import compute_recipe_id
from experiments.recipes.tables import Study, Table
from experiments.reporting.stats.sequences import SequentialDifference, add_sequence
from experiments.reporting.stats.statistics import adjust_by_holm, compute_difference
from msdet_cli.console.output import print_line
from msdet_cli.run_options import RunOptions


@dataclass
class StudyRun:
    """One recipe of a study against the baseline, as far as its runs have come.

    Attributes:
        own_id: The recipe's identity.
        planned: The runs of all rows of the table.
        console: A quiet one for JSON.
        looks: What each look found.
    """

    table: Table
    own_id: str
    planned: Sequence[PlannedRun]
    options: RunOptions
    console: Console
    looks: list[dict[str, Any]] = field(default_factory=list)
    is_settled: bool = False

    def __post_init__(self) -> None:
        ids = {
            row.id: compute_recipe_id(self.options.execution.changed(self.table.recipe_of(row)))
            for row in self.table.rows()
            if row.recipe is not None
        }
        runs_by_id: dict[str, list[PlannedRun]] = {}
        for run in self.planned:
            runs_by_id.setdefault(compute_recipe_id(run.recipe), []).append(run)
        self._runs = {row_id: runs_by_id.get(digest, []) for row_id, digest in ids.items()}
        self.row_id = next(row_id for row_id, digest in ids.items() if digest == self.own_id)

    @property
    def own(self) -> list[PlannedRun]:
        """The runs of the recipe and of its baseline, seed by seed."""
        baseline = self.table.row(self.row_id).baseline or ""
        return sorted([*self._runs[baseline], *self._runs[self.row_id]], key=lambda run: run.seed)

    def rounds(self) -> Iterator[list[PlannedRun]]:
        """Yield the runs to execute next, as many seeds as fill the machine, until the question is settled."""
        pool = ResourcePool(self.options.execution, self.options.local_gpus)
        self._look([])
        runs: list[PlannedRun] = []
        for _, pair in groupby(self.own, lambda run: run.seed):
            if self.is_settled:
                return
            left = [run for run in pair if run.todo != "skip"]
            lost = [run for run in left if run.todo in ("failed", "unreadable")]
            runs += lost or left  # the other side's run would be left out
            pending = [run for run in runs if run.todo not in ("failed", "unreadable")]
            if not self.options.dry_run and pending and len(pending) >= pool.places(pending[0].launch):
                yield runs
                self._look(runs)
                runs = []
        if runs:
            yield runs
            self._look([] if self.options.dry_run else runs)

    def _look(self, executed: Sequence[PlannedRun]) -> None:
        """Judge all pairs that are done; print a line for each that is new, and for each that could not be had."""
        values = {row_id: self._values(runs) for row_id, runs in self._runs.items()}
        mine = values[self.row_id]
        seeds = sorted(mine.keys() & values[self.table.row(self.row_id).baseline or ""].keys())
        for seed in sorted({run.seed for run in executed}.difference(seeds)):
            print_line(
                self.console, f"seed {seed} is left out on both sides: it has no result on one of them"
            )
        for count in range(len(self.looks) + 1, len(seeds) + 1):
            values[self.row_id] = {seed: mine[seed] for seed in seeds[:count]}
            change = self._judge(values)
            self.looks.append(
                {"seeds": seeds[:count], "difference": change.value, "low": change.low, "high": change.high,
                 "e_value": change.e_value, "p_value": change.p_value, "p_adjusted": change.p_adjusted,
                 "verdict": change.verdict}
            )  # fmt: skip
            self.is_settled = change.is_settled
            print_line(self.console, _describe(change, self.table.columns[0]))

    def _judge(self, values: dict[str, dict[int, float]]) -> SequentialDifference:
        """Return the recipe's difference, its p-value adjusted for the other recipes of the study."""
        study = self.table.study or Study(effect=1)
        changes = {}
        for row in self.table.rows():
            one, other = values.get(row.id, {}), values.get(row.baseline or "", {})
            both = one.keys() & other.keys()
            change = compute_difference({k: one[k] for k in both}, {k: other[k] for k in both})
            if change is not None:
                changes[row.id] = add_sequence(change, study.effect, study.scale)
        return adjust_by_holm(changes)[self.row_id]

    def _values(self, runs: Sequence[PlannedRun]) -> dict[int, float]:
        """Return the metric of finished runs by seed."""
        found, metric = {}, self.table.columns[0]
        for run in runs:
            with contextlib.suppress(UserError):  # not begun, or damaged
                record = run.folder.read()
                if record.status == "done" and metric in record.metrics:
                    found[run.seed] = record.metrics[metric]
        return found

    def content(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the study for JSON."""
        design = self.table.study.model_dump() if self.table.study else {}
        return {"study": display_path(self.table.path), **design, "row": self.row_id,
                "is_settled": self.is_settled, "looks": self.looks, "runs": runs}  # fmt: skip


def _describe(change: SequentialDifference, metric: str) -> str:
    """Return `12 seeds: AP +0.8 [+0.1, +1.5], e-value 31, p 0.032: gain`, or what would settle it."""
    text = f"{change.n} seed{'s' * (change.n > 1)}: {metric} {change}"
    text += ", no interval yet" if change.low is None else ""
    text += f", e-value {change.e_value:.3g}, p {change.p_value:.2g}"
    if change.family > 1:
        text += f", {change.p_adjusted:.2g} over {change.family} recipes (Holm)"
    if change.is_settled:
        return f"{text}: {change.verdict}"
    found = change.seeds_to_settle()
    if found is not None:
        return f"{text}; with this mean and spread: {found[1]} at {found[0]} seeds"
    return text + ("; with this mean and spread: not within 1000 seeds" if change.n > 2 else "")
