"""How an attempt ended: the exit code, its class and one line for an error. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from experiments.common.errors import (
    BAD_INPUT,
    EXIT_CLASSES,
    FAILED,
    FULL_OR_READ_ONLY,
    INTERRUPTED,
    OUT_OF_MEMORY,
    UserError,
    find_storage_error,
    walk_causes,
)

# torch's words. One that ended by an exit code of its own has had an error, and was not killed.
_DATA_WORKER_KILLED = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly$)")


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt: `hint` is the command that solves what `message` says."""

    code: int
    exit_class: str
    message: str | None = None
    hint: str | None = None


def classify_outcome(error: BaseException) -> Outcome:
    """Return how an attempt ended that an error ended; what began a chain of errors counts."""
    message, hint = getattr(error, "message", None), getattr(error, "hint", None)
    memory = next((e for e in walk_causes(error) if is_out_of_memory(e)), None)
    if isinstance(error, UserError) and (memory is None or error.exit_code != BAD_INPUT):
        code = error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        code, message = INTERRUPTED, "stopped at once; steps after the last checkpoint are repeated"
    elif memory is not None:
        lines = str(memory).splitlines() or ["allocation failed"]
        code, message, hint = OUT_OF_MEMORY, f"out of memory: {lines[0]}", None
    elif isinstance(error, PermissionError):
        code, message = BAD_INPUT, f"{error.filename} cannot be opened: {error.strerror}"
    elif (killed := _killed_data_worker(error)) is not None:
        code, message = INTERRUPTED, f"{killed}; the run resumes from its last checkpoint"
    else:
        lines = str(error).strip().splitlines() or [""]
        code, message = FAILED, f"{type(error).__name__}: {lines[-1]}".rstrip(": ")
    disk = find_storage_error(error)
    if disk is not None and code in (FAILED, BAD_INPUT, INTERRUPTED):
        text = message if isinstance(error, UserError) else f"the results folder cannot be written: {disk}"
        hint = "free some space, or make it writable; then type the same command"
        return Outcome(INTERRUPTED, FULL_OR_READ_ONLY, text, hint)
    return Outcome(code, EXIT_CLASSES[code], message, hint)


def _killed_data_worker(error: BaseException) -> str | None:
    """Return torch's words on a data loader's process that was killed, the earliest of the chain; None without."""
    texts = [str(e).strip(" .") for e in walk_causes(error) if isinstance(e, RuntimeError)]
    return next((text for text in reversed(texts) if _DATA_WORKER_KILLED.match(text)), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is Python's, torch's or CUDA's that memory ran out."""
    texts = ("out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )
