"""A user's own ablations as tables: which rows they have, in which order, and against what."""

from __future__ import annotations

from pathlib import Path

from experiments.reporting import build_report, collect
from experiments.reporting.tables.report_model import MeasuredTable, Report

from .conftest import MakeRun

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"


def report(results: Path) -> Report:
    return build_report(collect(results))


def shown(table: MeasuredTable) -> list[tuple[str, list[str]]]:
    return [(title, [line.definition.label for line in lines]) for title, lines in table.blocks]


def test_one_key_varied_around_the_recipe(make_run: MakeRun, results: Path):
    for seed in (0, 1):
        make_run(BASE, seed, {"AP": 50.0 + seed}, profile="tiny")
        make_run(RLO, seed, {"AP": 51.0 + seed}, profile="tiny")
        for gamma, ap in ((0.2, 52.0), (0.005, 49.0)):
            make_run(RLO, seed, {"AP": ap + seed}, profile="tiny", sets=(f"weighting.gamma={gamma}",))
    made = report(results)
    (table,) = made.variants
    assert made.other == []
    assert table.title == f"Variants of {RLO}, profile tiny on shapes"
    labels = ["uniform (baseline)", "gamma=0.005", "gamma=0.01 (as it stands)", "gamma=0.2"]
    assert shown(table) == [("gamma", labels)]
    changes = [line.difference and line.difference.value for line in table.rows]
    assert changes == [None, -1.0, 1.0, 2.0]
    assert [line.ranks.get("AP") for line in table.rows] == [None, None, 2, 1]  # the baseline is a reference


def test_without_a_baseline_variants_are_compared_with_the_recipe(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 51.0}, profile="tiny")
    make_run(RLO, 0, {"AP": 52.0}, profile="tiny", sets=("weighting.gamma=0.2", "weighting.n=3"))
    (table,) = report(results).variants
    assert shown(table) == [("n, gamma", ["n=2, gamma=0.01 (as it stands)", "n=3, gamma=0.2"])]
    assert [line.difference and line.difference.value for line in table.rows] == [None, 1.0]


def test_a_variant_is_compared_with_uniform_weights_that_are_otherwise_the_same(
    make_run: MakeRun, results: Path
):
    slow = ("schedule.lr=0.001",)
    make_run(BASE, 0, {"AP": 50.0}, profile="tiny")
    make_run(RLO, 0, {"AP": 51.0}, profile="tiny")
    make_run(BASE, 0, {"AP": 40.0}, profile="tiny", sets=slow)
    make_run(RLO, 0, {"AP": 44.0}, profile="tiny", sets=slow)
    of_base, of_rlo = report(results).variants
    assert shown(of_base) == [
        ("schedule.lr", ["schedule.lr=0.001", "schedule.lr=0.004 (as it stands)"]),
    ]
    changes = {line.definition.label: line.difference and line.difference.value for line in of_rlo.rows}
    assert changes == {
        "uniform, schedule.lr=0.001": None,
        "schedule.lr=0.001": 4.0,
        "uniform (baseline)": None,
        "schedule.lr=0.004 (as it stands)": 1.0,
    }


def test_a_shorter_training_of_another_weighting_is_compared_with_nothing(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 51.0}, profile="tiny")
    for gamma in (0.1, 0.2):
        sets = (f"weighting.gamma={gamma}", "schedule.iterations=60")
        make_run(RLO, 0, {"AP": 10.0}, profile="tiny", sets=sets)
    (table,) = report(results).variants
    assert [line.difference for line in table.rows] == [
        None,
        None,
        None,
    ]  # 41 points would be the schedule's


def test_shipped_recipes_of_no_table_stand_beside_their_baseline(make_run: MakeRun, results: Path):
    make_run("atss-r50", 0, {"AP": 50.0}, profile="tiny")
    make_run("atss-r50-rlo", 0, {"AP": 51.0}, profile="tiny")
    made = report(results)
    (table,) = made.variants
    assert shown(table) == [("", ["uniform (baseline)", "as it stands"])]
    assert made.other == []


def test_a_lone_config_stays_among_the_other_runs(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny", sets=("weighting.gamma=0.2",))
    made = report(results)
    assert made.variants == []
    assert [runs.differs for runs in made.other] == ["weighting.gamma: 0.2 (0.01)"]


def test_contexts_are_kept_apart_and_named_tables_have_no_variants(make_run: MakeRun, results: Path):
    for profile in (None, "tiny"):
        for gamma in (0.1, 0.2):
            make_run(RLO, 0, {"AP": 50.0}, profile=profile, sets=(f"weighting.gamma={gamma}",))
    titles = [table.title for table in report(results).variants]
    assert titles == [f"Variants of {RLO}, full size on coco", f"Variants of {RLO}, profile tiny on shapes"]
    assert build_report(collect(results), ["table1"]).variants == []
