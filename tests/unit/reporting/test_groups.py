"""What is collected from run folders, and which runs are averaged."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from experiments.reporting.collect import collect, execution
from experiments.reporting.tables.groups import against, group_runs
from experiments.reporting.tables.run_comparison import compare_runs
from experiments.runs.record import SCHEMA_VERSION, Attempt
from experiments.runs.run_folder import RunFolder

from .conftest import MakeRun

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"


def tiny(make_run: MakeRun, recipe: str, *aps: float, **more: object) -> list:
    return [make_run(recipe, seed, {"AP": ap}, profile="tiny", **more) for seed, ap in enumerate(aps)]


def test_one_row_a_run_with_what_its_record_says(make_run: MakeRun, results: Path):
    run = make_run(RLO, 3, {"AP": 50.5, "AP50": 70.25}, profile="tiny", ways=((4, 2, 1), (1, 4, 2)))
    make_run(BASE, 0, status="failed")
    found = collect(results)
    assert found.problems == []
    assert found.metrics == ["AP", "AP50"]
    assert len(found.runs) == 2
    row = found.runs.set_index("recipe").loc[RLO]
    record = run.read()
    assert (row["recipe_id"], row["config_hash"]) == (record.recipe_id, record.config_hash)
    assert (row["seed"], row["profile"], row["dataset"], row["state"]) == (3, "tiny", "shapes", "done")
    assert (row["AP"], row["AP50"], row["seconds"], row["iterations"]) == (50.5, 70.25, 90.0, 400)
    assert (row["world_size"], row["micro_batch"], row["accumulation"]) == (1, 4, 2)  # of the last attempt
    assert row["execution"] == "4 x 2, then 1 x 4 x 2"
    assert Path(row["path"]) == run.path
    failed = found.runs.set_index("recipe").loc[BASE]
    assert failed["state"] == "failed"
    assert failed["profile"] == ""
    assert math.isnan(failed["AP"])


def test_an_empty_folder_has_no_rows(results: Path):
    found = collect(results)
    assert len(found.runs) == 0
    assert found.problems == found.metrics == []


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
    assert list(found.runs["AP"]) == [50.0]
    assert len(found.problems) == 2
    assert str(broken.record_file) in found.problems[0]
    assert "schema" in found.problems[1]


def test_only_finished_runs_have_metrics_and_minus_one_is_none(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 50.0, "APL": -1.0})
    make_run(BASE, 1, {"AP": 99.0}, status="failed")
    make_run(BASE, 2, {"AP": 99.0}, status="running")  # its process is long gone
    runs = collect(results).runs
    assert list(runs["state"]) == ["done", "failed", "interrupted"]
    assert runs["AP"].tolist()[0] == 50.0
    assert runs["AP"].isna().tolist() == [False, True, True]
    assert collect(results).metrics == ["AP"]


def test_execution_of_a_run_that_never_loaded_data_is_unknown():
    attempt = Attempt(started="", host="", pid=1)
    assert execution([attempt]) == ""
    same = attempt.model_copy(update={"micro_batch": 2})
    assert execution([attempt, same, same]) == "1 x 2"


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
    base, rlo = (group_runs(runs[runs["recipe"] == name]) for name in (BASE, RLO))
    assert against(rlo[0], base, "AP") == (None, "")


def test_a_baseline_executed_alike_is_preferred_and_another_is_named(make_run: MakeRun, results: Path):
    make_run(BASE, 0, {"AP": 50.0}, ways=((4, 2, 1),))
    make_run(BASE, 1, {"AP": 51.0})
    make_run(RLO, 0, {"AP": 52.0})
    runs = collect(results).runs
    base, (rlo,) = (group_runs(runs[runs["recipe"] == name]) for name in (BASE, RLO))
    change, remark = against(rlo, base, "AP")
    assert (change.value, remark) == (1.0, "")
    change, remark = against(rlo, [g for g in base if g.execution == "4 x 2"], "AP")
    assert (change.value, remark) == (2.0, "baseline run as 4 x 2")


def test_comparison_of_labels_by_hand(make_run: MakeRun):
    base, rlo = tiny(make_run, BASE, 50.0, 51.0), tiny(make_run, RLO, 52.0, 53.0, 54.0)
    rlo.insert(1, make_run(RLO, 7, status="failed", profile="tiny"))
    labels = ["uniform"] * 2 + ["rlo"] * 4
    made = compare_runs([*base, *rlo], labels)
    assert made.metrics == ["AP"]
    assert [row.label for row in made.rows] == ["uniform", "rlo"]
    first, second = made.rows
    assert (first.metrics["AP"].mean, first.metrics["AP"].n, first.difference) == (50.5, 2, None)
    assert second.states == {"done": 3, "failed": 1}
    assert (second.metrics["AP"].mean, second.metrics["AP"].sd) == (53.0, 1.0)
    assert second.difference.pairs == (2.0, 2.0)  # seed 2 has no baseline
    assert second.remark == "Δ over the 2 seeds that both have"


def test_imported_runs_are_not_paired(make_run: MakeRun, results: Path):
    for seed, (base, rlo) in enumerate(((50.0, 52.0), (51.0, 53.5), (52.0, 53.0))):
        make_run(BASE, seed, {"AP": base}, imported={"from": "a work folder"})
        make_run(RLO, seed, {"AP": rlo})
    runs = collect(results).runs
    (base,), (rlo,) = (group_runs(runs[runs["recipe"] == name]) for name in (BASE, RLO))
    change, remark = against(rlo, [base], "AP")
    assert (change.paired, remark) == (False, "baseline imported")  # another shuffle under the same number
    assert change.value == pytest.approx(158.5 / 3 - 51.0)


def test_comparison_without_labels_names_recipes_and_tells_configs_apart(make_run: MakeRun):
    runs = [*tiny(make_run, BASE, 50.0), *tiny(make_run, RLO, 51.0)]
    assert [row.label for row in compare_runs(runs).rows] == [BASE, RLO]
    runs.append(make_run(RLO, 0, {"AP": 52.0}, profile="tiny", sets=("weighting.n=3",)))
    hashes = [run.read().config_hash for run in runs]
    assert [row.label for row in compare_runs(runs).rows] == [
        BASE,
        f"{RLO} ({hashes[1]})",
        f"{RLO} ({hashes[2]})",
    ]


@pytest.mark.parametrize("labels", [["AP"], ["seed", "AP"], ["", "0"]])
def test_comparison_takes_any_labels(make_run: MakeRun, labels: list[str]):
    runs = tiny(make_run, BASE, *[50.0 + i for i in range(len(labels))])
    rows = compare_runs(runs, labels).rows
    assert [(row.label, row.metrics["AP"].mean) for row in rows] == [
        (x, 50.0 + i) for i, x in enumerate(labels)
    ]


def test_comparison_of_nothing_finished_or_nothing_at_all(make_run: MakeRun):
    made = compare_runs([make_run(BASE, 0, status="failed")])
    assert (made.metrics, [row.states for row in made.rows]) == ([], [{"failed": 1}])
    assert compare_runs([]).rows == []


def test_comparison_counts_what_was_never_started(make_run: MakeRun, results: Path):
    first, last = tiny(make_run, BASE, 50.0), tiny(make_run, RLO, 51.0)
    absent = [RunFolder.of(results, RLO, "00000000", seed) for seed in (0, 1)]
    made = compare_runs([*first, *absent, *last], ["base", "a", "a", "b"])
    assert [(row.label, row.states) for row in made.rows] == [
        ("base", {"done": 1}),
        ("a", {"not started": 2}),
        ("b", {"done": 1}),
    ]
    assert made.problems == []
    assert made.rows[2].difference.value == 1.0
    assert [row.states for row in compare_runs(absent).rows] == [{"not started": 2}]


def test_comparison_needs_a_label_for_each_run(make_run: MakeRun):
    with pytest.raises(ValueError, match="labels: 1 for 2 runs"):
        compare_runs(tiny(make_run, BASE, 50.0, 51.0), ["one"])


def test_a_label_never_averages_two_recipes(make_run: MakeRun):
    rows = compare_runs([*tiny(make_run, BASE, 50.0), *tiny(make_run, RLO, 60.0)], ["x", "x"]).rows
    assert [row.metrics["AP"].mean for row in rows] == [50.0, 60.0]
    assert all("recipe" in row.remark for row in rows)
