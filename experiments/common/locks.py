"""File locks that end with their owner.

The kernel keeps a lock until the last process that has the file open ends, whatever ended it. Some file systems of
clusters have no such locks. There a lock is a file that names its owner, who touches it every few seconds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import random
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.common.processes import STALE_AFTER_S, is_alive, measure_seconds_unchanged, process_started

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # from flock where the file system has none
HEARTBEAT_S = 10
_POLL_INTERVAL_S = 0.2
_noted: set[Path] = set()  # folders without locks that the user knows of
_owner_files: dict[Path, list[Path]] = {}  # of the locks that this process has by files


class LockedError(BlockingIOError):
    """A file that another process has locked; the text is that process, as messages call it."""


def lock(descriptor: int, patience_s: float = math.inf) -> bool:
    """Lock an open file; return False where another process still has the lock after `patience_s`.

    Raises:
        OSError: The file system has no locks: its number is one of NO_LOCKS.
    """
    if patience_s == math.inf:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)


@contextlib.contextmanager
def file_lock(path: Path, patience_s: float = math.inf) -> Iterator[int]:
    """Hold the lock of a file for this process and for children that inherit the descriptor.

    Where the file system has no locks, such children are named by `share_lock`.

    Yields the descriptor of the file, which is made where it is missing.

    Args:
        patience_s: Seconds to wait for another process to release the lock.

    Raises:
        LockedError: Another process still has the lock after `patience_s`.
        OSError: The file cannot be opened, or is a link.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        try:
            if not lock(descriptor, patience_s):
                raise LockedError("another msdet process")
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            stack.enter_context(_owner_file(path, patience_s))
        yield descriptor


@contextlib.contextmanager
def _owner_file(path: Path, patience_s: float) -> Iterator[None]:
    """Hold a lock by a file with this process's name in its own.

    It is made first, and the others' are looked for then. So of two processes that do this at the same time at least
    one sees the other, and gives way. A file of a dead owner may be removed by anybody, since no name occurs twice.
    """
    if path.parent not in _noted:
        _noted.add(path.parent)
        print(f"note: {path.parent}: this file system has no locks; files take their place", file=sys.stderr)
    own, deadline = _name_owner(path, os.getpid()), time.monotonic() + patience_s
    while True:
        own.touch(exist_ok=False)
        others = (_live_owner(path, other) for other in path.parent.iterdir() if other != own)
        owner = next(filter(None, others), None)
        if owner is None:
            break
        own.unlink(missing_ok=True)
        if time.monotonic() >= deadline:
            raise LockedError(owner)
        time.sleep(_POLL_INTERVAL_S * (1 + random.random()))  # else two would give way again and again
    is_released, _owner_files[path] = threading.Event(), [own]
    threading.Thread(target=_touch_until, args=(own, is_released), daemon=True).start()
    try:
        yield
    finally:
        is_released.set()
        for owner_file in _owner_files.pop(path):
            owner_file.unlink(missing_ok=True)


def share_lock(path: Path, child: int) -> None:
    """Let a child process, by its number, keep a lock of this process that is a file, whatever ends this one."""
    if path in _owner_files:
        _owner_files[path].append(_name_owner(path, child))
        _owner_files[path][-1].touch()


def _name_owner(path: Path, pid: int) -> Path:
    started, token = process_started(pid) or 0, secrets.token_hex(4)
    return path.with_name(f"{path.name}.{socket.gethostname()}.{pid}.{started}.{token}")


def _touch_until(own: Path, is_released: threading.Event) -> None:
    while not is_released.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(own)


def _live_owner(path: Path, other: Path) -> str | None:
    """Return the process whose file of the lock `path` this is; None for other files, and a dead one's is removed."""
    match = re.fullmatch(rf"{re.escape(path.name)}\.(.+)\.(\d+)\.(\d+)\.[0-9a-f]{{8}}", other.name)
    if match is None:
        return None
    host, pid, started = match.groups()
    if host == socket.gethostname() and started != "0":
        is_dead = not is_alive(int(pid), started)
    else:  # its clock may be wrong, so its file is watched instead
        is_dead = measure_seconds_unchanged(other) > STALE_AFTER_S
    if is_dead:
        other.unlink(missing_ok=True)
        return None
    return f"process {pid} on {host}"
