"""Runs whose number is not like the others' are marked wherever it is shown, and kept out of means."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from experiments.common import cache
from experiments.common.files import hash_file
from experiments.reporting import collect
from experiments.runs import outputs
from experiments.runs.outputs import digest_outputs
from experiments.runs.record import Launch
from experiments.runs.run_flags import LEGEND
from experiments.runs.run_folder import RunFolder
from msdet_cli.app import app
from msdet_cli.console.result_tables import print_results

from .conftest import MakeRun

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"
REDUCED = {"launch": Launch(reduced=True), "ways": ((1, 8, 1), (1, 4, 2))}
IMPORTED = {"imported": {"source": "w"}, "ways": ()}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def typed(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def line_of(text: str, *parts: str) -> str:
    return next(line for line in text.splitlines() if all(part in line for part in parts))


def test_without_such_runs_there_is_no_mark_and_no_legend(make_run: MakeRun):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    for form in ("console", "md"):
        assert not set("†‡") & set(typed("report", "table1", "--format", form))


def test_a_halved_batch_is_marked_in_every_form(make_run: MakeRun):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    make_run(RLO, 1, {"AP": 60.0}, profile="tiny", **REDUCED)
    text = typed("report", "table1")
    assert "60.0 ± - (1)†" in text
    assert "50.0 ± - (1)†" not in text and "50.0 ± - (1)" in text
    assert f"† {LEGEND['†']}" in text
    assert "† halved batch: seed 1" in text
    page = typed("report", "table1", "--format", "md")
    assert "60.0 ± - (1)†" in page and "50.0 ± - (1)</u> |" in page
    assert page.count(LEGEND["†"]) == 1
    rows = list(csv.DictReader(io.StringIO(typed("report", "table1", "--format", "csv"))))
    found = {row["measured_AP_mean"]: (row["reduced"], row["imported"]) for row in rows}
    assert found["60.0"] == ("1", "0")
    assert found["50.0"] == ("0", "0")
    assert found[""] == ("", "")


def test_runs_that_fit_no_table_are_marked_too(make_run: MakeRun):
    make_run(RLO, 0, {"AP": 40.0}, profile="tiny", sets=("weighting.gamma=0.5",), **REDUCED)
    for words in (("report",), ("report", "--format", "md")):
        text = typed(*words)
        assert "40.0 ± - (1)†" in text
        assert LEGEND["†"] in text


def test_imported_runs_are_never_averaged_with_our_own(make_run: MakeRun):
    make_run(BASE, 0, {"AP": 36.0})
    make_run(BASE, 1, {"AP": 36.4})
    make_run(BASE, 2, {"AP": 30.0}, **IMPORTED)
    make_run(RLO, 0, {"AP": 37.0})
    text = typed("report", "table1")
    assert "36.2 ± 0.3 (2)" in text
    assert "30.0 ± - (1)‡" in text
    assert "+0.8" in line_of(text, "RetinaNet w/ RLO", "37.0 ±")  # to our own baseline
    assert f"‡ {LEGEND['‡']}" in text
    rows = list(csv.DictReader(io.StringIO(typed("report", "table1", "--format", "csv"))))
    (row,) = [row for row in rows if row["measured_AP_mean"] == "30.0"]
    assert (row["imported"], row["seeds"], row["reduced"]) == ("1", "2", "0")


def test_a_difference_to_an_imported_baseline_says_so(make_run: MakeRun):
    make_run(BASE, 0, {"AP": 36.0}, **IMPORTED)
    make_run(RLO, 0, {"AP": 37.0})
    line = line_of(typed("report", "table1"), "RetinaNet w/ RLO:")
    assert "baseline imported" in line
    assert "‡" not in line


def test_what_a_record_notes_is_said_beside_the_number(make_run: MakeRun):
    lost = "trace.csv was lost before iteration 100"
    for seed in (0, 2):
        make_run(RLO, seed, {"AP": 50.0}, profile="tiny", notes=[lost])
    make_run(RLO, 1, {"AP": 50.0}, profile="tiny")
    for form in ("console", "md"):
        assert f"seed 0, 2: {lost}" in typed("report", "table1", "--format", form).replace("\\", "")


def test_a_comparison_is_marked(make_run: MakeRun):
    runs = [
        make_run(RLO, 0, {"AP": 50.0}, profile="tiny"),
        make_run(RLO, 0, {"AP": 40.0}, profile="tiny", sets=("weighting.alpha=5",), notes=["odd"], **REDUCED),
    ]
    stream = io.StringIO()
    print_results(Console(file=stream, width=120), Path("results"), [], runs)
    text = stream.getvalue()
    assert "weighting.alpha: 5 (10)" in line_of(text, "40.0 ± - (1)†")
    assert "50.0 ± - (1) " in text
    assert "seed 0: odd" in line_of(text, f"{RLO} (weighting.alpha: 5 (10)): ", "halved")
    assert f"† {LEGEND['†']}" in text


def test_the_list_of_runs_is_marked(make_run: MakeRun):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    assert "†" not in typed("runs")
    make_run(RLO, 1, {"AP": 60.0}, profile="tiny", **REDUCED)
    make_run(BASE, 0, {"AP": 40.0}, **IMPORTED)
    text = typed("runs")
    assert "60.0†" in line_of(text, RLO, "seed1")
    assert "40.0‡" in line_of(text, BASE, "seed0")
    assert "50.0 " in line_of(text, RLO, "seed0")
    assert [line for line in text.splitlines() if line[:1] in "†‡"] == [f"{m} {LEGEND[m]}" for m in "†‡"]


def test_a_number_of_odd_data_is_marked(make_run: MakeRun):
    run = make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    record = run.read()
    for warning, is_marked in (("", False), ("val: 1 empty boxes", True)):
        record.dataset["warning"] = warning
        run.write(record)
        for words in (("runs",), ("report", "table1"), ("report", "table1", "--format", "latex")):
            text = typed(*words)
            assert any(mark in text for mark in ("§", r"\S{}")) is is_marked


def finished_with_files(make_run: MakeRun) -> RunFolder:
    """Return a finished run whose record has the digests of its metrics and files."""
    run = make_run(RLO, 0, {"AP": 3.33}, profile="tiny")
    run.metrics.write_text("iteration,AP\n10,3.33\n")
    run.trace.write_text("interval,iteration\n1,10\n")
    record = run.read()
    record.digests = digest_outputs(run, record)
    run.write(record)
    return run


def test_outputs_as_written_have_no_mark(make_run: MakeRun):
    finished_with_files(make_run)
    assert "¶" not in typed("report", "table1") + typed("runs")


def test_a_number_that_was_changed_in_the_record_is_marked(make_run: MakeRun):
    run = finished_with_files(make_run)
    run.record_file.write_text(run.record_file.read_text().replace("3.33", "88.8"))
    assert f"¶ {LEGEND['¶']}" in typed("report", "table1")
    assert "88.8¶" in typed("runs")


@pytest.mark.parametrize("name", ["metrics.csv", "trace.csv"])
@pytest.mark.parametrize("damage", ["rotted", "missing", "a folder"])
def test_a_number_whose_files_changed_is_marked(make_run: MakeRun, name: str, damage: str):
    run = finished_with_files(make_run)
    path = run.path / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    if damage != "rotted":
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    assert "3.3 ± - (1)¶" in typed("report", "table1")
    assert "3.3¶" in typed("runs")


def test_digests_and_mean_weights_of_one_trace_are_told_apart(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "_MIN_AGE_S", -60.0)  # else files that changed just now are not remembered
    run = finished_with_files(make_run)
    (facts,) = collect(run.path.parents[3]).facts.values()
    assert facts.fact(f"{run.name}/trace.csv", run.trace, lambda: ({"P3": 1.0}, True)) == {"P3": 1.0}


def test_a_list_of_runs_remembers_digests(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MSDET_NO_CACHE", raising=False)
    monkeypatch.setattr(cache, "_MIN_AGE_S", -60.0)
    monkeypatch.setattr(cache, "MIN_FACTS", 1)
    run, read = finished_with_files(make_run), []
    monkeypatch.setattr(outputs, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    for _ in range(2):
        assert "¶" not in typed("runs")
    assert read == ["metrics.csv", "trace.csv"]
    run.trace.write_text("interval,iteration\n2,10\n")
    assert "¶" in typed("runs")
