"""What is collected from run folders, and which runs are averaged."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from experiments.reporting.collect import (
    collect,
    collect_folders,
    describe_execution,
    list_metrics,
    split_by,
)
from experiments.reporting.tables.building import build_run_tables
from experiments.reporting.tables.groups import Group, compare_groups, group_runs, select_baseline
from experiments.reporting.tables.report_model import MeasuredTable
from experiments.runs.record import SCHEMA_VERSION, Attempt
from experiments.runs.run_folder import RunFolder

from .conftest import MakeRun

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"


def against(group: Group, baselines: list[Group]):
    base = select_baseline(group, baselines, "AP")
    return base and compare_groups(group, base, "AP")


def tiny(make_run: MakeRun, recipe: str, *aps: float, **more: object) -> list:
    return [make_run(recipe, seed, {"AP": ap}, profile="tiny", **more) for seed, ap in enumerate(aps)]


def test_one_row_a_run_with_what_its_record_says(make_run: MakeRun, results: Path):
    run = make_run(RLO, 3, {"AP": 50.5, "AP50": 70.25}, profile="tiny", ways=((4, 2, 1), (1, 4, 2)))
    make_run(BASE, 0, status="failed")
    found = collect(results)
    assert found.problems == []
    assert list_metrics(found.runs) == ["AP", "AP50"]
    assert len(found.runs) == 2
    failed, row = found.runs
    record = run.read()
    assert (row["recipe_id"], row["config_hash"]) == (record.recipe_id, record.config_hash)
    assert (row["seed"], row["profile"], row["dataset"], row["state"]) == (3, "tiny", "shapes", "done")
    assert (row["metrics"], row["seconds"], row["iterations"]) == ({"AP": 50.5, "AP50": 70.25}, 90.0, 400)
    assert row["execution"] == "4 x 2, then 1 x 4 x 2"
    assert Path(row["path"]) == run.path
    assert (failed["recipe"], failed["state"], failed["profile"]) == (BASE, "failed", "")
    assert failed["metrics"] == {}
    assert math.isnan(failed["seconds"])


def test_an_empty_folder_has_no_rows(results: Path):
    found = collect(results)
    assert len(found.runs) == 0
    assert found.problems == list_metrics(found.runs) == []


def test_a_broken_record_is_a_sentence_and_hides_no_other(make_run: MakeRun, results: Path):
    tiny(make_run, BASE, 50.0)
    broken, newer = make_run(RLO, 0, {"AP": 1.0}), make_run(RLO, 1, {"AP": 1.0})
    broken.record_file.write_text("{", encoding="utf-8")
    text = newer.record_file.read_text(encoding="utf-8")
    newer.record_file.write_text(
        text.replace(f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION + 1}'),
        encoding="utf-8",
    )
    found = collect(results)
    assert [run["metrics"]["AP"] for run in found.runs] == [50.0]
    assert len(found.problems) == 2
    assert str(broken.record_file) in found.problems[0]
    assert "schema" in found.problems[1]


def test_only_finished_runs_have_metrics_and_minus_one_is_none(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 50.0, "APL": -1.0})
    make_run(BASE, 1, {"AP": 99.0}, status="failed")
    make_run(BASE, 2, {"AP": 99.0}, status="running")  # its process is long gone
    runs = collect(results).runs
    assert [run["state"] for run in runs] == ["done", "failed", "interrupted"]
    assert [run["metrics"] for run in runs] == [{"AP": 50.0}, {}, {}]
    assert list_metrics(collect(results).runs) == ["AP"]


def test_execution_of_a_run_that_never_loaded_data_is_unknown():
    attempt = Attempt(started="", host="", pid=1)
    assert describe_execution([attempt]) == ""
    same = attempt.model_copy(update={"micro_batch": 2})
    assert describe_execution([attempt, same, same]) == "1 x 2"


def test_a_failed_run_in_the_middle_is_counted_not_averaged(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0})
    make_run(RLO, 1, status="failed", ways=())
    make_run(RLO, 2, {"AP": 52.0})
    (group,) = group_runs(collect(results).runs)
    assert group.states == {"done": 2, "failed": 1}
    assert group.remark() == "2 done, 1 failed; run as 1 x 8"
    assert (group.metrics["AP"].mean, group.metrics["AP"].n) == (51.0, 2)
    assert [folder.name for folder in group.folders] == ["seed0", "seed1", "seed2"]


@pytest.mark.parametrize(
    ("other", "mark"),
    [({"ways": ((4, 2, 1),)}, "run as 4 x 2"), ({"fingerprint": "0123456789abcdef"}, "data 0123456789ab")],
)
def test_other_data_or_execution_is_never_averaged(make_run: MakeRun, results: Path, other: dict, mark: str):
    make_run(RLO, 0, {"AP": 50.0})
    make_run(RLO, 1, {"AP": 52.0}, **other)
    groups = group_runs(collect(results).runs)
    assert sorted(g.metrics["AP"].mean for g in groups) == [50.0, 52.0]
    assert all(g.metrics["AP"].n == 1 for g in groups)
    assert mark in next(g.distinguishing_label for g in groups if g.metrics["AP"].mean == 52.0)


def test_a_copy_of_a_seed_is_shown_beside_it(make_run: MakeRun, results: Path):
    one, two = tiny(make_run, RLO, 50.0, 52.0)
    make_run(RLO, 0, {"AP": 60.0}, profile="tiny", name="a-copy")
    shutil.copytree(two.path, two.path.with_name("seed1-copy"))
    groups = group_runs(collect(results).runs)
    assert sorted((g.metrics["AP"].mean, g.metrics["AP"].n) for g in groups) == [
        (51.0, 2),
        (52.0, 1),
        (60.0, 1),
    ]
    assert len({g.distinguishing_label for g in groups}) == 3
    assert one.path.parent.as_posix() in next(
        g.distinguishing_label for g in groups if g.metrics["AP"].n == 2
    )


def test_seeds_of_one_recipe_under_two_names_belong_together(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0})
    make_run(RLO, 1, {"AP": 52.0}, name="the-same")
    (group,) = group_runs(collect(results).runs)
    assert (group.metrics["AP"].mean, group.distinguishing_label) == (51.0, "")


def test_a_baseline_on_other_data_is_no_baseline(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 50.0}, fingerprint="other")
    make_run(RLO, 0, {"AP": 52.0})
    runs = collect(results).runs
    base, rlo = map(group_runs, split_by(runs, lambda run: run["recipe"]))
    assert against(rlo[0], base) is None


def test_a_baseline_executed_alike_is_preferred_and_another_is_named(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 50.0}, ways=((4, 2, 1),))
    make_run(BASE, 1, {"AP": 51.0})
    make_run(RLO, 0, {"AP": 52.0})
    runs = collect(results).runs
    base, (rlo,) = map(group_runs, split_by(runs, lambda run: run["recipe"]))
    change, remark = against(rlo, base)
    assert (change.value, remark) == (1.0, "")
    change, remark = against(rlo, [g for g in base if g.execution == "4 x 2"])
    assert (change.value, remark) == (2.0, "baseline run as 4 x 2")


def test_imported_runs_are_not_paired(make_run: MakeRun, results: Path):
    for seed, (base, rlo) in enumerate(((50.0, 52.0), (51.0, 53.5), (52.0, 53.0))):
        make_run(BASE, seed, {"AP": base}, imported={"from": "a work folder"})
        make_run(RLO, seed, {"AP": rlo})
    runs = collect(results).runs
    (base,), (rlo,) = map(group_runs, split_by(runs, lambda run: run["recipe"]))
    change, remark = against(rlo, [base])
    assert (change.paired, remark) == (False, "baseline imported")  # another shuffle under the same number
    assert change.value == pytest.approx(158.5 / 3 - 51.0)


def compared(runs: list[RunFolder]) -> MeasuredTable:
    (table,) = build_run_tables(collect_folders(runs))
    return table


def test_given_runs_are_compared_with_the_first(make_run: MakeRun):
    base, rlo = tiny(make_run, BASE, 50.0, 51.0), tiny(make_run, RLO, 52.0, 53.0, 54.0)
    rlo.insert(1, make_run(RLO, 7, status="failed", profile="tiny"))
    table = compared([*base, *rlo])
    assert (table.columns, table.title) == (["AP"], "Comparison, profile tiny on shapes")
    first, second = table.rows
    assert (first.label, first.group.metrics["AP"].mean, first.group.metrics["AP"].n) == (BASE, 50.5, 2)
    assert first.difference is None
    assert second.group.states == {"done": 3, "failed": 1}
    assert (second.label, second.group.metrics["AP"].mean, second.group.metrics["AP"].sd) == (RLO, 53.0, 1.0)
    assert second.difference.pairs == (2.0, 2.0)  # seed 2 has no baseline
    assert "Δ over the 2 seeds that both have" in second.remark


def test_given_runs_say_in_what_they_differ_and_never_share_a_mean(make_run: MakeRun):
    runs = [
        *tiny(make_run, RLO, 50.0),
        make_run(RLO, 0, {"AP": 52.0}, profile="tiny", sets=("weighting.n=3",)),
    ]
    assert [(row.differs, row.group.metrics["AP"].mean) for row in compared(runs).rows] == [
        ("", 50.0),
        ("weighting.n: 3 (2)", 52.0),
    ]


def test_given_runs_of_which_none_has_finished_or_started(make_run: MakeRun):
    (row,) = compared([make_run(BASE, 0, status="failed")]).rows
    assert (row.group.metrics, row.group.states) == ({}, {"failed": 1})
    assert build_run_tables(collect_folders([])) == []


def test_runs_on_different_data_stand_in_different_tables(make_run: MakeRun):
    runs = [make_run("retinanet-r50-voc", 0, {"mAP": 76.0}), make_run(RLO, 0, {"AP": 50.0}, profile="tiny")]
    assert [table.columns for table in build_run_tables(collect_folders(runs))] == [["mAP"], ["AP"]]
