"""A run's lock: held by whoever prepares the run or works on it, and inherited by the process that continues."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from experiments.common.errors import UserError
from experiments.common.locks import LockedError, file_lock
from experiments.runs.run_folder import RunFolder

LOCK_FD = "MSDET_LOCK_FD"


class InUseError(UserError):
    """A run that another process has locked.

    Attributes:
        owner: That process, as messages call it.
    """

    def __init__(self, run: RunFolder, owner: str) -> None:
        super().__init__(f"run {run.name} is locked by {owner}", "msdet runs")
        self.owner = owner


@contextlib.contextmanager
def acquire_lock(run: RunFolder, patience_s: float = 30) -> Iterator[int]:
    """Lock the run for this process and for children that inherit the descriptor.

    Args:
        run: The run, whose folder exists.
        patience_s: Seconds that a process which was asked to stop has to save.

    Yields:
        The descriptor of the lock, for `lock_environment`.

    Raises:
        InUseError: Another process still has the lock after `patience_s`.
        UserError: A file in the folder is a link.
    """
    refuse_links(run)
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(run.lock, patience_s))
        except LockedError as error:
            raise InUseError(run, str(error)) from None
        yield descriptor


def refuse_links(run: RunFolder) -> None:
    """Raise UserError where a file of the run is a link: what is written there would change a file elsewhere."""
    folders = [folder for folder in (run.path, run.checkpoints, run.detections) if folder.is_dir()]
    for path in (path for folder in folders for path in folder.iterdir()):
        if path.is_symlink():
            raise UserError(f"{path} is a link, and msdet writes through none in a run folder", f"rm {path}")


def lock_environment(descriptor: int) -> dict[str, str]:
    """Return the environment in which a child inherits the lock; pass the descriptor in `pass_fds`, too."""
    return {LOCK_FD: str(descriptor)}


def inherits_lock(run: RunFolder) -> bool:
    """Whether this process was given the run's lock by the one that started it."""
    try:
        return os.path.samestat(os.fstat(int(os.environ[LOCK_FD])), run.lock.stat())
    except (KeyError, ValueError, OSError):
        return False
