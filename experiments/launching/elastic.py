"""One run on several processes, on this machine or on several: a process of its own that starts and watches the ranks.

torch's elastic launcher starts them (c10d rendezvous on a free port, no restarts: what is tried again, and how, is
the queue's to decide). When they have ended, the failure that the others followed from goes into the record.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import (
    BAD_INPUT,
    DONE,
    EXIT_CLASSES,
    FAILED,
    INTERRUPTED,
    NOT_FINITE,
    OUT_OF_MEMORY,
    UserError,
)
from experiments.common.processes import process_started
from experiments.launching.local import BOOT
from experiments.launching.ranks import UNBLOCK, Rank, Ranks
from experiments.runs.record import Attempt, Record, now
from experiments.runs.run_folder import RunFolder

# Of several failures the first in this order is the cause: a rank that is alone may fail in any way.
CAUSES = (OUT_OF_MEMORY, NOT_FINITE, BAD_INPUT, INTERRUPTED, FAILED)
# Words in what a rank says when another has left it.
LEFT_ALONE = (
    "connection closed",
    "connection reset",
    "broken pipe",
    "processgroup",
    "nccl",
    "gloo",
    "socket",
)
MEET_S = 900  # for all machines to come
OTHERS_S = 10  # for what ranks on other machines have to say of a failure


@dataclass(frozen=True)
class Failure:
    """Why one rank failed."""

    rank: int
    code: int
    message: str
    hint: str | None = None
    ended_at: float = 0.0

    @property
    def follows(self) -> bool:
        """Whether it says that another rank has left it."""
        return any(word in self.message.lower() for word in LEFT_ALONE)

    def order(self) -> tuple[int, bool, float, int]:
        """The smallest is the cause."""
        return (
            CAUSES.index(self.code if self.code in CAUSES else FAILED),
            self.follows,
            self.ended_at,
            self.rank,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Works on one run; returns the exit code of the failure that matters, or 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--processes", type=int, default=1, help="ranks on this machine")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--rdzv", help="HOST:PORT where the machines meet")
    parser.add_argument("--run-id", help="the same on all machines")
    parser.add_argument("--descriptors", default="", help="open files for the ranks to keep")
    options = parser.parse_args(arguments)
    ranks = Ranks(tuple(int(text) for text in options.descriptors.split(",") if text))
    ranks.take_over()
    began, run = now(), RunFolder(options.run)
    try:
        before = len(run.read().attempts)
    except UserError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    trouble = _launch(ranks, run, options)
    for rank in ranks.started:
        rank.wait()
    return _verdict(run, ranks, before, began, options.nodes, trouble)


def _launch(ranks: Ranks, run: RunFolder, options: argparse.Namespace) -> str | None:
    """Starts the ranks and waits for them; what went wrong if it was not one of them."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # the launcher's own account of failures would end the run's log
    alone = options.rdzv is None
    unused = tempfile.TemporaryDirectory(prefix="msdet-")  # for logs of ranks; ours write into the run's
    config = LaunchConfig(
        min_nodes=options.nodes,
        max_nodes=options.nodes,
        nproc_per_node=options.processes,
        run_id=options.run_id or str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0" if alone else options.rdzv,
        rdzv_configs={"timeout": MEET_S, "join_timeout": MEET_S, "read_timeout": 120},
        logs_specs=DefaultLogsSpecs(log_dir=unused.name),
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="localhost" if alone else None,
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-c", UNBLOCK + BOOT, str(run.path))
    except ChildFailedError:
        pass  # the ranks tell more
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[-1] if lines else ''}".rstrip(": ")
    finally:
        unused.cleanup()
    return None


def _verdict(run: RunFolder, ranks: Ranks, before: int, began: str, nodes: int, trouble: str | None) -> int:
    """The code that the run ends with; in the record, too, where rank 0 is one of ours."""
    record = run.read()
    own = record.attempts[-1] if len(record.attempts) > before else None
    has_record = any(rank.number == 0 for rank in ranks.started)
    failures = [failure for rank in ranks.started if (failure := _failure(run, rank, own, ranks.asked))]
    if not ranks.started:
        failures, has_record = [Failure(0, FAILED, trouble or "no rank was started")], nodes == 1
    if not failures or (
        has_record and record.status == "done"
    ):  # what a rank does when all is saved is its own
        return DONE
    cause = min(failures, key=Failure.order)
    if nodes > 1:
        cause = _cause_on_any_machine(run, cause, {rank.number for rank in ranks.started})
        _leave_word(run, cause)
    has_said_so = own is not None and own.exit_code == cause.code and record.status != "running"
    if has_record and not (has_said_so and (cause.rank == 0 or cause.code == INTERRUPTED)):
        _amend(run, record, own, cause, began, len(ranks.started) * nodes)
    print(f"error: {cause.message}", file=sys.stderr, flush=True)
    return cause.code


def _failure(run: RunFolder, rank: Rank, own: Attempt | None, asked: int) -> Failure | None:
    code, number = rank.returncode, rank.number
    if code == 0 or number is None:
        return None
    if rank.given_up and asked:
        why = "stopped at once; what came after the last checkpoint is done again"
        return Failure(number, INTERRUPTED, why, None, rank.ended_at)
    if rank.given_up:
        return Failure(number, FAILED, f"rank {number} did not end after another; gloo", None, float("inf"))
    if code < 0:
        name = signal.Signals(-code).name
        why = f"rank {number} was ended by {name}; the run goes on from its last checkpoint"
        return Failure(number, INTERRUPTED, why, None, rank.ended_at)
    if number == 0 and own and own.exit_code == code:
        return Failure(0, code, own.message or f"rank 0 ended with code {code}", own.hint, rank.ended_at)
    said, hint = _word(run, number)
    return Failure(number, code, said or f"rank {number} ended with code {code}", hint, rank.ended_at)


def _word(run: RunFolder, rank: int) -> tuple[str | None, str | None]:
    """What a rank other than 0 left: its message, with its number, and its hint."""
    try:
        left = json.loads(run.failure_of_rank(rank).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    message = left.get("message")
    return (f"rank {rank}: {message}" if message else None), left.get("hint")


def _cause_on_any_machine(run: RunFolder, cause: Failure, ours: set[int | None]) -> Failure:
    """A failure of a rank elsewhere, if ours only followed from that; a shared folder may be slow to show it."""
    deadline = time.monotonic() + OTHERS_S
    while cause.code == FAILED and cause.follows and time.monotonic() < deadline:
        for path in run.path.glob(".rank*.json"):
            number = int(path.name.removeprefix(".rank").removesuffix(".json"))
            if number not in ours:
                code = json.loads(path.read_text(encoding="utf-8"))["exit_code"]
                message, hint = _word(run, number)
                cause = min(cause, Failure(number, code, message or "", hint), key=Failure.order)
        time.sleep(0.5)
    return cause


def _leave_word(run: RunFolder, cause: Failure) -> None:
    """For the machine that has rank 0: a rank that was killed could not do it itself."""
    path = run.failure_of_rank(cause.rank)
    if cause.rank and not path.exists():
        content = {"exit_code": cause.code, "exit_class": EXIT_CLASSES.get(cause.code, "failed")}
        path.write_text(
            json.dumps({**content, "message": cause.message, "hint": cause.hint}), encoding="utf-8"
        )


def _amend(
    run: RunFolder, record: Record, own: Attempt | None, cause: Failure, began: str, world_size: int
) -> None:
    """Writes the cause into the attempt that rank 0 began, or into one of its own if rank 0 came to none."""
    if own is None:
        pid = os.getpid()
        own = Attempt(started=began, host=socket.gethostname(), pid=pid, pid_started=process_started(pid))
        own.world_size = world_size
        record.attempts.append(own)
    own.ended, own.exit_code, own.exit_class = now(), cause.code, EXIT_CLASSES.get(cause.code, "failed")
    own.message, own.hint = cause.message, cause.hint
    record.status = "interrupted" if cause.code == INTERRUPTED else "failed"
    run.write(record)


if __name__ == "__main__":
    sys.exit(main())
