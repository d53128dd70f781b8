"""A worker process on this machine: started, asked to stop, and read back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from experiments.common.errors import FAILED, INTERRUPTED, UserError
from experiments.runs.record import Launch
from experiments.runs.run_folder import RunFolder

# The working directory goes to the end of the path: the user's `imports` are found there, but a folder that
# happens to be called `experiments` does not take the place of ours.
PATHS = "import os, sys; sys.path[:] = [p for p in sys.path if p] + [os.getcwd()]; "
BOOT = PATHS + "from experiments.training.worker import main; sys.exit(main())"
ELASTIC_BOOT = PATHS + "from experiments.launching.elastic import main; sys.exit(main())"
TAIL_BYTES = 64 * 1024


def worker_command(
    folder: RunFolder,
    launch: Launch | None = None,
    rdzv: str | None = None,
    run_id: str | None = None,
    descriptors: Sequence[int] = (),
) -> list[str]:
    """The bare worker; or the launcher of several, alone or together with other machines that meet at `rdzv`."""
    launch = launch or Launch()
    if launch.processes == launch.nodes == 1:
        return [sys.executable, "-u", "-c", BOOT, str(folder.path)]
    command = [sys.executable, "-u", "-c", ELASTIC_BOOT, str(folder.path), f"--processes={launch.processes}"]
    if rdzv is not None:
        command += [f"--nodes={launch.nodes}", f"--rdzv={rdzv}", f"--run-id={run_id or folder.path.name}"]
    return [*command, f"--descriptors={','.join(map(str, descriptors))}"]


class LocalWorker:
    """One worker in a session of its own, so that Ctrl-C reaches it through `stop` only, once.

    Args:
        rdzv, run_id: Where several machines meet, and for which attempt.
        environment: Added to this process's own.
        descriptors: Open files that it keeps: the run's lock, leases.
    """

    def __init__(
        self,
        folder: RunFolder,
        launch: Launch | None = None,
        rdzv: str | None = None,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        run_id: str | None = None,
    ) -> None:
        self.folder = folder
        try:
            with open(folder.log, "a", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    worker_command(folder, launch, rdzv, run_id, descriptors),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=tuple(descriptors),
                    env={"PYTHONWARNINGS": "ignore", **os.environ, **(environment or {})},
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
        attempts = self.folder.read().attempts
        if (
            attempts and attempts[-1].message and attempts[-1].exit_code in (None, code)
        ):  # not an earlier one's
            return attempts[-1].message
        return None if code == 0 else self.last_line() or "the worker did not start"

    def hint(self) -> str:
        """What to do about it."""
        attempts = self.folder.read().attempts
        return (attempts[-1].hint if attempts else None) or f"log: {self.folder.log}"

    def last_line(self) -> str:
        """The log's last line with anything in it."""
        return next(iter(last_lines(self.folder, 1)), "").removeprefix("error: ")


def last_lines(folder: RunFolder, count: int) -> list[str]:
    """The last lines of a run's log with anything in them, read from its end: it may be long."""
    try:
        with open(folder.log, "rb") as stream:
            stream.seek(max(0, folder.log.stat().st_size - TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]


def shared_exit_code(codes: list[int]) -> int:
    """One code for several runs: 0 if all are done, 75 if one was interrupted, else the one they share, else 1."""
    distinct = {code for code in codes if code}
    if not distinct:
        return 0
    if INTERRUPTED in distinct:
        return INTERRUPTED
    return distinct.pop() if len(distinct) == 1 else FAILED
