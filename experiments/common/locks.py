"""File locks held by the kernel: they end with the last process that has the file open, whatever ended it."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_INTERVAL_S = 0.2


def lock(descriptor: int, patience_s: float = math.inf) -> bool:
    """Lock an open file; return False where another process still has the lock after `patience_s`."""
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

    Args:
        path: The file; made where it is missing.
        patience_s: Seconds to wait for another process to release the lock.

    Yields:
        The descriptor of the locked file.

    Raises:
        BlockingIOError: Another process still has the lock after `patience_s`.
        OSError: The file cannot be opened, or is a link.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        if not lock(descriptor, patience_s):
            raise BlockingIOError(f"{path} is locked")
        yield descriptor
    finally:
        os.close(descriptor)
