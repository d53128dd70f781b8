"""What follows an attempt: whatever ended it decides whether, and how, the run is tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.common.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, NOT_FINITE, OUT_OF_MEMORY
from experiments.launching.execution import halved
from experiments.launching.local import LocalWorker
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder, iteration_of

RETRIES = 2  # of a failure of no known kind
MAX_KILLS_WITHOUT_PROGRESS = 3  # in a row without a new checkpoint


@dataclass(frozen=True)
class RetryDecision:
    """On one attempt.

    Attributes:
        state: Of the run, if it is not tried `again`.
        code: The exit code that the attempt counts as.
        died: Whether something ended it without a new checkpoint.
        message, hint: Why it did not end well.
    """

    state: Literal["done", "failed", "interrupted", "cancelled"]
    code: int
    again: bool = False
    died: bool = False
    message: str | None = None
    hint: str | None = None


def iterations_saved(folder: RunFolder) -> int:
    """Optimizer steps that the newest checkpoint holds."""
    checkpoint = folder.last_checkpoint()
    return iteration_of(checkpoint) if checkpoint else 0


def decide_retry(
    folder: RunFolder, worker: LocalWorker, saved: int, before: Sequence[RetryDecision], asked: bool
) -> RetryDecision:
    """Reads what became of an attempt; makes the record ready where the run is to be tried again.

    Args:
        saved: Iterations in the newest checkpoint as the attempt began.
        before: The verdicts on this command's earlier attempts.
        asked: Whether the command was asked to stop: then nothing is begun again.

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
    if code == INTERRUPTED:
        return _after_death(folder, record, message, saved, before)
    if code == OUT_OF_MEMORY:
        fewer = halved(record.launch.micro_batch or 1)
        if fewer is not None and not record.launch.reduced and not asked:
            record.launch = record.launch.model_copy(update={"micro_batch": fewer, "reduced": True})
            _write(folder, record, "queued")
            return RetryDecision(
                "failed", code, again=True, message=f"{message}; once more with {fewer} images at a time"
            )
        why = "one image at a time already" if fewer is None else "with half the images at a time, too"
        return RetryDecision(
            "failed", code, message=f"{message} ({why})" if not asked else message, hint=hint
        )
    if code in (BAD_INPUT, NOT_FINITE) or asked:
        return RetryDecision("failed", code, message=message, hint=hint)
    tried = sum(verdict.code == FAILED for verdict in before)
    if tried < RETRIES:
        _write(folder, record, "queued")
        again = f"{message}; tried again ({tried + 1} of {RETRIES})"
        return RetryDecision("failed", FAILED, again=True, message=again, hint=hint)
    return RetryDecision("failed", FAILED, message=f"{message} (in {tried + 1} attempts)", hint=hint)


def _after_death(
    folder: RunFolder, record: Record, message: str | None, saved: int, before: Sequence[RetryDecision]
) -> RetryDecision:
    """Something outside ended the worker: it goes on, as long as that leads anywhere."""
    died = iterations_saved(folder) <= saved
    deaths = int(died)
    for verdict in reversed(before):
        if not (verdict.died and died):
            break
        deaths += 1
    if deaths < MAX_KILLS_WITHOUT_PROGRESS:
        _write(folder, record, "queued")
        return RetryDecision("interrupted", INTERRUPTED, again=True, died=died, message=message)
    message = f"killed {deaths} times without progress; the last time: {message}"
    if record.attempts:
        record.attempts[-1].message = message
    _write(folder, record, "failed")
    hint = f"check dmesg, then resume it with --retry-failed; log: {folder.log}"
    return RetryDecision("failed", FAILED, died=True, message=message, hint=hint)


def _write(folder: RunFolder, record: Record, status: Literal["queued", "failed", "cancelled"]) -> None:
    record.status = status
    folder.write(record)
