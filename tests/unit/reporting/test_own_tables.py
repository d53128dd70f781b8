"""A user's own tables with a shared profile, data set or keys, and the runs that belong to no table."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from experiments.common.errors import UserError
from experiments.reporting import build_report, collect
from experiments.reporting.render.claims import find_claims
from experiments.reporting.tables.report_model import MeasuredTable, Report

from .conftest import MakeRun, others

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"
SHORT = ("schedule.iterations=30",)


def report(results: Path, *names: str) -> Report:
    return build_report(collect(results), names)


def other_tables(results: Path) -> list[MeasuredTable]:
    return [table for table in report(results).tables if table.has_differs]


def differences(table: MeasuredTable) -> dict[str, float | None]:
    return {row.full_label: row.difference and row.difference.value for row in table.rows}


@pytest.fixture
def ablation(results: Path) -> Path:
    """Two values beside the recipe's own and the baseline, all with shared keys and profile."""
    rows = [
        {
            "id": "uniform",
            "label": "uniform",
            "recipe": RLO,
            "set": {"weighting.rule": "uniform"},
            "baseline": "own",
        },
        {"id": "alpha-5", "label": "α = 5", "recipe": RLO, "set": {"weighting.alpha": 5}, "baseline": "own"},
        {"id": "own", "label": "α = 10", "recipe": RLO, "own": True},
        {
            "id": "alpha-20",
            "label": "α = 20",
            "recipe": RLO,
            "set": {"weighting.alpha": 20},
            "baseline": "own",
        },
    ]
    content = {
        "name": "by-alpha",
        "title": f"{RLO} by alpha, profile tiny, schedule.iterations=30",
        "columns": ["AP", "AP50"],
        "profile": "tiny",
        "set": {"schedule.iterations": 30},
        "blocks": [{"rows": rows}],
    }
    path = results / "ablations" / "by-alpha.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def run_ablation(make_run: MakeRun, seeds: int = 1) -> None:
    for seed in range(seeds):
        for sets, ap in (
            ((), 51.0),
            (("weighting.alpha=5",), 53.0),
            (("weighting.alpha=20",), 50.0),
            (("weighting.rule=uniform",), 49.5),
        ):
            make_run(RLO, seed, {"AP": ap + seed, "AP50": 60.0}, profile="tiny", sets=(*SHORT, *sets))


def test_an_ablation_is_one_table_as_it_was_run_and_comes_first(
    make_run: MakeRun, results: Path, ablation: Path
):
    run_ablation(make_run)
    make_run(BASE, 0, {"AP": 50.0}, profile="tiny")
    made = report(results)
    assert [table.name for table in made.measured] == ["by-alpha", "table1"]
    table = made.tables[0]
    assert (table.title, table.common) == (
        f"{RLO} by alpha, profile tiny, schedule.iterations=30",
        "profile tiny on shapes",
    )
    assert differences(table) == {"uniform": -1.5, "α = 5": 2.0, "α = 10 (recipe)": None, "α = 20": -1.0}
    assert "Δ AP: to the recipe as it stands, α = 10 (recipe)." in table.notes
    assert others(made) == []


def test_claims_name_rows_by_rule_and_recipe(make_run: MakeRun, results: Path, ablation: Path):
    run_ablation(make_run, seeds=3)
    texts = [claim.text for claim in find_claims(report(results).tables)]
    assert texts == [
        f"{RLO} (α = 5): AP +2.0 [+2.0, +2.0] against {RLO}; paired, 3 seeds",
        f"uniform, {RLO}: AP -1.5 [-1.5, -1.5] against {RLO}; paired, 3 seeds",
        f"{RLO} (α = 20): AP -1.0 [-1.0, -1.0] against {RLO}; paired, 3 seeds",
    ]


def test_an_ablation_is_found_by_name_and_by_path_and_stays_without_runs(results: Path, ablation: Path):
    for name in ("by-alpha", str(ablation)):
        (table,) = report(results, name).tables
        assert not table.is_measured
        assert [row.remark for row in table.rows] == ["no runs"] * 4
    assert report(results).tables[0].name == "by-alpha"


def test_a_broken_ablation_is_a_problem_unless_it_is_asked_for(results: Path, ablation: Path):
    ablation.write_text("name: by-alpha\n", encoding="utf-8")
    (problem,) = report(results).problems
    assert "by-alpha.yaml" in problem
    with pytest.raises(UserError, match=r"by-alpha\.yaml"):
        report(results, "by-alpha")


@pytest.mark.parametrize(("against", "expected"), [("baseline", 3.5), ("alpha-20", 3.0), ("α = 20", 3.0)])
def test_an_ablation_against_another_row(
    make_run: MakeRun, results: Path, ablation: Path, against: str, expected: float
):
    run_ablation(make_run)
    (table,) = build_report(collect(results), ["by-alpha"], against=against).tables
    assert differences(table)["α = 5"] == expected


def test_variants_of_no_table_are_compared_with_uniform_weights_that_are_otherwise_the_same(
    make_run: MakeRun, results: Path
):
    slow = ("schedule.lr=0.001",)
    make_run(BASE, 0, {"AP": 50.0}, profile="tiny")
    make_run(BASE, 0, {"AP": 40.0}, profile="tiny", sets=slow)
    make_run(RLO, 0, {"AP": 44.0}, profile="tiny", sets=slow)
    for gamma, ap in ((0.2, 52.0), (0.005, 49.0), (0.03, 51.0)):
        make_run(RLO, 0, {"AP": ap}, profile="tiny", sets=(f"weighting.gamma={gamma}",))
    (table,) = other_tables(results)
    changes = [(row.full_label, row.difference.value) for row in table.rows if row.difference]
    assert changes == [
        (f"{BASE} (schedule.lr: 0.001 (0.004))", -10.0),
        (f"{RLO} (schedule.lr: 0.001 (0.004))", 4.0),
        (f"{RLO} (weighting.gamma: 0.005 (0.01))", -1.0),
        (f"{RLO} (weighting.gamma: 0.03 (0.01))", 1.0),
        (f"{RLO} (weighting.gamma: 0.2 (0.01))", 2.0),
    ]
    assert [row.definition.reference for row in table.blocks[0][1]] == [True, False]


def test_without_uniform_runs_variants_are_compared_with_the_recipe_where_that_says_something(
    make_run: MakeRun, results: Path
):
    make_run(RLO, 0, {"AP": 51.0}, profile="tiny")
    make_run(RLO, 0, {"AP": 52.0}, profile="tiny", sets=("weighting.gamma=0.2", "weighting.n=3"))
    make_run(RLO, 0, {"AP": 10.0}, profile="tiny", sets=("weighting.gamma=0.2", *SHORT))
    (table,) = other_tables(results)
    assert list(differences(table).values()) == [None, None, 1.0]  # 41 points would be the schedule's


def test_a_lone_variant_and_recipes_of_no_table_are_shown(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny", sets=("weighting.gamma=0.2",))
    make_run("atss-r50", 0, {"AP": 50.0}, profile="tiny")
    make_run("atss-r50-rlo", 0, {"AP": 51.0}, profile="tiny")
    (table,) = other_tables(results)
    assert differences(table) == {
        "atss-r50": None,
        "atss-r50-rlo": 1.0,
        f"{RLO} (weighting.gamma: 0.2 (0.01))": None,
    }


def test_voc_never_shares_a_column_with_coco(make_run: MakeRun, results: Path):
    make_run(RLO, 0, {"AP": 50.0, "AP50": 70.0}, profile="tiny", sets=("weighting.gamma=0.2",))
    make_run("retinanet-r50-voc", 0, {"mAP": 76.0}, sets=("schedule.lr=0.001",))
    assert sorted((table.common, table.columns) for table in other_tables(results)) == [
        ("full size on voc", ["mAP"]),
        ("profile tiny on shapes", ["AP", "AP50"]),
    ]
