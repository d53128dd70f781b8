"""One run on several machines: the same command on each; one of them leads, the others join it.

The one whose address `--rdzv` names claims and prepares the run, and decides after each attempt. Before an attempt
it leaves an invitation in the run folder, which all of them see; the others wait for it, join, and when the attempt
is over wait for the next one, or for word that there is none.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from experiments.common.files import write_json
from experiments.runs.run_folder import RunFolder

FRESH_S = 15 * 60  # for the other machines to come; as long as the launcher of the ranks waits for them


@dataclass(frozen=True)
class Invitation:
    """To one attempt. `id` is None when there will be no other, then `code` is the run's exit code."""

    id: str | None
    code: int | None = None


def invitation_file(run: RunFolder) -> Path:
    return run.path / ".invitation.json"


def invite(run: RunFolder) -> str:
    """Asks the other machines to join an attempt that begins now; its id."""
    made = uuid.uuid4().hex[:12]
    write_json(invitation_file(run), {"id": made, "code": None})
    return made


def dismiss(run: RunFolder, code: int) -> None:
    """Tells the other machines that the run has ended."""
    write_json(invitation_file(run), {"id": None, "code": code})


def invitation(run: RunFolder) -> Invitation | None:
    """The newest, unless it is too old to be of a command that is there now."""
    path = invitation_file(run)
    with contextlib.suppress(OSError, ValueError, KeyError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if time.time() - path.stat().st_mtime < FRESH_S:
            return Invitation(content["id"], content["code"])
    return None


def is_here(rdzv: str) -> bool:
    """Whether HOST of HOST:PORT is this machine: an address of its own can be bound."""
    host = rdzv.rpartition(":")[0].strip("[]")
    try:
        addresses = {(info[0], info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    for family, address in addresses:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
            return True
    return False
