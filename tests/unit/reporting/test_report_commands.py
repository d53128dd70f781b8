"""`msdet report` and `msdet runs` as a person types them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.common.processes import process_started
from experiments.reporting import compare_runs
from experiments.runs.run_folder import RunFolder
from msdet_cli.commands import report, runs
from msdet_cli.console.result_tables import print_comparison

from .conftest import MakeRun, run_maker

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"
FIRST_SCHEMA = {
    "recipe", "recipe_id", "config_hash", "seed", "profile", "status", "metrics", "iterations", "timings", "attempts",
    "dataset", "git", "environment", "command", "created", "updated",
}  # fmt: skip
app = typer.Typer(rich_markup_mode=None)
app.command("report")(report.report)
app.command("runs")(runs.runs)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


def typed(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    return caught.value


@pytest.fixture
def tiny_runs(make_run: MakeRun) -> None:
    for seed, (base, rlo) in enumerate(((50.0, 51.0), (51.0, 52.0))):
        rest = dict.fromkeys(("AP50", "AP75", "APM", "APL"), 60.0)
        make_run(BASE, seed, {"AP": base, "APS": 25.5, **rest}, profile="tiny")
        make_run(RLO, seed, {"AP": rlo, "APS": 26.5, **rest}, profile="tiny")


def test_without_runs_it_shows_what_was_published_and_what_to_type():
    text = typed("report")
    assert [text.index(f"\nTable {i}:") for i in range(1, 6)] == sorted(
        text.index(f"\nTable {i}:") for i in range(1, 6)
    )
    assert text.rstrip().endswith(
        "There are no runs in results yet. For a first one: msdet run retinanet-r50-rlo -p tiny"
    )
    for form in ("md", "csv"):
        assert "78.8" in typed("report", "--format", form)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_console_shows_own_runs_first_and_where_they_are(
    tiny_runs: None, monkeypatch: pytest.MonkeyPatch, columns: str
):
    monkeypatch.setenv("COLUMNS", columns)
    text = typed("report")
    assert text.index("Table 5, profile tiny on shapes (NOT comparable") < text.index("Table 1: Detectors")
    row = next(line for line in text.splitlines() if line.startswith("RetinaNet w/ RLO"))
    assert "51.5 ± 0.7 (2)" in row
    assert "+1.0 [+1.0, +1.0]" in row
    assert ("26.5" in row) == (columns == "120")
    assert "results/runs/retinanet-r50-rlo/" in text
    assert "95 % confidence interval" in " ".join(text.split())
    tables = [line for line in text.splitlines() if not line.startswith(("[", "    "))]
    assert max(len(line) for line in tables) <= int(columns)


def test_with_full_size_runs_each_table_stands_above_its_contexts(make_run: MakeRun, tiny_runs: None):
    make_run(RLO, 0, {"AP": 36.8})
    text = typed("report", "table1", "table4")
    order = ["Table 1: ", "Table 1, profile tiny", "Table 4: ", "Table 4, profile tiny"]
    places = [text.index(title) for title in order]
    assert places == sorted(places)
    row = next(line for line in text.splitlines() if "36.8 ± - (1)" in line)
    assert " ".join(row.split()) == "RetinaNet w/ RLO ResNet-50 36.9 +0.8 36.8 ± - (1) [1]"
    assert "Table 2" not in text
    assert "Other runs" not in text


def test_csv_on_standard_output_is_one_csv(tiny_runs: None, make_run: MakeRun):
    make_run(RLO, 0, {"AP": 40.0}, profile="tiny", sets=("weighting.gamma=0.5",))
    frame = pd.read_csv(io.StringIO(typed("report", "--format", "csv")))
    variants = f"{RLO}, profile tiny on shapes"
    assert set(frame["table"]) == {"table1", "table2", "table3", "table4", "table5", variants}
    assert 40.0 in frame.loc[frame["table"] == variants, "measured_AP_mean"].tolist()
    assert frame["measured_AP_mean"].dropna().isin([50.5, 51.5, 40.0]).all()


def test_out_writes_a_file_per_table(tiny_runs: None, make_run: MakeRun, tmp_path: Path):
    make_run("fcos-r50", 0, {"AP": 40.0}, profile="tiny", sets=("schedule.lr=0.02",))
    for form, first in (("md", ["report.md"]), ("csv", [])):
        said = typed("report", "--format", form, "--out", "a/report", "--no-figures")
        stems = ("table1", "table2", "table3", "table4", "table5", "other-runs")
        names = [*first, *(f"{stem}.{form}" for stem in stems)]
        assert said.split() == [f"a/report/{name}" for name in names]
        assert sorted(p.name for p in Path("a/report").glob(f"*.{form}")) == sorted(names)
    page = Path("a/report/table4.md").read_text(encoding="utf-8")
    assert "## Table 4: " in page
    assert "## Table 4, profile tiny on shapes" in page
    assert "(../../results/runs/retinanet-r50-rlo/" in page
    assert set(pd.read_csv("a/report/table4.csv")["context"]) == {"published", "profile tiny on shapes"}
    assert "40.0 ± - (1)" in Path("a/report/other-runs.md").read_text(encoding="utf-8")


def test_a_broken_record_is_said_and_hides_nothing(tiny_runs: None, make_run: MakeRun):
    make_run(BASE, 5, {"AP": 1.0}).record_file.write_text("{", encoding="utf-8")
    for words in (("report",), ("report", "--format", "md"), ("runs",)):
        text = typed(*words)
        assert "Left out: " in text
        assert "51.5" in text or words == ("runs",)
    result = CliRunner().invoke(app, ["report", "--format", "csv"])
    assert "Left out" in result.stderr
    assert "Left out" not in result.stdout


def test_tables_without_published_numbers(tiny_runs: None, make_run: MakeRun):
    assert "Figure 4" not in typed("report")
    text = typed("report", "fig4")
    assert "Figure 4, profile tiny on shapes\n" in text
    assert "Figure 4: RLO" in text
    assert "published" not in text
    rows = [" ".join(line.split()) for line in text.splitlines() if line.startswith("RetinaNet w/ RLO")]
    assert rows == [
        "RetinaNet w/ RLO retinanet-r50-rlo 51.5 ± 0.7 (2) +1.0 [+1.0, +1.0] 60.0 60.0 26.5 60.0 60.0 [2]",
        "RetinaNet w/ RLO retinanet-r50-rlo no runs",
    ]


FORMS = ("console", "md", "csv", "latex", "html")


def said(form: str, *more: str) -> str:
    """What a report of table 2 says in a format, standard error included, as one line without escapes."""
    result = CliRunner().invoke(app, ["report", "table2", "--format", form, *more], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join((result.stdout + result.stderr).replace("\\_", "_").split())


@pytest.mark.parametrize("form", FORMS)
def test_without_a_number_each_format_says_why(make_run: MakeRun, form: str):
    assert "There are no runs in results yet." in said(form)
    run = make_run("retinanet-r50-voc", 0, status="failed")
    assert "No run in results that belongs here has finished: 1 failed." in said(form)
    text = run.record_file.read_text(encoding="utf-8")
    newer = re.sub(r'"schema_version": \d+', '"schema_version": 99', text)
    run.record_file.write_text(newer, encoding="utf-8")
    told = said(form)
    assert "No run in results can be read." in told
    assert ("Left out" if form == "html" else "Left out: ") in told
    assert "schema" in told


def test_runs_of_two_machines_in_one_report(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_maker(tmp_path / "other")("retinanet-r50-voc", 1, {"mAP": 78.0})
    make_run("retinanet-r50-voc", 0, {"mAP": 76.0})
    for form in ("csv", "html"):
        assert "77.0" in said(form, "--results-dir", "results", "--results-dir", "other")
    monkeypatch.setenv("MSDET_RESULTS", "other")
    assert "78.0 ± - (1)" in said("html")


def test_all_formats_are_written_at_once(make_run: MakeRun):
    make_run("retinanet-r50-voc", 0, {"mAP": 76.0})
    told = typed("report", "table2", "--format", "all", "--no-figures")
    names = ["report.md", "table2.md", "table2.csv", "report.tex", "table2.tex", "report.html"]
    assert told.split() == [f"report/{name}" for name in names]
    assert all(Path("report", name).stat().st_size for name in names)
    assert r"\input{table2.tex}" in Path("report/report.tex").read_text(encoding="utf-8")


def test_mistakes():
    assert "did you mean 'md'" in refusal("report", "--format", "mdd").message
    assert "did you mean 'table3'" in refusal("report", "table_3").message
    assert "--out" in refusal("report", "--out", "x").message
    Path("taken").touch()
    assert "cannot be written" in refusal("report", "--format", "md", "--out", "taken").message


def test_runs_shows_state_metric_and_time(make_run: MakeRun):
    make_run(RLO, 0, {"AP": 50.04, "AP50": 70.0}, profile="tiny")
    make_run(RLO, 1, status="failed", profile="tiny")
    broken_off = make_run(RLO, 2, status="running", profile="tiny")
    broken_off.progress.write_text('{"iteration": 100, "total": 400, "phase": "train"}', encoding="utf-8")
    make_run(RLO, 3, status="running", profile="tiny").progress.write_text("{", encoding="utf-8")
    make_run(BASE, 0, status="queued", profile="tiny", ways=())
    head, queued, done, failed, stopped, unknown = typed("runs").splitlines()
    assert head.split()[:3] == ["run", "state", "progress"]
    assert done.split()[:4] == [f"{RLO}/{broken_off.path.parts[-2]}/seed0", "done", "50.0", "1:30"]
    assert failed.split()[1:3] == ["failed", "1:30"]
    assert stopped.split()[1:5] == ["interrupted", "100/400", "25%", "1:30"]
    assert unknown.split()[1:3] == ["interrupted", "1:30"]
    assert queued.split()[1] == "queued"


def test_a_run_under_way_is_running(make_run: MakeRun):
    run = make_run(RLO, 0, status="running", profile="tiny")
    record = run.read()
    record.attempts[-1] = record.attempts[-1].model_copy(
        update={"host": socket.gethostname(), "pid": os.getpid(), "pid_started": process_started(os.getpid())}
    )
    run.write(record)
    run.progress.write_text('{"iteration": 1, "total": 3}', encoding="utf-8")
    assert typed("runs").splitlines()[1].split()[1:4] == ["running", "1/3", "33%"]


def test_runs_of_one_recipe_and_as_json(tiny_runs: None, make_run: MakeRun):
    make_run(RLO, 2, status="running", profile="tiny")
    rows = json.loads(typed("runs", RLO, "--json"))
    assert [row["run"].split("/")[0] for row in rows] == [RLO] * 3
    assert [row["state"] for row in rows] == ["done", "done", "interrupted"]
    assert rows[0]["record"]["metrics"]["APS"] == 26.5
    assert Path(rows[0]["folder"], "record.json").is_file()
    assert len(json.loads(typed("runs", "--json"))) == 5


def test_runs_where_there_are_none():
    assert "msdet run retinanet-r50-rlo -p tiny" in typed("runs")
    assert f"no runs of {BASE}" in typed("runs", BASE)
    assert json.loads(typed("runs", "--json")) == []
    assert "did you mean 'retinanet-r50-rlo'" in refusal("runs", "retinanet-r50-rl0").message


def test_runs_by_state_with_what_they_wait_for_and_why_they_failed(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    failed = make_run(RLO, 1, status="failed", profile="tiny")
    record = failed.read()
    record.attempts[-1].message = "loss_cls of level P3 became NaN " + "x" * 60
    failed.write(record)
    make_run(RLO, 2, status="cancelled", profile="tiny")
    jobs = {"slurm": {"job_id": "12_3", "folder": str(tmp_path)}}
    make_run(RLO, 3, status="queued", profile="tiny", ways=(), **jobs)
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\necho asked >> asked\necho '12_3|PENDING|Priority'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    assert [line.split()[1] for line in typed("runs").splitlines()[1:]] == [
        "done", "failed", "cancelled", "queued"]  # fmt: skip
    assert Path("asked").read_text().split() == ["asked"]  # once for all runs
    (line,) = typed("runs", "--state", "failed").splitlines()[1:]
    assert " loss_cls of level P3 became NaN x" in line
    assert line.endswith("x…")
    (line,) = typed("runs", RLO, "--state", "queued").splitlines()[1:]
    assert line.endswith("Slurm job 12_3: Priority")
    assert len(json.loads(typed("runs", "--state", "done", "--state", "cancelled", "--json"))) == 2
    assert typed("runs", "--state", "running") == "no run is running\n"
    assert "did you mean 'failed'" in refusal("runs", "--state", "faild").message


def test_a_record_of_the_first_schema_is_listed_as_any_other(make_run: MakeRun):
    run = make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    content = json.loads(run.record_file.read_text(encoding="utf-8"))
    for key in set(content) - FIRST_SCHEMA:
        del content[key]
    content["schema_version"] = 1
    run.record_file.write_text(json.dumps(content), encoding="utf-8")
    (line,) = typed("runs").splitlines()[1:]
    assert line.split()[:4] == [run.name, "done", "50.0", "1:30"]
    (row,) = json.loads(typed("runs", "--json"))
    assert (row["state"], row["record"]["launch"]["processes"]) == ("done", 1)


def test_each_record_is_read_once(tiny_runs: None, monkeypatch: pytest.MonkeyPatch):
    reads: list[str] = []
    real = RunFolder.read
    monkeypatch.setattr(RunFolder, "read", lambda self: (reads.append(self.name), real(self))[1])
    typed("runs")
    assert len(reads) == len(set(reads)) == 4


def test_a_thousand_runs_are_listed_at_once(make_run: MakeRun, results: Path):
    first = make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    for seed in range(1, 1000):
        folder = first.path.with_name(f"seed{seed}")
        folder.mkdir()
        shutil.copy(first.record_file, folder)
    began = time.process_time()  # not what others on the machine take
    text = typed("runs")
    assert len(text.splitlines()) == 1001
    assert time.process_time() - began < 2


def printed(width: int, made: object) -> str:
    stream = io.StringIO()
    print_comparison(Console(file=stream, width=width), made)
    return stream.getvalue()


def test_a_comparison_on_the_console(make_run: MakeRun):
    names = ("AP", "AP50", "AP75", "APS", "APM", "APL")
    made = [
        make_run(r, s, dict.fromkeys(names, a + s), profile="tiny")
        for r, a in ((BASE, 50.0), (RLO, 52.0))
        for s in (0, 1)
    ]
    made.append(make_run(RLO, 2, status="failed", profile="tiny"))
    compared = compare_runs(made, ["[uniform]", "[uniform]", "rlo", "rlo", "rlo"])
    wide, narrow = printed(120, compared), printed(60, compared)
    for text in (wide, narrow):
        assert "[uniform]" in text  # no markup
        row = next(line for line in text.splitlines() if line.startswith("rlo"))
        assert "52.5 ± 0.7 (2), 1 failed" in row
        assert "+2.0 [+2.0, +2.0]" in row
    assert "APL" in wide
    assert "APL" not in narrow
    assert "1 failed" in printed(80, compare_runs(made[-1:]))
