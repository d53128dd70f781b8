"""The retry policy: whether, and how, a run is tried again after an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.common.errors import (
    BAD_INPUT,
    DONE,
    FAILED,
    FULL_OR_READ_ONLY,
    INTERRUPTED,
    NOT_FINITE,
    OUT_OF_MEMORY,
)
from experiments.launching.execution import halved
from experiments.launching.local import LocalWorker
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder, iteration_of

MAX_RETRIES = 2  # of a failure of no known kind
MAX_KILLS_WITHOUT_PROGRESS = 3  # in a row without a new checkpoint


@dataclass(frozen=True)
class RetryDecision:
    """The decision after one attempt.

    Attributes:
        state: Of the run, unless it is retried.
        code: The exit code that the attempt counts as.
        should_retry: Whether another attempt follows.
        was_killed: Whether something ended the attempt before a new checkpoint.
        message, hint: Why it did not end well, and what to do.
    """

    state: Literal["done", "failed", "interrupted", "cancelled"]
    code: int
    should_retry: bool = False
    was_killed: bool = False
    message: str | None = None
    hint: str | None = None


def iterations_saved(folder: RunFolder) -> int:
    """Return the number of optimizer steps that the newest checkpoint holds."""
    checkpoint = folder.last_checkpoint()
    return iteration_of(checkpoint) if checkpoint else 0


def decide_retry(
    folder: RunFolder, worker: LocalWorker, saved: int, before: Sequence[RetryDecision], asked: bool
) -> RetryDecision:
    """Decide what follows an attempt; make the record ready if the run is to be retried.

    Args:
        folder, worker: The run, and the worker that has ended.
        saved: Iterations in the newest checkpoint as the attempt began.
        before: The decisions on this command's earlier attempts.
        asked: Whether the command was asked to stop: then nothing is retried.

    Raises:
        UserError: The record cannot be read.
    """
    code = worker.exit_code()
    if code == DONE:
        return RetryDecision("done", DONE)
    record, message, hint = folder.read(), worker.message(), worker.hint()
    if record.status == "cancelled" or (code == INTERRUPTED and folder.cancel.exists()):
        _write(folder, record, "cancelled")
        folder.cancel.unlink(missing_ok=True)
        return RetryDecision(
            "cancelled", INTERRUPTED, message="cancelled", hint="resume it with --retry-failed"
        )
    if asked and code == INTERRUPTED:
        return RetryDecision("interrupted", code, message=message, hint="type the same command to resume it")
    if code == INTERRUPTED and record.attempts and record.attempts[-1].exit_class == FULL_OR_READ_ONLY:
        return RetryDecision("interrupted", code, message=message, hint=hint)
    if code == INTERRUPTED:
        return _decide_after_kill(folder, record, message, saved, before)
    if code == OUT_OF_MEMORY:
        fewer = halved(record.launch.micro_batch or 1)
        if fewer is not None and not record.launch.reduced and not asked:
            record.launch = record.launch.model_copy(update={"micro_batch": fewer, "reduced": True})
            _write(folder, record, "queued")
            return RetryDecision(
                "failed",
                code,
                should_retry=True,
                message=f"{message}; retried with {fewer} images per forward pass",
            )
        why = "with one image per forward pass" if fewer is None else "with half the images, too"
        return RetryDecision(
            "failed", code, message=f"{message} ({why})" if not asked else message, hint=hint
        )
    if code in (BAD_INPUT, NOT_FINITE) or asked:
        return RetryDecision("failed", code, message=message, hint=hint)
    tried = sum(decision.code == FAILED for decision in before)
    if tried < MAX_RETRIES:
        _write(folder, record, "queued")
        why = f"{message}; retry {tried + 1} of {MAX_RETRIES}"
        return RetryDecision("failed", FAILED, should_retry=True, message=why, hint=hint)
    return RetryDecision("failed", FAILED, message=f"{message} (in {tried + 1} attempts)", hint=hint)


def _decide_after_kill(
    folder: RunFolder, record: Record, message: str | None, saved: int, before: Sequence[RetryDecision]
) -> RetryDecision:
    """Retry a run whose worker was killed, unless it was killed too often in a row without a new checkpoint."""
    was_killed = iterations_saved(folder) <= saved
    kills = int(was_killed)
    for decision in reversed(before):
        if not (decision.was_killed and was_killed):
            break
        kills += 1
    if kills < MAX_KILLS_WITHOUT_PROGRESS:
        _write(folder, record, "queued")
        return RetryDecision(
            "interrupted", INTERRUPTED, should_retry=True, was_killed=was_killed, message=message
        )
    message = f"killed {kills} times without progress; the last time: {message}"
    if record.attempts:
        record.attempts[-1].message = message
    _write(folder, record, "failed")
    hint = f"check dmesg, then resume it with --retry-failed; log: {folder.log}"
    return RetryDecision("failed", FAILED, was_killed=True, message=message, hint=hint)


def _write(folder: RunFolder, record: Record, status: Literal["queued", "failed", "cancelled"]) -> None:
    record.status = status
    folder.write(record)
