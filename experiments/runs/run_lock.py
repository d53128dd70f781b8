"""A run's lock: whoever prepares it or works on it holds it, and hands it on to the process that goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from experiments.common.errors import UserError
from experiments.runs.run_folder import RunFolder

LOCK_FD = "MSDET_LOCK_FD"


class InUseError(UserError):
    """Another process works on the run."""


@contextlib.contextmanager
def acquire_lock(run: RunFolder, patience_s: float = 30) -> Iterator[int]:
    """Holds the run for this process and the children that inherit the descriptor, until the last of them ends.

    A predecessor that was asked to stop is given time to save.

    Yields:
        The descriptor of the lock, for `inheriting`.

    Raises:
        InUseError: Another process still works on it after `patience_s`.
    """
    with open(run.lock, "w", encoding="utf-8") as stream:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InUseError(f"another process works on {run.name}", "msdet runs") from None
                time.sleep(0.2)
        yield stream.fileno()


@contextlib.contextmanager
def open_shared_lock(run: RunFolder) -> Iterator[int]:
    """What a machine has that works on the run together with the one that holds it: a descriptor of the same lock, for
    `inheriting`, which locks nothing. Any of the machines may come to have rank 0."""
    with open(run.lock, "a", encoding="utf-8") as stream:
        yield stream.fileno()


def inheriting(descriptor: int) -> dict[str, str]:
    """The environment that tells a child of the lock it inherits; the descriptor goes into `pass_fds`, too."""
    return {LOCK_FD: str(descriptor)}


def inherits_lock(run: RunFolder) -> bool:
    """Whether this process was given the run's lock by the one that started it."""
    try:
        return os.path.samestat(os.fstat(int(os.environ[LOCK_FD])), run.lock.stat())
    except (KeyError, ValueError, OSError):
        return False
