"""Running planned runs one after another, and what the console shows; workers are made up."""

import io
import json
import os
import re
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console

from experiments.common.errors import INTERRUPTED, NOT_FINITE
from experiments.launching import queue
from experiments.launching.plan import PlanOptions, plan
from experiments.launching.torchrun import RankFailure
from experiments.recipes.loading import load_recipe
from msdet_cli import main as command_line
from msdet_cli import run_plan as executing
from msdet_cli.console.formatting import format_duration
from msdet_cli.console.run_view import RunView, format_status


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MSDET_RESULTS", raising=False)


class FakeWorker:
    """Ends as `codes` say, in order, and writes the record a real worker would."""

    codes: ClassVar[list[int]]
    started: ClassVar[list[str]]

    def __init__(self, folder, *launch, **options):
        self.folder = folder
        self.code = self.codes.pop(0)
        self.started.append(folder.name)
        record = folder.read()
        record.status = {0: "done", INTERRUPTED: "interrupted"}.get(self.code, "failed")
        record.metrics = {"AP": 40.0 + record.seed} if self.code == 0 else {}
        folder.write(record)
        if self.code == INTERRUPTED:
            signal.raise_signal(signal.SIGINT)  # as typed while it works

    def wait(self, seconds):
        return True

    def stop(self):
        raise AssertionError("nobody asked")

    @property
    def failure(self):
        reason = "loss_cls of level P3 [x] became NaN", "lower [red]schedule.lr"
        return RankFailure(0, self.code, *reason) if self.code else None


@pytest.fixture
def workers(monkeypatch):
    FakeWorker.codes, FakeWorker.started = [], []
    monkeypatch.setattr(queue, "LocalWorker", FakeWorker)
    return FakeWorker


QUIET = Console(quiet=True)
FEW = ["--set", "dataset.generate.train_images=4", "--set", "dataset.generate.val_images=2"]


def planned(tmp_path, seeds, **options):
    recipe = load_recipe("retinanet-r50", "tiny")
    return plan([("", recipe)], PlanOptions(seeds, tmp_path / "results", generate=False, **options))


def console():
    return Console(file=io.StringIO(), width=120)


def test_one_failure_does_not_stop_the_rest(tmp_path, workers):
    workers.codes = [0, NOT_FINITE, 0]
    screen = console()
    code = executing.execute(planned(tmp_path, [0, 1, 2]), screen)
    assert code == NOT_FINITE  # the one code that was not 0
    assert [name.rpartition("/")[2] for name in workers.started] == ["seed0", "seed1", "seed2"]
    shown = screen.file.getvalue()
    assert "level P3 [x] became NaN" in shown  # not taken for markup
    assert "lower [red]schedule.lr" in shown
    assert "AP 42.0" in shown


def test_repeated_command_skips_done_and_reports_failed_runs(tmp_path, workers):
    workers.codes = [0, NOT_FINITE]
    executing.execute(planned(tmp_path, [0, 1]), QUIET)
    again = planned(tmp_path, [0, 1])
    assert [run.todo for run in again] == ["skip", "failed"]
    before = again[1].folder.record_file.read_text()
    screen = console()
    assert executing.execute(again, screen) == 1
    assert "--retry-failed" in screen.file.getvalue()
    assert again[1].folder.record_file.read_text() == before
    workers.codes = [0]
    retried = planned(tmp_path, [0, 1], retry_failed=True)
    assert [run.todo for run in retried] == ["skip", "start"]
    assert executing.execute(retried, QUIET) == 0
    assert len(workers.started) == 3


def test_force_restarts_done_runs(tmp_path, workers):
    workers.codes = [0, 0]
    executing.execute(planned(tmp_path, [0]), QUIET)
    left = planned(tmp_path, [0])[0].folder.path / "trace.csv"
    left.write_text("of the first time")
    assert executing.execute(planned(tmp_path, [0], force=True), QUIET) == 0
    assert not left.exists()
    assert len(workers.started) == 2


def test_interrupted_run_decides_the_exit_code(tmp_path, workers):
    workers.codes = [NOT_FINITE, INTERRUPTED]
    assert executing.execute(planned(tmp_path, [0, 1]), QUIET) == INTERRUPTED


def msdet(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["msdet", *words])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return ended.value.code or 0, *capsys.readouterr()


def test_json_prints_only_json(tmp_path, workers, monkeypatch, capsys):
    workers.codes = [0, 0]
    code, out, _ = msdet(
        monkeypatch, capsys, "run", "retinanet-r50", "-p", "tiny", "--seeds", "2", "--json", *FEW
    )
    rows = json.loads(out)
    assert code == 0
    assert [row["record"]["metrics"]["AP"] for row in rows] == [40.0, 41.0]
    assert [row["state"] for row in rows] == ["done", "done"]


def test_several_recipes_are_compared_in_the_reports_table(tmp_path, workers, monkeypatch, capsys):
    workers.codes = [0, 0]
    code, out, _ = msdet(monkeypatch, capsys, "run", "retinanet-r50", "retinanet-r50-rlo", "-p", "tiny", *FEW)
    assert code == 0
    assert "Comparison, profile tiny on shapes" in out
    assert "Δ AP: to retinanet-r50." in out
    assert (
        len([line for line in out.splitlines() if line.startswith("retinanet-r50") and "40.0 ±" in line]) == 2
    )


def dry_run(monkeypatch, capsys, *words):
    code, out, err = msdet(monkeypatch, capsys, "ablate", "-p", "tiny", "--dry-run", "--json", *words)
    assert code == 0, err
    return [row["label"] for row in json.loads(out)], err


def test_ablate_varies_each_option_alone(monkeypatch, capsys):
    labels, err = dry_run(
        monkeypatch, capsys, "--alpha", "50,5", "--n", "1,3", "--gamma", "0,0.02",
        "--actions", "variance,largest+uniform,all", "--set", "weighting.amplification=[1.5,1.0],[2.0,1.0]",
        "--set", "schedule.iterations=200",
    )  # fmt: skip
    assert labels == [
        "rule=uniform",
        "alpha=5",
        "alpha=10",  # the recipe's own, which is that of the other rows as well: planned once
        "alpha=50",
        "n=1",
        "n=3",
        "gamma=0",
        "gamma=0.02",
        "actions=[largest, uniform]",
        "actions=[variance]",
        "amplification=[2.0, 1.0]",
    ]  # fmt: skip
    assert "warning" not in err
    assert not Path("results").exists()


def test_ablate_grid_seeds_and_literal_alpha(monkeypatch, capsys, tmp_path):
    labels, err = dry_run(monkeypatch, capsys, "--grid", "--alpha", "5,500", "--n", "1,2", "--seeds", "2")
    rows = [
        "rule=uniform",
        "alpha=5, n=1",
        "alpha=5, n=2",
        "alpha=10, n=2",
        "alpha=500, n=1",
        "alpha=500, n=2",
    ]
    assert labels == [row for row in rows for _ in range(2)]
    assert "alpha=500" in err
    assert "never change" in err
    assert "alpha=5," not in err
    recipe = load_recipe("retinanet-r50-rlo", "tiny", ["weighting.alpha=5"])
    assert recipe.weighting["alpha"] == 5  # not shortened by the profile
    assert load_recipe("retinanet-r50-rlo", "tiny").weighting["alpha"] == 10


PROGRESS = {
    "phase": "train", "iteration": 120, "total": 330, "epoch": 3, "epochs": 7, "seconds_per_iteration": 0.25,
    "eta_s": 52.5, "lr": 0.001, "loss": 0.75, "heads": [{
        "head": "bbox_head", "weights": {"P3": 1.0, "P4": 1.375}, "action": "largest",
        "probabilities": {"variance": 0.2, "smallest": 0.2, "largest": 0.35, "uniform": 0.25}}],
}  # fmt: skip


def test_status_line_names_phase_iteration_loss_and_weights():
    line = format_status(PROGRESS)
    assert line == (
        "epoch 3/7, iteration 120/330, ETA 0:52 (0.25 s/it), loss 0.750, lr 0.001, weights P3 1.00 P4 1.38 (largest)"
    )
    assert "weights" not in format_status(PROGRESS, with_weights=False)
    assert format_status({"phase": "evaluate", "batch": 3, "batches": 19}) == "evaluating, batch 3 of 19"
    assert format_status({"phase": "evaluate", "batch": 19, "batches": 19}) == "computing metrics"
    assert [format_duration(s) for s in (None, 9, 75, 3725)] == ["", "0:09", "1:15", "1:02:05"]


def test_the_live_panel_shows_weights_and_probabilities(tmp_path, workers):
    run = planned(tmp_path, [0])[0].folder
    run.path.mkdir(parents=True)
    screen = console()
    view = RunView(run, "1 of 2")
    screen.print(view.panel())
    assert "loading" in screen.file.getvalue()
    run.progress.write_text(json.dumps(PROGRESS))
    screen.print(view.panel())
    shown = screen.file.getvalue()
    for word in ("1 of 2", "120/330", "ETA 0:52", "P4", "1.375", "p(largest)", "0.350", "in force"):
        assert word in shown
    run.progress.write_text("half a fi")  # a reader must survive it
    view._seen = (0.0, {})
    assert view.progress() == {}


def odd_progress(phase="train"):
    """What a user's own rule may call its action, and a results folder of an odd name, are shown as they are."""
    head = {**PROGRESS["heads"][0], "action": "[/odd]", "probabilities": {"[/odd]": 1.0}}
    return {**PROGRESS, "phase": phase, "heads": [head]}


@pytest.mark.parametrize("terminal", [True, False])
def test_names_are_not_taken_for_markup(tmp_path, workers, terminal):
    results = tmp_path / "res[/red]ults"
    recipe = load_recipe("retinanet-r50", "tiny")
    runs = plan([("", recipe)], PlanOptions([0, 1], results, generate=False))
    runs[1] = replace(runs[1], label="[/label]")
    screen = Console(file=io.StringIO(), width=300, force_terminal=terminal, color_system=None)
    for run in runs:
        run.folder.path.mkdir(parents=True)
        run.folder.progress.write_text(json.dumps(odd_progress()))
        screen.print(RunView(run.folder, "1 of [/2]").panel())
        run.folder.progress.unlink()
    executing.show_plan(screen, runs)
    workers.codes = [0, NOT_FINITE]
    assert executing.execute(runs, screen) == NOT_FINITE
    executing.execute(plan([("", recipe)], PlanOptions([0, 1], results, generate=False)), screen)
    shown = screen.file.getvalue()
    assert "[/odd]" in shown
    assert "[/label]" in shown
    assert shown.count("res[/red]ults") >= 3
    assert "lower [red]schedule.lr" in shown


def test_panel_shows_evaluation_and_omits_unweighted_levels(tmp_path):
    run = planned(tmp_path, [0])[0].folder
    run.path.mkdir(parents=True)
    view = RunView(run, "1 of 1")
    for content, words, absent in (
        (
            {**PROGRESS, "phase": "evaluate", "batch": 3, "batches": 19},
            ["batch 3 of 19", "3/19"],
            ["120/330"],
        ),
        ({**PROGRESS, "eta_s": None, "loss": None, "lr": None}, ["120/330"], ["ETA", "loss", "lr"]),
        (
            {
                **PROGRESS,
                "heads": [{"head": "h", "weights": {"P3": 1.0}, "action": None, "probabilities": {}}],
            },
            ["120/330"],
            ["P3", "p("],
        ),
    ):
        run.progress.write_text(json.dumps(content))
        view._seen = (0.0, {})
        screen = console()
        screen.print(view.panel())
        shown = screen.file.getvalue()
        assert all(word in shown for word in words), shown
        assert not any(word in shown for word in absent), shown


def test_progress_of_an_earlier_attempt_is_not_shown(tmp_path):
    run = planned(tmp_path, [0])[0].folder
    run.path.mkdir(parents=True)
    run.progress.write_text(json.dumps(PROGRESS))
    long_ago = time.time() - 3600
    os.utime(run.progress, (long_ago, long_ago))
    assert RunView(run, "1 of 1").progress() == {}
    run.progress.write_text(json.dumps(PROGRESS))
    assert RunView(run, "1 of 1").progress() == PROGRESS


def test_json_prints_only_json_when_a_run_fails(tmp_path, workers, monkeypatch, capsys):
    workers.codes = [NOT_FINITE, 0]
    words = ["run", "retinanet-r50", "-p", "tiny", "--seeds", "2", "--json", *FEW]
    code, out, _ = msdet(monkeypatch, capsys, *words)
    assert code == NOT_FINITE
    assert [row["state"] for row in json.loads(out)] == ["failed", "done"]


def test_a_run_that_cannot_be_prepared_does_not_stop_the_rest(tmp_path, workers):
    runs = planned(tmp_path, [0, 1])
    runs[0].folder.path.parent.mkdir(parents=True)
    runs[0].folder.path.write_text("a file where the run should be")
    workers.codes = [0]
    screen = console()
    assert executing.execute(runs, screen) == 2
    assert "cannot be written" in screen.file.getvalue()
    assert [name.rpartition("/")[2] for name in workers.started] == ["seed1"]


def test_signal_stops_the_running_run_and_starts_no_other(tmp_path, workers, monkeypatch):
    asked = []

    class Stoppable(FakeWorker):
        def wait(self, seconds):
            return bool(asked)

        def stop(self):
            asked.append(self.folder.name)

    monkeypatch.setattr(queue, "LocalWorker", Stoppable)
    workers.codes = [INTERRUPTED]
    runs = planned(tmp_path, [0, 1])
    before = signal.getsignal(signal.SIGINT)
    assert executing.execute(runs, QUIET) == INTERRUPTED
    assert asked == [runs[0].folder.name]
    assert len(workers.started) == 1
    assert runs[1].folder.read().attempts == []
    assert signal.getsignal(signal.SIGINT) is before  # Ctrl-C is the console's again


def test_failed_runs_are_listed_with_the_end_of_their_logs(tmp_path, workers, monkeypatch):
    class Writing(FakeWorker):
        def __init__(self, folder, *launch, **options):
            super().__init__(folder)
            folder.log.write_text("\n".join(["long ago", *(f"line {n} [x]" for n in range(5)), ""]))

    monkeypatch.setattr(queue, "LocalWorker", Writing)
    workers.codes = [NOT_FINITE, 0]
    screen = Console(file=io.StringIO(), width=300)
    executing.execute(planned(tmp_path, [0, 1]), screen)
    end = screen.file.getvalue().partition("1 of 2 runs failed:")[2]
    assert "seed0" in end and "seed1" not in end
    assert "line 0 [x]" in end and "line 4 [x]" in end and "long ago" not in end
    assert str(tmp_path / "results" / "runs") in end and end.rstrip().endswith("log.txt")


def test_unknown_failure_is_retried_and_reported(tmp_path, workers):
    workers.codes = [1, 0]
    screen = console()
    assert executing.execute(planned(tmp_path, [0]), screen) == 0
    assert "attempt 2" in screen.file.getvalue() and "1 of 2" in screen.file.getvalue()


def test_detach_plans_first_and_continues_in_the_background(tmp_path, monkeypatch, capsys):
    """The plan is made and checked in the foreground; what is left is the same command in a session of its own."""
    code, _, err = msdet(monkeypatch, capsys, "run", "retinanet-r50", "-p", "tiny", "--gpus", "3", "--detach")
    assert code == 2 and "3 workers cannot share" in err  # said here, not in a log
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr(
        executing, "DETACHED_BOOT", "import os, sys, time; print(sys.argv[1:], os.getsid(0) == os.getpid())"
    )
    code, out, _ = msdet(monkeypatch, capsys, "run", "retinanet-r50", "-p", "tiny", *FEW, "--detach")
    assert code == 0 and "msdet runs" in out
    assert re.search(
        r"stop and save checkpoints: msdet cancel retinanet-r50/[0-9a-f]{8}/seed0$", out, re.MULTILINE
    )
    (log,) = (tmp_path / "results" / "queues").iterdir()
    assert str(log.relative_to(tmp_path)) in out
    pid = int(log.stem.rpartition("-")[2])
    assert f"process {pid}" in out
    deadline = time.monotonic() + 20
    while not log.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert log.read_text() == f"{['run', 'retinanet-r50', '-p', 'tiny', *FEW]} True\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--amp", "fp8"], "--amp: 'fp8' is not allowed: bf16, fp16"),
        (["--nodes", "2"], "--nodes requires --rdzv HOST:PORT"),
        (["--scale-lr"], "--gpus 8 --scale-lr"),
    ],
)
def test_invalid_launch_options_are_refused(monkeypatch, capsys, words, says):
    code, _, err = msdet(monkeypatch, capsys, "run", "retinanet-r50", "-p", "tiny", "--dry-run", *words)
    assert code == 2 and says in err and "Traceback" not in err


def test_another_batch_or_precision_is_another_run(monkeypatch, capsys):
    words = ["run", "retinanet-r50", "-p", "tiny", "--dry-run", "--json", *FEW]
    folders = set()
    for more in ([], ["--gpus", "2"], ["--gpus", "2", "--scale-lr"], ["--amp", "bf16"]):
        code, out, err = msdet(monkeypatch, capsys, *words, *more)
        assert code == 0, err
        folders.add(json.loads(out)[0]["folder"])
    assert len(folders) == 3  # two workers alone change nothing
