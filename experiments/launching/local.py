"""A worker process on this machine: started, asked to stop, and read back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from experiments.errors import BAD_INPUT, FAILED, INTERRUPTED, UserError
from experiments.runs import RunFolder

# The working directory goes to the end of the path: the user's `imports` are found there, but a folder that
# happens to be called `experiments` does not take the place of ours.
BOOT = (
    "import os, sys; sys.path[:] = [p for p in sys.path if p] + [os.getcwd()]; "
    "from experiments.training.worker import main; sys.exit(main())"
)


class LocalWorker:
    """One worker in a session of its own, so that Ctrl-C reaches it through `stop` only, once."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        try:
            with open(folder.log, "a", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-u", "-c", BOOT, str(folder.path)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={"PYTHONWARNINGS": "ignore", **os.environ},
                )
        except OSError as error:
            raise UserError(f"no worker could be started in {folder.path}: {error}") from None

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after waiting at most so long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Asks for a checkpoint and the end; asked again, it ends at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """The worker's code; a killed worker counts as interrupted, since its run can go on."""
        code = self._process.returncode
        return INTERRUPTED if code < 0 else code

    def message(self) -> str | None:
        """The one line that says why it did not end well."""
        code = self._process.returncode
        if code < 0:
            return (
                f"the worker was ended by {signal.Signals(-code).name}; it goes on from its last checkpoint"
            )
        if code == BAD_INPUT and self.folder.state() == "running":  # started in the same moment
            return "another process works on it"
        attempts = self.folder.read().attempts
        if attempts and attempts[-1].message:
            return attempts[-1].message
        return None if code == 0 else self.last_line() or "the worker did not start"

    def hint(self) -> str:
        """What to do about it."""
        attempts = self.folder.read().attempts
        return (attempts[-1].hint if attempts else None) or f"log: {self.folder.log}"

    def last_line(self) -> str:
        """The log's last line with anything in it."""
        lines = self.folder.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else ""


def shared_exit_code(codes: list[int]) -> int:
    """One code for several runs: 0 if all are done, 75 if one was interrupted, else the one they share, else 1."""
    distinct = {code for code in codes if code}
    if not distinct:
        return 0
    if INTERRUPTED in distinct:
        return INTERRUPTED
    return distinct.pop() if len(distinct) == 1 else FAILED
