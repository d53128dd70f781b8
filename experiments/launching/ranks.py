"""The ranks of one run on this machine: how they are started, asked to stop, and left to end in their own way.

torch's elastic launcher ends all ranks as soon as one has failed, and what it does with a signal differs from
version to version. Ours stop together when one is asked, and need time to save. So its `subprocess.Popen` is this
one, which every version uses the same: it lets open files through, and tells that a rank has ended only when all have.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import Any

from experiments.common.errors import INTERRUPTED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
SAVING_S = 600.0  # for the ranks to end after one that was asked to stop: a checkpoint may be on its way to a slow disk
FAILING_S = 20.0  # after one that failed: the others notice by themselves, or wait for it for ever
AT_ONCE_S = 5.0  # after a second signal
LOOK_EVERY_S = 0.1  # for signals, and whether this process's own launcher still lives


class Ranks:
    """All ranks that this process starts.

    Args:
        descriptors: Open files that each of them keeps: the run's lock, leases on GPUs.
    """

    def __init__(self, descriptors: tuple[int, ...] = ()) -> None:
        self.descriptors = descriptors
        self.started: list[Rank] = []
        self.asked = 0  # to stop
        self._deadline = float("inf")
        self._launcher = os.getppid()

    def take_over(self) -> None:
        """Makes this process start ranks through `Rank` and pass signals on; before torch is imported.

        The signals are blocked, and a thread waits for them: handlers that torch may install are never called.
        Children inherit that, so a rank begins with `UNBLOCK`.
        """
        ranks = self

        class OwnRank(Rank):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(ranks, *arguments, **options)

        subprocess.Popen = OwnRank  # type: ignore[misc]
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._listen, daemon=True, name="signals").start()

    def _listen(self) -> None:
        while True:
            if signal.sigpending() & set(SIGNALS):
                signal.sigwait(SIGNALS)
                self._stop()
            elif os.getppid() != self._launcher and not self.asked:
                self._stop()
            else:
                time.sleep(LOOK_EVERY_S)

    def _stop(self) -> None:
        self.asked += 1
        if not self.started:
            os._exit(INTERRUPTED)  # nothing has begun
        if self.asked > 1:
            self._deadline = time.monotonic() + AT_ONCE_S
        for rank in self.started:
            rank.ask()

    def are_over(self) -> bool:
        """Whether all have ended; those that do not, long after one has failed, are killed."""
        for rank in self.started:
            rank.look()
        if all(rank.returncode is not None for rank in self.started):
            return True
        failed = [rank for rank in self.started if rank.returncode]
        if failed:
            saving = self.asked or any(rank.returncode == INTERRUPTED for rank in failed)
            patience = SAVING_S if saving else FAILING_S
            self._deadline = min(self._deadline, min(rank.ended_at for rank in failed) + patience)
        if time.monotonic() > self._deadline:
            for rank in self.started:
                rank.give_up()
        return False


class Rank(subprocess.Popen):
    """One rank; a process that is none (without RANK in its environment) is a plain `Popen`.

    Attributes:
        number: Among all ranks of the run, on all machines; None for what is no rank.
        ended_at: On the monotonic clock.
        given_up: Whether it was killed because it did not end after another.
    """

    def __init__(self, ranks: Ranks, *arguments: Any, **options: Any) -> None:
        number = (options.get("env") or {}).get("RANK")
        self.number = None if number is None else int(number)
        self.ended_at = float("inf")
        self.given_up = False
        self._ranks = ranks
        if self.number is None:
            super().__init__(*arguments, **options)
            return
        super().__init__(*arguments, **{**options, "pass_fds": ranks.descriptors})
        ranks.started.append(self)
        if ranks.asked:  # meanwhile
            self.ask()

    def look(self) -> None:
        """Notes whether it has ended."""
        if super().poll() is not None and self.ended_at == float("inf"):
            self.ended_at = time.monotonic()

    def ask(self) -> None:
        """To save and end. (`send_signal` would look with `poll` first.)"""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def give_up(self) -> None:
        """Kills it with all that it has started."""
        if self.returncode is None:
            self.given_up = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def poll(self) -> int | None:
        """Its exit code, once all ranks have ended."""
        if self.number is None:
            return super().poll()
        return self.returncode if self._ranks.are_over() else None


UNBLOCK = f"import signal; signal.pthread_sigmask(signal.SIG_UNBLOCK, {[int(s) for s in SIGNALS]}); "
