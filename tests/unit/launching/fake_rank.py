"""A rank for tests of the launcher, without torch: rank 0 keeps the record; the first argument is the run folder.

What it does is said by SCENARIO in its environment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable

from experiments.common.processes import die_with
from experiments.runs.record import Attempt, format_now
from experiments.runs.run_folder import RunFolder

run, rank, scenario = RunFolder(sys.argv[-1]), int(os.environ["RANK"]), os.environ["SCENARIO"]
if scenario == "no start":
    sys.exit(1)
die_with(os.getppid())
asked: list[int] = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
record = run.read()
if rank == 0:
    world_size = int(os.environ["WORLD_SIZE"])
    attempt = Attempt(started=format_now(), host=os.uname().nodename, pid=os.getpid(), world_size=world_size)
    record.attempts.append(attempt)
    record.status = "running"
    run.write(record)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def end(code: int, message: str | None = None) -> None:
    if rank == 0:
        record.attempts[-1].exit_code, record.attempts[-1].message = code, message
        record.status = {0: "done", 75: "interrupted"}.get(code, "failed")  # type: ignore[assignment]
        run.write(record)
    elif code:
        run.failure_of_rank(rank).write_text(
            json.dumps({"exit_code": code, "message": message, "hint": None})
        )
    sys.exit(code)


failed = run.path / "failed"
fails = scenario == "out of memory" or (scenario == "once" and not failed.exists())
environment = run.path / f"env{rank}.json"
environment.with_suffix(".new").write_text(json.dumps({**os.environ, "pid": os.getpid()}))
environment.with_suffix(".new").rename(environment)
wait_for(lambda: all((run.path / f"env{k}.json").exists() for k in range(int(os.environ["WORLD_SIZE"]))))
consensus = run.path / "consensus"

if scenario == "done":
    end(0)
elif fails:
    if rank == 1:
        failed.touch()
        end(
            4 if scenario == "out of memory" else 1,
            "no such image" if scenario == "once" else "out of memory",
        )
    wait_for(run.failure_of_rank(1).exists)
    end(1, "RuntimeError: Connection closed by peer")
elif scenario == "once":
    end(0)
elif scenario == "collective":  # another rank is waited for, until its connection breaks
    wait_for(lambda: asked and rank == 0)
    end(1, "RuntimeError: [gloo] Connection closed by peer")
elif scenario == "stop":  # rank 0 is asked, tells the others, and takes time to save
    if rank == 0:
        wait_for(lambda: asked)
        consensus.touch()
        time.sleep(1)
    wait_for(consensus.exists)
    end(75, "stopped at iteration 7")
elif scenario == "busy":
    time.sleep(60)
