"""`msdet logs` and `msdet cancel`, on runs whose workers are made up."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.common.processes import process_started
from experiments.runs.record import Attempt, Record
from experiments.runs.run_folder import RunFolder, acquire_lock
from msdet_cli.commands import cancel, logs

app = typer.Typer(rich_markup_mode=None)
app.command("logs")(logs.logs)
app.command("cancel")(cancel.cancel)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    monkeypatch.setattr(logs, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(cancel, "POLL_INTERVAL_S", 0.05)


def a_run(status: str, seed: int = 0, log: str = "", **changes: object) -> RunFolder:
    run = RunFolder.of(Path("results"), "r50", "aaaa1111", seed)
    run.path.mkdir(parents=True)
    record = {
        "recipe": "r50",
        "recipe_id": "1" * 8,
        "config_hash": "aaaa1111",
        "seed": seed,
        "status": status,
    }
    run.write(Record(**{**record, **changes}))
    if log:
        run.log.write_text(log, encoding="utf-8")
    return run


def attempt(pid: int, **changes: object) -> Attempt:
    own = {"host": socket.gethostname(), "pid_started": process_started(pid)}
    return Attempt(**{"started": "2026-01-01T10:00:00+00:00", "pid": pid, **own, **changes})


def typed(*words: str, code: int = 0):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, result.output
    return result


def follow_while(work: Callable[[], None], *words: str):
    """What `msdet logs -f` prints while somebody else works on the run."""
    worker = threading.Thread(target=work)
    worker.start()
    result = typed("logs", "seed0", "-f", *words)
    worker.join()
    return result


def refusal(*words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    return caught.value


def test_the_last_lines_of_a_log_longer_than_a_block():
    text = "".join(f"line {i} ü{'x' * 90}\n" for i in range(3000))
    a_run("done", log=text)
    last = text.splitlines()
    assert typed("logs", "seed0", "-n", "3").stdout.splitlines() == last[-3:]
    assert typed("logs", "r50/aaaa1111/seed0").stdout.splitlines() == last[-20:]
    assert typed("logs", "seed0", "-n", "2000").stdout.splitlines() == last[-2000:]
    assert typed("logs", "seed0", "-n", "0").stdout == ""
    assert typed("logs", "seed0", "-n", "9999").stdout == text


def test_logs_of_a_run_without_log_and_of_an_unknown_run():
    a_run("queued")
    assert refusal("logs", "seed0").message == "r50/aaaa1111/seed0 has no log yet (queued)"
    assert "not found" in refusal("logs", "seed7").message


def test_follow_copies_new_lines_and_prints_the_result():
    me = attempt(os.getpid())
    run = a_run("running", log="one\ntwo\n", attempts=[me])

    def work() -> None:
        time.sleep(0.3)
        with open(run.log, "ab") as log:
            log.write("dr\xc3".encode("latin1"))  # half a letter
            log.flush()
            time.sleep(0.3)
            log.write("\xbcei\n".encode("latin1"))
        record = run.read()
        record.status, record.metrics, record.timings = "done", {"AP": 41.26}, {"total_s": 75.0}
        run.write(record)

    result = follow_while(work, "-n", "1")
    assert result.stdout == "two\ndrüei\n"
    assert result.stderr.splitlines()[-1] == "r50/aaaa1111/seed0: done in 1:15: AP 41.3"


def test_follow_switches_to_the_log_of_a_restarted_run():
    run = a_run("running", log="old\n", attempts=[attempt(os.getpid())])

    def anew() -> None:
        time.sleep(0.3)
        run.log.unlink()
        time.sleep(0.2)
        run.log.write_text("new\n")
        time.sleep(0.3)
        record = run.read()
        record.status = "failed"
        record.attempts[-1].message = "loss became NaN"
        run.write(record)

    result = follow_while(anew)
    assert result.stdout == "old\nnew\n"
    assert result.stderr.splitlines()[-1] == "r50/aaaa1111/seed0: failed: loss became NaN"


def test_logs_of_a_slurm_job_before_training_are_its_output(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")  # nor can Slurm be asked
    Path("jobs").mkdir()
    run = a_run("queued", slurm={"job_id": "12_3", "folder": str(Path("jobs").resolve())})
    Path("jobs/12_3_0_log.err").write_text("module: no such module\n")
    result = typed("logs", "seed0")
    assert result.stdout == "module: no such module\n"
    assert "Slurm job 12_3" in result.stderr
    run.log.write_text("the run's own\n")
    assert typed("logs", "seed0").stdout == "the run's own\n"


def test_follow_reads_a_slurm_jobs_output_anew_when_it_is_requeued(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")  # nor can Slurm be asked
    monkeypatch.setattr(logs, "SLURM_POLL_INTERVAL_S", 0.05)
    Path("jobs").mkdir()
    run = a_run("queued", slurm={"job_id": "12_3", "folder": str(Path("jobs").resolve())})
    output = Path("jobs/12_3_0_log.err")
    output.write_text("node fails\n")

    def requeue() -> None:
        time.sleep(0.3)
        output.unlink()
        output.write_text("another node\n")
        time.sleep(0.3)
        record = run.read()
        record.status = "failed"
        run.write(record)

    result = follow_while(requeue)
    assert result.stdout == "node fails\nanother node\n"


WORKER = """
import signal, sys, time
sys.path.insert(0, {root!r})
from experiments.runs.run_folder import RunFolder
run, deaf = RunFolder({path!r}), {deaf}
def end(*_):
    record = run.read()
    record.status = "cancelled" if run.cancel.exists() else "interrupted"
    run.cancel.unlink(missing_ok=True)
    run.write(record)
    sys.exit(75)
signal.signal(signal.SIGTERM, (lambda *_: None) if deaf else end)
print("ready", flush=True)
while True:
    time.sleep(0.1)
    if deaf and run.cancel.exists():  # the heartbeat
        end()
"""


def at_work(run: RunFolder, deaf: bool = False) -> subprocess.Popen[str]:
    """A process that works on the run; a deaf one sees the file only."""
    root = str(Path(__file__).resolve().parents[3])
    code = WORKER.format(root=root, path=str(run.path.resolve()), deaf=deaf)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    record = run.read()
    host = {"host": "another-machine"} if deaf else {}
    record.status, record.attempts = "running", [attempt(process.pid, **host)]
    run.progress.write_text("{}")
    run.write(record)
    return process


@pytest.mark.parametrize("deaf", [False, True])
def test_cancel_stops_a_running_run_and_waits_for_it(deaf: bool):
    run = a_run("queued")
    process = at_work(run, deaf)
    try:
        text = typed("cancel", "seed0").stdout
        assert process.wait(5) == 75
    finally:
        process.kill()
    assert text.splitlines()[0] == "r50/aaaa1111/seed0: cancelled"
    assert "--retry-failed" in text
    assert run.read().status == "cancelled"
    assert not run.cancel.exists()


def test_cancel_does_not_signal_a_reused_process_id(monkeypatch: pytest.MonkeyPatch):
    killed: list[int] = []
    real = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid) if number else real(pid, number))
    run = a_run("running", attempts=[attempt(os.getpid(), pid_started="1")])
    typed("cancel", "seed0")  # dead, so it is marked
    assert run.read().status == "cancelled"
    assert killed == []


@pytest.mark.parametrize("status", ["queued", "interrupted"])
def test_cancel_marks_a_run_without_a_process(status: str):
    run = a_run(status)
    rows = json.loads(typed("cancel", "seed0", "--json").stdout)
    assert rows == [
        {"run": run.name, "before": status, "state": "cancelled", "cancelled": True, "note": None}
    ]


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
def test_cancel_of_an_ended_run_changes_nothing(status: str):
    run = a_run(status)
    before = run.record_file.read_text()
    text = typed("cancel", "seed0").stdout
    assert text == f"{run.name}: {status}: nothing to cancel\n"
    assert run.record_file.read_text() == before


def test_cancel_of_a_starting_run_takes_effect_after_its_start():
    """Its lock is taken, its record still says queued: a mark there would be written over."""
    run = a_run("queued")
    with acquire_lock(run):
        one = cancel.Cancel(run)
        assert not one.step()
        assert not run.cancel.exists()
        assert run.read().status == "queued"
        process = at_work(run)
        try:
            deadline = time.monotonic() + 5
            while not one.step() and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            process.kill()
    assert one.outcome == "cancelled"


def test_run_that_ends_before_the_cancel_request_stays_done():
    run = a_run("running", attempts=[attempt(os.getpid(), host="another-machine")])
    run.progress.write_text("{}")
    one = cancel.Cancel(run)
    assert not one.step()
    assert run.cancel.exists()
    record = run.read()
    record.status = "done"
    run.write(record)
    assert one.step()
    assert one.outcome == "ended first"
    assert not run.cancel.exists()  # or --force would be cancelled at once


def test_cancel_reports_runs_that_do_not_stop_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cancel, "WAIT_S", 0.2)
    run = a_run("running", attempts=[attempt(1, host="another-machine")])
    run.progress.write_text("{}")
    assert "still running" in typed("cancel", "seed0", code=1).stdout
    assert run.cancel.exists()


def test_cancel_selects_runs_by_name_and_all():
    queued = [a_run("queued", seed=seed) for seed in (0, 1)]
    done, interrupted = a_run("done", seed=2), a_run("interrupted", seed=3)
    error = refusal("cancel", "r50")
    assert "fits 4 runs" in error.message
    assert "--all" in str(error.hint)
    assert "name a RUN, or use --all" in refusal("cancel").message
    assert "not found" in refusal("cancel", "r51", "--all").message
    assert [run.read().status for run in queued] == ["queued", "queued"]
    lines = typed("cancel", "r50", "--all").stdout.splitlines()
    assert lines[:2] == [f"{run.name}: cancelled" for run in queued]
    assert [run.read().status for run in (*queued, done, interrupted)] == [
        "cancelled", "cancelled", "done", "interrupted"]  # fmt: skip
    assert "nothing to cancel" in typed("cancel", "--all").stdout


def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> Path:
    """squeue that knows one job, and scancel that notes what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("squeue", f"echo '12_3|{state}|None'"), ("scancel", f'echo "$@" >> {folder}/told')):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "told"


@pytest.mark.parametrize(("state", "told"), [("PENDING", "12_3\n"), ("COMPLETED", "")])
def test_cancel_removes_the_slurm_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, told: str):
    notes = slurm(tmp_path, monkeypatch, state)
    run = a_run("queued", slurm={"job_id": "12_3", "folder": "jobs"})
    typed("cancel", "seed0")
    assert run.read().status == "cancelled"
    assert (notes.read_text() if notes.exists() else "") == told


def test_cancel_reports_that_slurm_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    run = a_run("queued", slurm={"job_id": "12_3", "folder": "jobs"})
    assert "Slurm cannot be asked from here" in typed("cancel", "seed0").stdout
    assert run.read().status == "cancelled"


def test_ctrl_c_ends_logs_quietly():
    run = a_run("running", log="one\n", attempts=[attempt(os.getpid())])
    code = "import sys; from msdet_cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "logs", str(run.path.resolve()), "-f"],
        cwd=Path(__file__).resolve().parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "one\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
