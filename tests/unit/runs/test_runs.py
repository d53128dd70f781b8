"""The run folder: names, record, states, and finding the run that a person means."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.common.errors import UserError
from experiments.common.files import replacing, write_json, write_text
from experiments.common.processes import STALE_AFTER_S, process_started
from experiments.runs.lookup import find_results_dir, iterate, resolve
from experiments.runs.record import SCHEMA_VERSION, Attempt, Record
from experiments.runs.run_folder import RunFolder


def a_record(**changes: object) -> Record:
    return Record(**{"recipe": "r50", "recipe_id": "1" * 8, "config_hash": "2" * 8, "seed": 0, **changes})


def an_attempt(**changes: object) -> Attempt:
    own = {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": process_started(os.getpid())}
    return Attempt(**{"started": "2026-01-01T10:00:00+00:00", **own, **changes})


def a_run(results: Path, recipe: str = "r50", digest: str = "aaaa1111", seed: int = 0) -> RunFolder:
    run = RunFolder.of(results, recipe, digest, seed)
    run.path.mkdir(parents=True)
    run.write(a_record(recipe=recipe, config_hash=digest, seed=seed))
    return run


def ended_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_folder_is_named_by_recipe_hash_and_seed(tmp_path: Path):
    run = RunFolder.of(tmp_path, "r50", "aaaa1111", 3)
    assert run.path == tmp_path / "runs" / "r50" / "aaaa1111" / "seed3"
    assert run.name == "r50/aaaa1111/seed3"
    assert run.record_file == run.path / "record.json"
    assert run.recipe.name == "recipe.yaml"
    assert run.progress.parent == run.trace.parent == run.path


def test_a_record_reads_back_as_it_was_written(tmp_path: Path):
    run = a_run(tmp_path)
    record = a_record(
        status="done",
        metrics={"AP": 36.912345678},
        attempts=[an_attempt(world_size=4, micro_batch=2, exit_code=0)],
        dataset={"name": "shapes", "fingerprint": "f"},
        git={"commit": "c", "dirty": True, "patch": "+ü\n"},
    )
    run.write(record)
    back = run.read()
    assert back == record
    assert back.metrics["AP"] == 36.912345678
    assert back.updated > ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "is not a run record"),
        ('{"recipe": "r50"}', "recipe_id"),
        (json.dumps({**a_record().model_dump(), "surprise": 1}), "surprise"),
        (json.dumps({**a_record().model_dump(), "status": "finished"}), "status"),
        (json.dumps({**a_record().model_dump(), "schema_version": SCHEMA_VERSION + 1}), "schema"),
    ],
)
def test_a_broken_or_newer_record_is_one_sentence(tmp_path: Path, text: str, says: str):
    run = a_run(tmp_path)
    run.record_file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says) as caught:
        run.read()
    assert "record.json" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_folder_without_record_is_no_run(tmp_path: Path):
    with pytest.raises(UserError, match="no run folder"):
        RunFolder(tmp_path).read()


@pytest.mark.parametrize("status", ["queued", "interrupted", "done", "failed", "cancelled"])
def test_every_other_status_reads_as_it_is(tmp_path: Path, status: str):
    run = a_run(tmp_path)
    assert run.state(a_record(status=status, attempts=[an_attempt(pid=ended_process())])) == status


def test_running_is_believed_of_a_live_process_only(tmp_path: Path):
    run = a_run(tmp_path)
    run.write(a_record(status="running", attempts=[an_attempt()]))
    assert run.state() == "running"
    assert run.state(a_record(status="running", attempts=[an_attempt(pid=ended_process())])) == "interrupted"
    assert run.state(a_record(status="running")) == "interrupted"
    # what counts is the last attempt
    mixed = [an_attempt(pid=ended_process()), an_attempt()]
    assert run.state(a_record(status="running", attempts=mixed)) == "running"
    assert run.state(a_record(status="running", attempts=mixed[::-1])) == "interrupted"


@pytest.mark.skipif(
    process_started(os.getpid()) is None, reason="this system does not tell when a process began"
)
def test_a_number_used_again_by_another_process_is_not_the_run(tmp_path: Path):
    run = a_run(tmp_path)
    reused = an_attempt(pid_started=str(int(process_started(os.getpid())) - 1))
    assert run.state(a_record(status="running", attempts=[reused])) == "interrupted"


def test_on_another_host_the_heartbeat_tells(tmp_path: Path):
    run = a_run(tmp_path)
    record = a_record(status="running", attempts=[an_attempt(host="another-machine", pid=1)])
    assert run.state(record) == "interrupted"  # it never beat
    run.progress.write_text("{}", encoding="utf-8")
    assert run.state(record) == "running"
    past = time.time() - STALE_AFTER_S - 1
    os.utime(run.progress, (past, past))
    assert run.state(record) == "interrupted"


def test_a_process_without_a_start_time_counts_as_the_run_while_it_shows_life(tmp_path: Path):
    run = a_run(tmp_path)
    record = a_record(status="running", attempts=[an_attempt(pid_started=None)])
    assert run.state(record) == "running"
    past = time.time() - STALE_AFTER_S - 1
    os.utime(run.record_file, (past, past))
    assert run.state(record) == "interrupted"
    run.progress.write_text("{}", encoding="utf-8")
    assert run.state(record) == "running"
    ended = an_attempt(pid=ended_process(), pid_started=None)
    assert run.state(a_record(status="running", attempts=[ended])) == "interrupted"


def test_the_last_checkpoint_is_the_one_of_most_iterations(tmp_path: Path):
    run = a_run(tmp_path)
    assert run.last_checkpoint() is None
    run.checkpoints.mkdir()
    for name in ("iter_90.pth", "iter_1000.pth", "iter_200.pth", ".iter_2000.pth.x.tmp", "best.pth"):
        (run.checkpoints / name).touch()
    assert run.last_checkpoint() == run.checkpoints / "iter_1000.pth"


def test_where_results_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    assert find_results_dir() == Path("results")
    monkeypatch.setenv("MSDET_RESULTS", "/elsewhere")
    assert find_results_dir() == Path("/elsewhere")
    assert find_results_dir(Path("here")) == Path("here")


def test_iterate_finds_every_run_in_order_and_nothing_else(tmp_path: Path):
    for recipe, digest, seed in (("b", "1" * 8, 0), ("a", "2" * 8, 1), ("a", "2" * 8, 0)):
        a_run(tmp_path, recipe, digest, seed)
    (tmp_path / "runs" / "a" / "33333333" / "seed0").mkdir(parents=True)  # not begun: no record
    names = [run.name for run in iterate(tmp_path)]
    assert names == ["a/22222222/seed0", "a/22222222/seed1", "b/11111111/seed0"]
    assert list(iterate(tmp_path / "absent")) == []


def test_resolve_takes_a_folder_a_name_or_any_unambiguous_part(tmp_path: Path):
    first, second = a_run(tmp_path, "r50", "aaaa1111", 0), a_run(tmp_path, "r50", "aaaa1111", 1)
    third = a_run(tmp_path, "r101", "bbbb2222", 0)
    for reference, meant in (
        (str(first.path), first),
        ("r50/aaaa1111/seed1", second),
        ("aaaa1111/seed1", second),
        ("seed1", second),
        ("bbbb2222", third),
        ("r101/", third),
    ):
        assert resolve(reference, tmp_path).path == meant.path


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("r50", "fits 2 runs: r50/aaaa1111/seed0, r50/aaaa1111/seed1"),
        ("r5", "not found"),  # a part is whole components
        ("r50/aaaa1111/seed9", "did you mean 'r50/aaaa1111/seed"),
    ],
)
def test_resolve_refuses_to_guess(tmp_path: Path, reference: str, says: str):
    for seed in (0, 1):
        a_run(tmp_path, seed=seed)
    with pytest.raises(UserError, match=says) as caught:
        resolve(reference, tmp_path)
    assert caught.value.hint == "msdet runs"


def test_resolve_says_that_there_are_no_runs(tmp_path: Path):
    with pytest.raises(UserError, match="it has no runs"):
        resolve("r50", tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "record.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as stream:
        stream.write("half of the n")
        raise RuntimeError
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_reader_never_meets_half_a_file(tmp_path: Path):
    path = tmp_path / "progress.json"
    write_json(path, {"iteration": 1})
    with replacing(path) as stream:
        stream.write('{"iteration": ')
        stream.flush()
        assert json.loads(path.read_text()) == {"iteration": 1}
        stream.write("2}")
    assert json.loads(path.read_text()) == {"iteration": 2}


def test_written_files_are_as_open_to_others_as_any(tmp_path: Path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "written", "")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode
