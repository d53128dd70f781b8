"""One run on several processes: torchrun's command line, and the failure that ended the attempt."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
from dataclasses import dataclass

from experiments.common.errors import BAD_INPUT, EXIT_CLASSES, FAILED, INTERRUPTED, NOT_FINITE, OUT_OF_MEMORY
from experiments.common.processes import PATHS, identify_process
from experiments.runs.record import Attempt, Launch, Record, format_now
from experiments.runs.run_folder import RunFolder

# The first of these that a rank ended with is the cause: a rank that another has left may fail in any way.
CAUSES = (OUT_OF_MEMORY, NOT_FINITE, BAD_INPUT, INTERRUPTED, FAILED)
# In the message of a rank that another has left.
CONNECTION_LOST = re.compile(
    "connection (closed|reset)|broken pipe|processgroup|nccl|gloo|socket", re.IGNORECASE
)
BOOT = PATHS + "from torch.distributed.run import main; main()"
MEETING_TIMEOUT_S = 900  # for all machines to come


@dataclass(frozen=True)
class Rendezvous:
    """Where the machines of one run meet.

    Attributes:
        endpoint: HOST:PORT; torchrun on the machine with that address serves it.
        id: Of the attempt; the same on all machines.
    """

    endpoint: str
    id: str


def is_local(endpoint: str) -> bool:
    """Return whether HOST of HOST:PORT is this machine: only an address of its own can be bound."""
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        addresses = {(info[0], info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    for family, address in addresses:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
            return True
    return False


@dataclass(frozen=True)
class RankFailure:
    """Why a rank failed, or the one worker of a run."""

    rank: int
    code: int
    message: str
    hint: str | None = None

    @property
    def is_consequence(self) -> bool:
        """Whether the rank only lost its connection to another."""
        return self.code == FAILED and CONNECTION_LOST.search(self.message) is not None

    def order(self) -> tuple[int, bool, int]:
        """Return a key by which the cause of an attempt's end comes first."""
        code = self.code if self.code in CAUSES else FAILED
        return CAUSES.index(code), self.is_consequence, self.rank


def build_command(worker: list[str], launch: Launch, rendezvous: Rendezvous | None) -> list[str]:
    """Return `worker`, the command of one process, or torchrun's, which starts this machine's ranks by it.

    Without a rendezvous there is one machine, which takes a free port.
    """
    if launch.processes == launch.nodes == 1:
        return worker
    if rendezvous is None:
        meeting = ["--standalone", "--local-addr=localhost"]
    else:
        meeting = [
            f"--nnodes={launch.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={rendezvous.endpoint}",
            f"--rdzv-id={rendezvous.id}",
            f"--rdzv-conf=join_timeout={MEETING_TIMEOUT_S},read_timeout={MEETING_TIMEOUT_S}",
        ]
    return [
        *(sys.executable, "-u", "-c", BOOT, *meeting),
        *(f"--nproc-per-node={launch.processes}", "--max-restarts=0", "--no-python", *worker),
    ]


def find_cause(run: RunFolder, attempt: Attempt | None, world_size: int) -> RankFailure:
    """Return the failure that the others followed from.

    Rank 0 records its failure in the attempt, the others leave theirs in the run folder. A rank that was killed
    leaves no word. So it is the cause where all others have only lost a connection.
    """
    failures = []
    if attempt is not None and attempt.exit_code:
        message = attempt.message or f"rank 0 ended with code {attempt.exit_code}"
        failures.append(RankFailure(0, attempt.exit_code, message, attempt.hint))
    for path in run.path.glob(".rank*.json"):
        left = json.loads(path.read_text(encoding="utf-8"))
        rank, code = int(path.name.removeprefix(".rank").removesuffix(".json")), left["exit_code"]
        message = f"rank {rank}: {left.get('message') or f'ended with code {code}'}"
        failures.append(RankFailure(rank, code, message, left.get("hint")))
    cause = min(failures, key=RankFailure.order, default=None)
    if cause is not None and not cause.is_consequence:
        return cause
    if attempt is None and cause is None:
        return RankFailure(0, FAILED, "the ranks did not start", f"log: {run.log}")
    silent = sorted(set(range(world_size)) - {failure.rank for failure in failures})
    who = f"rank {silent[0]}" if len(silent) == 1 else "a rank"
    rank = silent[0] if silent else 0
    return RankFailure(rank, INTERRUPTED, f"{who} was killed; the run resumes from its last checkpoint")


def record_cause(
    run: RunFolder, record: Record, attempt: Attempt | None, cause: RankFailure, world_size: int
) -> None:
    """Write the cause into the attempt that rank 0 recorded, or into a new one if it recorded none."""
    if attempt is None:
        attempt = Attempt(started=format_now(), world_size=world_size, **identify_process())
        record.attempts.append(attempt)
    attempt.ended, attempt.exit_code = format_now(), cause.code
    attempt.exit_class = EXIT_CLASSES.get(cause.code, "failed")
    attempt.message, attempt.hint = cause.message, cause.hint
    record.status = "interrupted" if cause.code == INTERRUPTED else "failed"
    run.write(record)
