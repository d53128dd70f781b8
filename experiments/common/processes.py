"""Telling a process from a later one with the same number, and whether it still lives. No torch."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Tells this process from all others, also from later ones with its number."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "pid_started": process_started(pid)}


def has_ended(process: dict[str, Any] | None) -> bool:
    """Whether it is known to have: what runs elsewhere cannot be seen from here."""
    if process is None or process["host"] != socket.gethostname():
        return False
    return not is_alive(process["pid"], process["pid_started"])


def process_started(pid: int) -> str | None:
    """When a process began, in the kernel's own unit; None where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5), counted behind the command's name


def is_alive(pid: int, started: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started is None or process_started(pid) == started
