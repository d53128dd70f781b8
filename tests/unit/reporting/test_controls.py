"""A row above its baseline stands beside its controls: which runs count as such, and what to type for the rest."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from experiments.recipes import loading as recipes
from experiments.reporting import build_report, collect
from experiments.reporting.tables import table_rows
from experiments.reporting.tables.report_model import TableRow
from experiments.runs.mean_weights import compute_mean_weights
from experiments.runs.run_folder import RunFolder

from .conftest import MakeRun, in_contexts

BASE, RLO, AVW = "retinanet-r50", "retinanet-r50-rlo", "retinanet-r50-avw"
NAMES = ["gamma = 0", "random weights", "its mean weight of each level", "its mean weight, all levels"]


def line(results: Path, row: str = "all") -> TableRow:
    (table,) = in_contexts(build_report(collect(results), ["table3"]))
    (found,) = [line for line in table.rows if line.definition.id == row]
    return found


def with_trace(run: RunFolder, *weights: float) -> RunFolder:
    rows = [f"1,10,bbox_head,P{level},9,{w}" for level, w in enumerate(weights, start=3)]
    run.trace.write_text("\n".join(["interval,iteration,head,level,loss,weight", *rows]) + "\n")
    return run


@pytest.fixture
def pair(make_run: MakeRun) -> list[RunFolder]:
    """Baseline and RLO, three seeds each, RLO a point above."""
    made = []
    for seed, ap in enumerate((50.0, 51.0, 52.0)):
        make_run(BASE, seed, {"AP": ap}, profile="tiny")
        run = make_run(RLO, seed, {"AP": ap + 1 + seed / 10}, profile="tiny")
        made.append(with_trace(run, 1 + seed / 10, 1.2, 1, 1, 1))
    return made


def test_a_gain_without_controls_names_them_and_says_what_to_type(pair: list[RunFolder], results: Path):
    found = line(results)
    assert found.difference.verdict == "gain"
    assert [control.name for control in found.controls] == NAMES
    assert all(c.spread is None and c.missing == (0, 1, 2) for c in found.controls)
    where = f"--seeds 3 --results-dir {results}"
    commands = [c.commands for c in found.controls]
    assert commands[0] == (f"msdet run {RLO} -p tiny --set weighting.gamma=0.0 {where}",)
    assert commands[1] == (f"msdet run {RLO} -p tiny --set weighting.rule=random {where}",)
    assert "weights=[1.1, 1.2, 1.0, 1.0, 1.0]" in commands[2][0]  # (1 + 1.1 + 1.2) / 3
    assert "weights=[1.06, 1.06, 1.06, 1.06, 1.06]" in commands[3][0]


def test_what_the_commands_would_run_are_the_controls(
    pair: list[RunFolder], results: Path, make_run: MakeRun
):
    """Typed in, each makes runs that the report then finds."""
    for number, control in enumerate(line(results).controls):
        words = shlex.split(control.commands[0])
        sets = tuple(words[i + 1] for i, word in enumerate(words) if word == "--set")
        for seed in range(3):
            make_run(words[2], seed, {"AP": 49.0 + number + seed}, profile="tiny", sets=sets)
    found = line(results).controls
    assert [control.spread.mean for control in found] == [50.0, 51.0, 52.0, 53.0]
    assert all(control.missing == () == control.commands for control in found)
    assert found[0].difference.pairs == pytest.approx((2.0, 2.1, 2.2))
    assert [c.difference.verdict for c in found] == ["gain", "gain", "within noise", "loss"]


def test_only_the_same_seeds_count(pair: list[RunFolder], results: Path, make_run: MakeRun):
    for seed in (1, 5):
        make_run(BASE, seed, {"AP": 40.0 + seed}, profile="tiny", sets=("weighting.rule=random",))
    control = line(results).controls[1]
    assert (control.spread.mean, control.spread.n, control.missing) == (41.0, 1, (0, 2))
    assert [shlex.split(c)[-4:-2] for c in control.commands] == [["--seed", "0"], ["--seed", "2"]]


def test_other_data_and_failed_runs_are_no_control(pair: list[RunFolder], results: Path, make_run: MakeRun):
    sets = ("weighting.gamma=0",)
    for seed in range(3):
        make_run(RLO, seed, {"AP": 50.0}, profile="tiny", sets=sets, fingerprint="e" * 16)
    make_run(RLO, 0, profile="tiny", sets=sets, status="failed")
    assert line(results).controls[0].missing == (0, 1, 2)


def test_a_row_below_its_baseline_needs_none_and_nothing_learnt_has_none(results: Path, make_run: MakeRun):
    for seed in range(3):
        make_run(BASE, seed, {"AP": 50.0}, profile="tiny")
        make_run(RLO, seed, {"AP": 49.0}, profile="tiny")
        make_run(RLO, seed, {"AP": 51.0}, profile="tiny", sets=("weighting.gamma=0",))
    assert line(results).controls == ()
    controls = in_contexts(build_report(collect(results), ["controls"]))[0]
    assert all(found.controls == () for found in controls.rows)


def test_avw_has_no_gamma_and_a_lost_trace_is_named(results: Path, make_run: MakeRun):
    make_run(BASE, 0, {"AP": 50.0}, profile="tiny")
    make_run(AVW, 0, {"AP": 51.0}, profile="tiny")
    found = line(results, "variance").controls
    assert [control.name for control in found] == NAMES[1:]
    assert "trace.csv cannot be read" in found[1].note
    assert found[1].commands == ()


def test_a_recipe_that_no_name_stands_for_is_run_from_its_page(results: Path, make_run: MakeRun):
    sets = ("schedule.lr=0.001",)
    for seed in range(3):
        make_run(BASE, seed, {"AP": 50.0}, profile="tiny", sets=sets)
        run = with_trace(make_run(RLO, seed, {"AP": 51.0}, profile="tiny", sets=sets), 1, 1, 1, 1, 1)
    (table,) = [t for t in build_report(collect(results)).tables if t.has_differs]
    (found,) = [each for each in table.rows if each.controls]
    words = shlex.split(found.controls[0].commands[0])
    assert words[2] == str(run.recipe).replace("seed2", "seed0")
    wanted = recipes.load_recipe(words[2], sets=[words[4]])
    assert wanted.weighting["gamma"] == 0
    assert wanted.schedule.lr == 0.001
    assert compute_mean_weights([run], "level") == [[1, 1, 1, 1, 1]]


def test_a_long_table_looks_up_the_controls_of_its_gains_alone(
    pair: list[RunFolder], results: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    for seed, ap in enumerate((52.0, 49.0, 53.0)):  # above the baseline, within noise
        with_trace(make_run(AVW, seed, {"AP": ap}, profile="tiny"), 1, 1, 1, 1, 1)
    assert line(results, "variance").difference.verdict == "within noise"
    assert len(line(results, "variance").controls) == 3
    monkeypatch.setattr(table_rows, "MAX_ROWS_WITH_CONTROLS", 2)
    assert line(results, "variance").controls == ()
    assert len(line(results).controls) == 4
