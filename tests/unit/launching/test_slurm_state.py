"""States of runs in Slurm, from what squeue prints and jobs leave in their logs; Slurm itself is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.common.errors import UserError
from experiments.launching.slurm.job import (
    SlurmState,
    ask_states,
    cancel_job,
    find_error_log,
    find_status,
)
from experiments.runs.record import Record, Status

CANCELLED = "slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT 2024-05-01T10:00:00 ***\n"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for made-up commands, the first on the PATH; calls are kept in `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def command(folder: Path, name: str, prints: str = "", code: int = 0) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\ncat <<"END"\n{prints}END\nexit {code}\n')
    path.chmod(0o755)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def test_one_call_tells_of_all_runs(commands: Path) -> None:
    command(commands, "squeue", "7_0|RUNNING|None\n7_1|PENDING|JobArrayTaskLimit\n7_9|RUNNING|None\n"
                                "12|CANCELLED|None\n8|PENDING|(null)\n")  # fmt: skip
    states = ask_states(["7_0", "7_1", "12", None, "8"])
    assert states == {
        "7_0": SlurmState("RUNNING"), "7_1": SlurmState("PENDING", "JobArrayTaskLimit"),
        "12": SlurmState("CANCELLED"), "8": SlurmState("PENDING"),
    }  # fmt: skip
    assert [state.is_active for state in states.values()] == [True, True, False, True]
    (call,) = calls(commands)
    assert call.endswith("--jobs=7,8,12")


def test_without_jobs_squeue_is_not_called(commands: Path) -> None:
    command(commands, "squeue")
    assert ask_states([None]) == {}
    assert calls(commands) == []


def test_a_job_that_slurm_has_forgotten_is_no_error(commands: Path) -> None:
    (commands / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n"
    )
    (commands / "squeue").chmod(0o755)
    assert ask_states(["7"]) == {}


def test_where_slurm_does_not_answer_nothing_is_known(commands: Path) -> None:
    assert ask_states(["7"]) is None  # no squeue
    command(commands, "squeue", code=1)
    assert ask_states(["7"]) is None


def a_record(folder: Path, status: Status, log: str | None = None) -> Record:
    record = Record(recipe="r", recipe_id="1", config_hash="2", seed=0, status=status)
    record.slurm = {"job_id": "7", "folder": str(folder)}
    if log is not None:
        find_error_log(record.slurm).write_text(log)
    return record


@pytest.mark.parametrize(
    ("status", "job", "log", "reads", "why"),
    [
        # in the queue: Slurm's word
        ("queued", ("PENDING", "Priority"), None, "queued", "Priority"),
        ("interrupted", ("PENDING", "BeginTime"), "CANCELLED AT x DUE TO JOB REQUEUE ***", "queued", "BeginTime"),
        ("queued", ("RUNNING", ""), "", "running", None),
        ("interrupted", ("RUNNING", ""), "", "running", None),
        # the run's own word comes first once it is at its end
        ("done", ("COMPLETING", ""), "", "done", None),
        ("failed", None, "error: a", "failed", None),
        # gone
        ("queued", ("CANCELLED", ""), None, "cancelled", "Slurm job 7 was cancelled"),
        ("interrupted", None, "srun: got SIGCONT\n" + CANCELLED, "cancelled", "Slurm job 7 was cancelled"),
        ("queued", None, None, "cancelled", "Slurm job 7 left the queue before it began"),
        ("queued", ("FAILED", "NonZeroExitCode"), None, "failed", "Slurm job 7: FAILED NonZeroExitCode"),
        ("queued", None, "/bin/sh: python9: command not found\nsrun: error: n1: task 0: Exited with exit code 127\n",
         "failed", "/bin/sh: python9: command not found"),
        ("interrupted", None, CANCELLED.replace(" ***\n", " DUE TO TIME LIMIT ***\n"), "interrupted",
         "Slurm job 7 was ended by Slurm: time limit"),
        ("queued", None, "slurmstepd-n1: error: execve(): /no/python: No such file or directory\n"
                         "srun: error: n1: task 0: Exited with exit code 2\n",
         "failed", "execve(): /no/python: No such file or directory"),
        # a job that was queued again and then could not begin
        ("interrupted", None, CANCELLED.replace(" ***\n", " DUE TO JOB REQUEUE ***\n") + "sh: no such command",
         "interrupted", "sh: no such command"),
    ],
)  # fmt: skip
def test_status(
    tmp_path: Path, status: Status, job: tuple[str, str] | None, log: str | None, reads: str, why: str | None
) -> None:
    record = a_record(tmp_path, status, log)
    states = {"7": SlurmState(*job)} if job else {}
    assert find_status(record, status, states) == (reads, why)


def test_where_slurm_cannot_be_asked_the_record_counts(tmp_path: Path) -> None:
    record = a_record(tmp_path, "queued")
    assert find_status(record, "queued", None) == ("queued", None)
    record.slurm = None
    assert find_status(record, "queued", {}) == ("queued", None)


def test_cancelling(commands: Path) -> None:
    command(commands, "scancel")
    cancel_job("7_1")
    assert calls(commands) == ["scancel 7_1"]
    command(commands, "scancel", "Invalid job id\n", code=1)
    with pytest.raises(UserError, match="scancel 9: Invalid job id"):
        cancel_job("9")
