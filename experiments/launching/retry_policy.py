"""The retry policy: whether, and how, a run is tried again after an attempt."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.common.errors import DONE, FAILED, FULL_OR_READ_ONLY, INTERRUPTED, NOT_RETRIED, OUT_OF_MEMORY
from experiments.launching.torchrun import RankFailure
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder

MAX_RETRIES = 2  # of a failure of no known kind
MAX_KILLS_WITHOUT_PROGRESS = 3  # in a row without a new checkpoint


@dataclass(frozen=True)
class RetryDecision:
    """The decision after one attempt.

    Attributes:
        state: Of the run, unless it is retried.
        code: The exit code that the attempt counts as.
        message, hint: Why it did not end well, and what to do.
        should_retry: Whether another attempt follows.
        was_killed: Whether something ended the attempt before a new checkpoint.
    """

    state: Literal["done", "failed", "interrupted", "cancelled"]
    code: int
    message: str | None = None
    hint: str | None = None
    should_retry: bool = False
    was_killed: bool = False


def decide_retry(
    folder: RunFolder, failure: RankFailure | None, saved: int, before: Sequence[RetryDecision], asked: bool
) -> RetryDecision:
    """Decide what follows an attempt; make the record ready if the run is to be retried.

    Args:
        folder, failure: The run, and why the attempt failed; None where it is done.
        saved: Iterations in the newest checkpoint as the attempt began.
        before: Decisions on this command's earlier attempts.
        asked: Whether the command was asked to stop: then nothing is retried.

    Raises:
        UserError: The record cannot be read.
    """
    if failure is None:
        return RetryDecision("done", DONE)
    record, code, message = folder.read(), failure.code, failure.message
    hint = failure.hint or f"log: {folder.log}"
    if record.status == "cancelled" or (code == INTERRUPTED and folder.cancel.exists()):
        _write(folder, record, "cancelled")
        folder.cancel.unlink(missing_ok=True)
        return RetryDecision("cancelled", INTERRUPTED, "cancelled", "resume it with --retry-failed")
    if asked and code == INTERRUPTED:
        return RetryDecision("interrupted", code, message, "type the same command to resume it")
    if code == INTERRUPTED and record.attempts and record.attempts[-1].exit_class == FULL_OR_READ_ONLY:
        return RetryDecision("interrupted", code, message, hint)
    if code == INTERRUPTED:
        return _decide_after_kill(folder, record, message, saved, before)
    if code in NOT_RETRIED or asked:
        return RetryDecision("failed", code, message, hint)
    if code == OUT_OF_MEMORY:
        fewer = halve(record.launch.micro_batch or 1)
        if fewer is None or record.launch.reduced:
            why = "with one image per forward pass" if fewer is None else "with half the images, too"
            return RetryDecision("failed", code, f"{message} ({why})", hint)
        record.launch = record.launch.model_copy(update={"micro_batch": fewer, "reduced": True})
        _write(folder, record, "queued")
        why = f"{message}; retried with {fewer} images per forward pass"
        return RetryDecision("failed", code, why, should_retry=True)
    tried = sum(decision.code == FAILED for decision in before)
    if tried == MAX_RETRIES:
        return RetryDecision("failed", FAILED, f"{message} (in {tried + 1} attempts)", hint)
    _write(folder, record, "queued")
    why = f"{message}; retry {tried + 1} of {MAX_RETRIES}"
    return RetryDecision("failed", FAILED, why, hint, should_retry=True)


def _decide_after_kill(
    folder: RunFolder, record: Record, message: str, saved: int, before: Sequence[RetryDecision]
) -> RetryDecision:
    """Retry a run whose worker was killed, unless it was killed too often in a row without a new checkpoint."""
    was_killed = folder.count_iterations_saved() <= saved
    kills = sum(itertools.takewhile(bool, [was_killed, *(d.was_killed for d in reversed(before))]))
    if kills < MAX_KILLS_WITHOUT_PROGRESS:
        _write(folder, record, "queued")
        return RetryDecision("interrupted", INTERRUPTED, message, should_retry=True, was_killed=was_killed)
    message = f"killed {kills} times without progress; the last time: {message}"
    if record.attempts:
        record.attempts[-1].message = message
    _write(folder, record, "failed")
    hint = f"check dmesg, then resume it with --retry-failed; log: {folder.log}"
    return RetryDecision("failed", FAILED, message, hint, was_killed=True)


def halve(micro_batch: int) -> int | None:
    """Return the largest divisor that is at most half as many images; None for one image."""
    return next((n for n in range(micro_batch // 2, 0, -1) if micro_batch % n == 0), None)


def _write(folder: RunFolder, record: Record, status: Literal["queued", "failed", "cancelled"]) -> None:
    record.status = status
    folder.write(record)
