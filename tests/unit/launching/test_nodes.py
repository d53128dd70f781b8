"""One run on two machines, which are two commands here: one leads, the other joins every attempt."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.launching.execution import Execution
from experiments.launching.nodes import (
    FRESH_S,
    Invitation,
    dismiss,
    invitation,
    invitation_file,
    invite,
    is_here,
)
from experiments.launching.plan import plan
from experiments.launching.queue import Queue, QueueItem
from experiments.launching.queue_items import report_as_it_is
from experiments.recipes.loading import load_recipe
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder

# Rank 1 fails in the first attempt; rank 0 waits for it as in a collective, and finds itself alone.
WORKER = """
import json, os, sys, time
folder, rank = sys.argv[1], int(os.environ["RANK"])
record = json.load(open(folder + "/record.json"))
attempt = len(record["attempts"]) + 1 if rank == 0 else None
def keep():
    json.dump(record, open(folder + "/record.json.new", "w"))
    os.replace(folder + "/record.json.new", folder + "/record.json")
if rank == 0:
    size = int(os.environ["WORLD_SIZE"])
    entry = {"started": "", "host": os.uname().nodename, "pid": os.getpid(), "world_size": size}
    record["attempts"].append(entry)
    record["status"] = "running"
    keep()
first = not os.path.exists(folder + "/second")
time.sleep(1)
if first and rank == 1:
    open(folder + "/second", "w").close()
    json.dump({"exit_code": 1, "message": "no such image"}, open(folder + "/.rank1.json", "w"))
    sys.exit(1)
if first and rank == 0:
    time.sleep(0.5)
code = int(first)
if rank == 0:
    entry.update(exit_code=code, message="Connection closed by peer" if code else None)
    record["status"] = "failed" if code else "done"
    keep()
sys.exit(code)
"""
COMMAND = """
import sys
from tests.unit.launching.test_nodes import command
sys.exit(command(*sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def queue_of(place: Path, rdzv: str) -> Queue:
    execution = Execution(gpus=1, nodes=2, rdzv=rdzv)
    execution.check()
    runs = plan(
        [("", load_recipe("retinanet-r50", "tiny"))],
        [0],
        place / "results",
        generate=False,
        execution=execution,
    )
    return Queue(runs, ["msdet"], execution)


def command(place: str, rdzv: str) -> int:
    from experiments.launching import local

    elastic = (
        f"from experiments.launching import elastic; elastic.BOOT = {WORKER!r}; sys.exit(elastic.main())"
    )
    local.ELASTIC_BOOT = local.PATHS + elastic
    queue = queue_of(Path(place), rdzv)
    while queue.step(0.1):
        pass
    (entry,) = queue.entries
    print(json.dumps([entry.state, entry.attempts, entry.message]))
    return entry.code or 0


@pytest.mark.slow
def test_two_machines_share_a_run_and_try_again_together(place: Path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        rdzv = f"localhost:{probe.getsockname()[1]}"
    root = Path(__file__).resolve().parents[3]
    words = [sys.executable, "-c", COMMAND, str(place), rdzv]
    commands = [
        subprocess.Popen(
            words, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in commands]
    assert [process.returncode for process in commands] == [0, 0], said
    assert sorted(json.loads(line)[:2] for line in said) == [["done", 2], ["done", 2]]
    first, second = queue_of(place, rdzv).entries[0].run.folder.read().attempts
    assert (first.exit_code, first.message) == (1, "rank 1: no such image")
    assert (second.exit_code, second.world_size) == (0, 2)


def test_which_machine_leads():
    assert is_here("localhost:29400") and is_here("127.0.0.1:29400")
    assert not is_here("192.0.2.1:29400")  # an address that is given to nobody
    assert not is_here("no-such-host.invalid:29400")


def test_a_machine_that_does_not_lead_prepares_nothing_and_waits(place: Path):
    queue = queue_of(place, "192.0.2.1:29400")
    assert queue.step(0.1)
    assert queue.entries[0].state == "locked"
    assert not (place / "results").exists()
    queue.stop()
    assert not queue.step(0.1)


def test_invitations(tmp_path: Path):
    run = RunFolder(tmp_path)
    assert invitation(run) is None
    first, second = invite(run), invite(run)
    assert first != second and invitation(run) == Invitation(second)
    dismiss(run, 3)
    assert invitation(run) == Invitation(None, 3)
    invite(run)
    long_ago = time.time() - FRESH_S - 1
    os.utime(invitation_file(run), (long_ago, long_ago))
    assert invitation(run) is None  # of a command that was killed, say


def test_a_run_that_the_leader_left_interrupted_is_reported_so(place: Path):
    queue = queue_of(place, "localhost:29400")
    entry = QueueItem(queue.entries[0].run, "locked")
    folder = entry.run.folder
    folder.path.mkdir(parents=True)
    folder.write(Record(recipe="r", recipe_id="1", config_hash="1", seed=0, status="interrupted"))
    report_as_it_is(entry)
    assert (entry.state, entry.code) == ("interrupted", 75)
