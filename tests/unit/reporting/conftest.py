"""Results folders made of records alone: what a report reads, without any training."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.reporting.tables.report_model import MeasuredTable, Report, TableRow
from experiments.runs.record import Attempt, Record
from experiments.runs.run_folder import RunFolder

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def make_run(results: Path) -> MakeRun:
    return run_maker(results)


def run_maker(results: Path) -> MakeRun:
    """Writes one run folder as the launcher and the worker would leave it."""

    def make(
        recipe: str | Recipe,
        seed: int = 0,
        metrics: dict[str, float] | None = None,
        status: str = "done",
        profile: str | None = None,
        sets: tuple[str, ...] = (),
        fingerprint: str = "f" * 16,
        ways: tuple[tuple[int, int, int], ...] = ((1, 8, 1),),
        name: str | None = None,
        commit: str = "c0ffee",
        **more: Any,
    ) -> RunFolder:
        made = recipes.load_recipe(recipe, profile, sets) if isinstance(recipe, str) else recipe
        digest = recipes.compute_config_hash(made, fingerprint)
        run = RunFolder.of(results, name or made.name, digest, seed)
        run.path.mkdir(parents=True)
        run.recipe.write_text(recipes.dump(made), encoding="utf-8")
        attempts = [
            Attempt(
                started="2026-01-01T10:00:00+00:00",
                ended="2026-01-01T10:01:30+00:00",
                host=socket.gethostname(),
                pid=2**22 + 1,  # above the kernel's largest: never alive
                world_size=world,
                micro_batch=micro,
                accumulation=accumulation,
            )
            for world, micro, accumulation in ways
        ]
        record = Record(
            recipe=name or made.name,
            recipe_id=recipes.compute_recipe_id(made),
            config_hash=digest,
            seed=seed,
            profile=made.profile,
            status=status,
            metrics=metrics or {},
            iterations=400,
            timings={"total_s": 90.0} if status == "done" else {},
            attempts=attempts,
            dataset={"name": made.dataset.name, "fingerprint": fingerprint},
            git={"commit": commit, "dirty": False},
            created="2026-01-01T09:59:00+00:00",
            **more,
        )
        run.write(record)
        return run

    return make


def published(report: Report) -> list[MeasuredTable]:
    """The tables at full size on their rows' own data."""
    return [table for table in report.tables if table.context is None and not table.has_differs]


def in_contexts(report: Report) -> list[MeasuredTable]:
    return [table for table in report.tables if table.context is not None and not table.has_differs]


def others(report: Report) -> list[TableRow]:
    """The rows of runs that belong to no table, without those that they are compared with."""
    rows = [row for table in report.tables if table.has_differs for row in table.rows]
    return [row for row in rows if not row.definition.reference]
