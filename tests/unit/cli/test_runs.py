"""`msdet runs`: what it says of runs, in which order, and which of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.common.processes import process_started
from experiments.runs.run_folder import RunFolder
from msdet_cli.commands import runs
from msdet_cli.main import main

from ..reporting.conftest import MakeRun, run_maker

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"
FIRST_SCHEMA = {
    "recipe", "recipe_id", "config_hash", "seed", "profile", "status", "metrics", "iterations", "timings", "attempts",
    "dataset", "git", "environment", "command", "created", "updated",
}  # fmt: skip
app = typer.Typer(rich_markup_mode=None)
app.command("runs")(runs.runs)
app.command("other")(lambda: None)  # one command alone would need no name


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return run_maker(tmp_path / "results")


def typed(*words: str) -> str:
    result = CliRunner().invoke(app, ["runs", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def table(*words: str) -> list[str]:
    """Header and rows, without what stands below them."""
    lines = typed(*words).splitlines()
    end = next(i for i, line in enumerate(lines) if line.split()[1:2] in (["run:"], ["runs:"]))
    return lines[:end]


def refusal(*words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, ["runs", *words], catch_exceptions=False)
    return caught.value


def names(*words: str) -> list[str]:
    return [row["run"] for row in json.loads(typed("--json", *words))]


def fail(run: RunFolder, message: str, hint: str | None = None) -> None:
    record = run.read()
    record.status, record.attempts[-1].message, record.attempts[-1].hint = "failed", message, hint
    record.attempts[-1].exit_class = "not finite"
    run.write(record)


def test_a_row_has_state_progress_metric_and_time(make_run: MakeRun):
    make_run(RLO, 0, {"AP": 50.04, "AP50": 70.0}, profile="tiny")
    make_run(RLO, 1, status="failed", profile="tiny")
    broken_off = make_run(RLO, 2, status="running", profile="tiny")
    broken_off.progress.write_text('{"iteration": 100, "total": 400, "phase": "train"}', encoding="utf-8")
    make_run(RLO, 3, status="running", profile="tiny").progress.write_text("{", encoding="utf-8")
    make_run(BASE, 0, status="queued", profile="tiny", ways=())
    head, queued, done, failed, stopped, unknown = table()
    assert head.split()[:3] == ["run", "state", "progress"]
    assert done.split()[:4] == [f"{RLO}/{broken_off.path.parts[-2]}/seed0", "done", "50.0", "1:30"]
    assert failed.split()[1:3] == ["failed", "1:30"]
    assert stopped.split()[1:5] == ["interrupted", "100/400", "25%", "1:30"]
    assert unknown.split()[1:3] == ["interrupted", "1:30"]
    assert queued.split()[1] == "queued"
    counts = typed().splitlines()[6]
    assert counts == "5 runs: 1 queued, 1 done, 1 failed, 2 interrupted; profile tiny; data set shapes"


def test_a_run_under_way_is_running(make_run: MakeRun):
    run = make_run(RLO, 0, status="running", profile="tiny")
    record = run.read()
    record.attempts[-1] = record.attempts[-1].model_copy(
        update={"host": socket.gethostname(), "pid": os.getpid(), "pid_started": process_started(os.getpid())}
    )
    run.write(record)
    run.progress.write_text('{"iteration": 1, "total": 3}', encoding="utf-8")
    assert table()[1].split()[1:4] == ["running", "1/3", "33%"]


def test_what_differs_from_the_recipe_of_the_name_is_said(make_run: MakeRun):
    """Own value, and in brackets that of the page under the same profile: tiny's α is 10."""
    for alpha in (5, 20):
        make_run(
            RLO, 0, {"AP": 50.0}, profile="tiny", sets=(f"weighting.alpha={alpha}", "schedule.iterations=30")
        )
    five, twenty = sorted(table()[1:], key=lambda line: "alpha: 20" in line)
    assert "  alpha: 5 (10)   done" in five
    assert "  alpha: 20 (10)  done" in twenty
    assert "iterations" not in five + twenty
    assert "all differ from the recipes of their names in schedule.iterations: 30 (330)" in typed()
    (row, _) = json.loads(typed("--json"))
    assert {text.partition(":")[0] for text in row["differs"]} == {"weighting.alpha", "schedule.iterations"}


def test_an_imported_run_differs_from_the_recipe_that_it_was_matched_to(make_run: MakeRun):
    more = {"name": f"imported-{BASE}", "imported": {"source": "work_dirs/r50"}}
    make_run(BASE, 0, {"AP": 36.5}, sets=("schedule.lr=0.01",), **more)
    assert "  lr: 0.01 (0.005)  done" in table()[1]


def test_runs_unlike_in_profile_or_data_have_a_column_for_it(make_run: MakeRun):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    make_run("retinanet-r50-voc", 0, {"mAP": 77.7})
    head, tiny, voc = table()
    assert head.split()[:8] == ["run", "profile", "data", "set", "state", "AP", "mAP", "took"]
    assert voc.split()[1:5] == ["none", "voc", "done", "77.7"]
    assert tiny.split()[1:5] == ["tiny", "shapes", "done", "50.0"]
    assert voc.index("77.7") > tiny.index("50.0")  # never one under the other


def test_runs_are_filtered_by_recipe_profile_data_set_and_state(make_run: MakeRun):
    tiny, failed = (
        make_run(RLO, 0, {"AP": 50.0}, profile="tiny"),
        make_run(RLO, 1, status="failed", profile="tiny"),
    )
    base, voc = make_run(BASE, 0, {"AP": 40.0}), make_run("retinanet-r50-voc", 0, {"mAP": 77.7})
    assert names("--recipe", RLO) == names(RLO) == [tiny.name, failed.name]
    assert names("--profile", "tiny", "--state", "done") == [tiny.name]
    assert names("--profile", "none") == [base.name, voc.name]
    assert names("--dataset", "voc", "--dataset", "coco") == [base.name, voc.name]
    assert names("--recipe", RLO, "--dataset", "coco") == []
    assert typed("--dataset", "lvis") == "none of 4 runs is like that\n"
    assert "did you mean 'failed'" in refusal("--state", "faild").message


def test_runs_are_sorted(make_run: MakeRun):
    worst = make_run(BASE, 0, {"AP": 40.0})
    best, failed = make_run(RLO, 0, {"AP": 50.0}), make_run(RLO, 1, status="failed")
    record = best.read()
    record.timings["total_s"] = 89.0
    best.write(record)
    (best.path / "weights").write_bytes(b"x" * 5000)
    assert names() == [worst.name, best.name, failed.name]
    assert names("--sort", "metric") == [best.name, worst.name, failed.name]
    assert names("--sort", "took")[2] == best.name
    assert names("--sort", "size")[0] == best.name
    assert names("--sort", "state")[2] == failed.name
    assert "did you mean 'metric'" in refusal("--sort", "metrics").message


def test_disk_use_counts_files_and_not_what_links_lead_to(make_run: MakeRun, tmp_path: Path):
    run = make_run(RLO, 0, {"AP": 50.0})
    expected = sum(path.stat().st_size for path in run.path.iterdir()) + 5_000_000
    run.checkpoints.mkdir()
    with open(run.checkpoints / "iter_1.pth", "wb") as stream:
        stream.truncate(5_000_000)
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    (run.path / "link").symlink_to(tmp_path / "big")
    (run.path / "up").symlink_to(tmp_path)
    (row,) = json.loads(typed("--size", "--json"))
    assert row["bytes"] == expected
    assert "  5.0 MB" in table("--size")[1]


def test_the_whole_reason_of_a_failure_is_said_once_for_all_runs(make_run: MakeRun):
    message = "loss_cls of level P3 became NaN " + "x" * 300
    failed = [make_run(RLO, seed, profile="tiny") for seed in range(5)]
    for run in failed[:4]:
        fail(run, message, "msdet run it")
    fail(failed[4], "out of memory")
    text = typed().splitlines()
    start = ", ".join(run.name for run in failed[:3])
    assert f"{start} and 1 more: failed: {message}" in text
    assert text[text.index(f"{start} and 1 more: failed: {message}") + 1] == "  try: msdet run it"
    assert f"{failed[4].name}: failed: out of memory" in text


def test_of_one_run_everything_is_said(make_run: MakeRun):
    sets = tuple(f"weighting.{pair}" for pair in ("alpha=5", "n=1", "gamma=0.5", "epsilon=0.1"))
    run = make_run(
        RLO, 0, profile="tiny", sets=sets, notes=["trace.csv was lost"], command=["msdet", "run", RLO]
    )
    fail(run, "y" * 300)
    text = typed(run.name)
    for words in (
        f"results/runs/{run.name}",
        "weighting.epsilon: 0.1 (1e-05)",
        "trace.csv was lost",
        f"msdet run {RLO}",
    ):
        assert words in text
    (attempt,) = [line for line in text.splitlines() if line.startswith("attempt 1")]
    assert attempt.endswith(f"iterations 0, not finite: {'y' * 300}")
    assert "attempt" not in typed()


def test_runs_as_json(make_run: MakeRun):
    for seed in (0, 1):
        make_run(RLO, seed, {"AP": 51.0, "APS": 26.5}, profile="tiny")
    make_run(RLO, 2, status="running", profile="tiny")
    rows = json.loads(typed(RLO, "--json"))
    assert [row["state"] for row in rows] == ["done", "done", "interrupted"]
    assert rows[0]["record"]["metrics"]["APS"] == 26.5
    assert Path(rows[0]["folder"], "record.json").is_file()


def test_where_there_are_no_runs(tmp_path: Path):
    assert "msdet run retinanet-r50-rlo -p tiny" in typed()
    assert f"no runs of {BASE}" in typed(BASE)
    assert json.loads(typed("--json")) == []
    assert "did you mean 'retinanet-r50-rlo'" in refusal("retinanet-r50-rl0").message


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("absent", "does not exist"),
        ("file", "is a file"),
        ("photos", "has no folder `runs`"),
        ("real/runs", "has no folder `runs`"),
    ],
)
def test_a_folder_that_is_no_results_folder_is_refused(tmp_path: Path, place: str, says: str):
    (tmp_path / "file").touch()
    (tmp_path / "photos" / "me").mkdir(parents=True)
    run_maker(tmp_path / "real")(RLO, 0, {"AP": 50.0})
    error = refusal("--results-dir", place)
    assert (error.exit_code, says in error.message) == (2, True)
    if place == "real/runs":
        assert error.hint == f"msdet runs --results-dir {tmp_path / 'real'}"


def test_states_from_slurm_and_what_runs_wait_for(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    jobs = {"slurm": {"job_id": "12_3", "folder": str(tmp_path)}}
    make_run(RLO, 3, status="queued", profile="tiny", ways=(), **jobs)
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\necho asked >> asked\necho '12_3|PENDING|Priority'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    assert [line.split()[1] for line in table()[1:]] == ["done", "queued"]
    assert Path("asked").read_text().split() == ["asked"]  # once for all runs
    assert table("--state", "queued")[1].endswith("Slurm job 12_3: Priority")


def test_a_record_of_the_first_schema_is_listed_as_any_other(make_run: MakeRun):
    run = make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    content = json.loads(run.record_file.read_text(encoding="utf-8"))
    for key in set(content) - FIRST_SCHEMA:
        del content[key]
    content["schema_version"] = 1
    run.record_file.write_text(json.dumps(content), encoding="utf-8")
    assert table()[1].split()[:4] == [run.name, "done", "50.0", "1:30"]
    (row,) = json.loads(typed("--json"))
    assert (row["state"], row["record"]["launch"]["processes"]) == ("done", 1)


def test_a_broken_record_is_said_and_hides_nothing(make_run: MakeRun):
    make_run(RLO, 0, {"AP": 51.5})
    make_run(BASE, 5, {"AP": 1.0}).record_file.write_text("{", encoding="utf-8")
    text = typed()
    assert "Left out: " in text
    assert "51.5" in text


def test_each_record_is_read_once(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    for seed in range(4):
        make_run(RLO, seed, {"AP": 50.0})
    reads: list[str] = []
    real = RunFolder.read
    monkeypatch.setattr(RunFolder, "read", lambda self: (reads.append(self.name), real(self))[1])
    typed()
    assert len(reads) == len(set(reads)) == 4


def test_a_thousand_runs_are_listed_at_once(make_run: MakeRun):
    first = make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    for seed in range(1, 1000):
        folder = first.path.with_name(f"seed{seed}")
        folder.mkdir()
        shutil.copy(first.record_file, folder)
    began = time.process_time()  # not what others on the machine take
    assert len(table()) == 1001
    assert time.process_time() - began < 2


def test_an_ambiguous_run_lists_what_tells_them_apart(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    make_run(RLO, 0, {"AP": 50.0}, profile="tiny")
    make_run(RLO, 0, status="failed", profile="tiny", sets=("weighting.alpha=5",))
    monkeypatch.setattr("sys.argv", ["msdet", "logs", "seed0"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    error, head, first, second, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: run 'seed0' fits 2 runs: ")
    assert head.split()[:4] == ["run", "differs", "state", "AP"]
    rows = sorted(line.split("  ", 1)[1].split("1:30")[0].strip() for line in (first, second))
    assert [" ".join(row.split()) for row in rows] == ["alpha: 5 (10) failed", "done 50.0"]
    assert hint == "  try: msdet runs"


def test_a_list_fits_80_columns_without_a_cut_name(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    own = ("weighting.alpha=500", "weighting.n=1")
    runs = [make_run("retinanet-r50-rlo", 0, {"AP": 50.0}, sets=own[:number]) for number in (1, 2)]
    runs.append(make_run("retinanet-r50-rlo", 0, {"AP": 50.0}, profile="tiny", sets=("weighting.gamma=0.5",)))
    lines = table()
    assert max(map(len, lines)) <= 80
    for run in runs:
        assert any(run.name in line and " done" in line for line in lines)
    place = next(i for i, line in enumerate(lines) if line.startswith(runs[2].name))
    assert lines[place].split()[1:4] == ["tiny", "shapes", "done"]
    assert lines[place + 1] == "  gamma: 0.5 (0.01)"
