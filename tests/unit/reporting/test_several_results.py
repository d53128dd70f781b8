"""Results folders of several machines in one report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from experiments.recipes import loading as recipes
from experiments.reporting import build_report, collect
from experiments.reporting.tables.groups import group_runs
from experiments.reporting.tables.matching import Matcher
from experiments.runs.record import SCHEMA_VERSION
from experiments.runs.run_folder import RunFolder

from .conftest import MakeRun, in_contexts, published

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"


@pytest.fixture
def machines(make_run: MakeRun, results: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Machine a has seeds 0, 1 and 2 with 50, 51, 52 AP; machine b 2 and 3 with 62 and 53."""
    for seed in (0, 1, 2):
        make_run(RLO, seed, {"AP": 50.0 + seed}, profile="tiny")
    results.rename(tmp_path / "a")
    make_run(RLO, 2, {"AP": 62.0}, profile="tiny")
    make_run(RLO, 3, {"AP": 53.0}, profile="tiny")
    results.rename(tmp_path / "b")
    return tmp_path / "a", tmp_path / "b"


def test_a_seed_that_two_machines_have_is_shown_twice_and_averaged_with_none(machines: tuple[Path, Path]):
    a, b = machines
    groups = group_runs(collect(machines).runs)
    found = {tuple(sorted(g.by_seed("AP").items())): g.distinguishing_label for g in groups}
    name = f"runs/{RLO}/{RunFolder(groups[0].folders[0]).read().config_hash}"
    assert found == {
        ((0, 50.0), (1, 51.0), (3, 53.0)): "seeds without a copy",
        ((2, 52.0),): f"folder {a}/{name}",
        ((2, 62.0),): f"folder {b}/{name}",
    }


def test_machines_that_share_no_seed_are_averaged(machines: tuple[Path, Path]):
    shutil.rmtree(next(machines[1].glob("runs/*/*/seed2")))
    (group,) = group_runs(collect(machines).runs)
    assert (group.by_seed("AP"), group.distinguishing_label) == ({0: 50.0, 1: 51.0, 2: 52.0, 3: 53.0}, "")
    (table,) = [t for t in in_contexts(build_report(collect(machines))) if t.name == "table1"]
    assert len(table.folders) == 2
    assert all(str(machine) in " ".join(table.folders) for machine in machines)


def test_a_line_of_the_report_says_which_machine(machines: tuple[Path, Path]):
    (table,) = [t for t in in_contexts(build_report(collect(machines))) if t.name == "table1"]
    remarks = [line.remark for line in table.rows if line.group]
    assert len(remarks) == 3
    assert all(sum(str(machine) in remark for remark in remarks) == 1 for machine in machines)


def test_runs_say_where_they_are_from(machines: tuple[Path, Path]):
    a, b = machines
    runs = collect([a, b]).runs
    assert [run["results"] for run in runs] == [str(a)] * 3 + [str(b)] * 2


def test_a_folder_that_is_given_twice_counts_once(machines: tuple[Path, Path], tmp_path: Path):
    a, b = machines
    (tmp_path / "linked").symlink_to(a)
    (tmp_path / "c" / "runs").mkdir(parents=True)
    (tmp_path / "c" / "runs" / RLO).symlink_to(b / "runs" / RLO)
    for places in ([a, a], [a, tmp_path / "linked"], [a, tmp_path / "b" / ".." / "a"]):
        found = collect(places)
        assert sorted(run["seed"] for run in found.runs) == [0, 1, 2]
        assert found.problems == []
    assert len(collect([a, b, tmp_path / "c"]).runs) == 5
    assert len(collect(tmp_path / "c").runs) == 2


def test_one_folder_may_be_given_as_text_or_alone(machines: tuple[Path, Path]):
    a, _ = machines
    assert len(collect(str(a)).runs) == len(collect([a]).runs) == len(collect(a).runs) == 3


def test_mean_weights_take_seeds_of_several_machines(make_run: MakeRun, results: Path, tmp_path: Path):
    """A control with the mean weights of seeds 0 (on a) and 1 (on b) belongs to the row."""

    def rlo(seed: int, weight: float) -> None:
        run = make_run(RLO, seed, {"AP": 50.0})
        rows = "".join(f"1,100,bbox_head,P{level},{weight}\n" for level in range(3, 8))
        run.trace.write_text("interval,iteration,head,level,weight\n" + rows, encoding="utf-8")

    rlo(0, 1.0)
    results.rename(tmp_path / "a")
    rlo(1, 2.0)
    make_run(BASE, 0, {"AP": 47.0}, sets=("weighting.rule=static", f"weighting.weights={[1.5] * 5}"))
    make_run(BASE, 0, {"AP": 46.0}, sets=("weighting.rule=static", f"weighting.weights={[1.7] * 5}"))
    results.rename(tmp_path / "b")
    report = build_report(collect([tmp_path / "a", tmp_path / "b"]), ["controls"])
    (table,) = published(report)
    lines = {line.definition.id: line for line in table.rows}
    assert lines["static-level"].group.metrics["AP"].mean == 47.0
    (table,) = published(build_report(collect(tmp_path / "b"), ["controls"]))
    alone = {line.definition.id: line for line in table.rows}  # without seed 0, the runs of b give no mean
    assert alone["static-level"].group is None


def test_a_folder_that_may_not_be_looked_into_is_said(
    machines: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    closed = next(machines[0].glob("runs/*/*"))
    listed = os.listdir

    def refused(path: str):
        if path == str(closed):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "listdir", refused)
    found = collect(machines)
    assert sorted(run["seed"] for run in found.runs) == [2, 3]
    assert found.problems == [f"{closed} cannot be read: Permission denied."]


def test_only_failed_runs_or_only_newer_records_make_a_report(make_run: MakeRun, results: Path):
    failed = [make_run(RLO, seed, status="failed", ways=()) for seed in (0, 1)]
    report = build_report(collect(results))
    assert report.has_runs
    assert report.problems == []
    for run in failed:
        text = run.record_file.read_text(encoding="utf-8")
        run.record_file.write_text(
            text.replace(f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION + 1}'),
            encoding="utf-8",
        )
    report = build_report(collect(results))
    assert not report.has_runs
    assert len(report.problems) == 2
    assert all("schema" in text for text in report.problems)


def test_looking_aside_marks_nothing(make_run: MakeRun, results: Path):
    run = make_run(RLO, 0, {"AP": 50.0})
    make_run(BASE, 0, {"AP": 49.0})
    matcher = Matcher(collect(results))
    wanted = [recipes.load_recipe(RLO)]
    assert [one["path"] for one in matcher.runs_of(wanted)] == [str(run.path)]
    assert len(matcher.unmatched()) == 2
    assert [one["path"] for one in matcher.find(wanted)] == [str(run.path)]
    assert [one["recipe"] for one in matcher.unmatched()] == [BASE]
    assert matcher.recipe_by_id[run.read().recipe_id].weighting["rule"] == "rlo"
