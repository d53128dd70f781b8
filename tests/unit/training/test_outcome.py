"""How an attempt ends: what began a chain of errors counts."""

from __future__ import annotations

import errno

import pytest
import torch

from experiments.common.errors import UserError
from experiments.training.outcome import classify_outcome


def after(first: BaseException, then: BaseException, is_hidden: bool = False) -> BaseException:
    """The second error, raised while the first was handled."""
    try:
        try:
            raise first
        except BaseException:
            if is_hidden:
                raise then from None
            raise then  # noqa: B904
    except BaseException as error:
        return error


FULL = OSError(errno.ENOSPC, "No space left on device", "metrics.csv")
ENDS = {
    "a mistake": (UserError("no such level", "msdet ls"), 2, "bad input", "no such level"),
    "not finite": (UserError("loss became NaN", exit_code=3), 3, "not finite", "loss became NaN"),
    "Ctrl-C": (KeyboardInterrupt(), 75, "interrupted", "stopped at once"),
    "memory": (MemoryError(), 4, "out of memory", "out of memory: allocation failed"),
    "CUDA": (torch.OutOfMemoryError("CUDA out of memory. Tried\nx"), 4, "out of memory", "Tried"),
    "CPU": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 4, "out of memory", "you"),
    "memory, then another": (after(MemoryError(), ValueError("no loader")), 4, "out of memory", "out of memory"),
    "memory, hidden": (after(MemoryError(), UserError("x is damaged"), True), 4, "out of memory", "out of memory"),
    "NaN behind it": (after(MemoryError(), UserError("NaN", exit_code=3)), 3, "not finite", "NaN"),
    "full": (FULL, 75, "full or read-only", "No space left on device"),
    "read-only": (OSError(errno.EROFS, "Read-only file system"), 75, "full or read-only", "Read-only"),
    "quota": (after(OSError(errno.EDQUOT, "Disk quota exceeded"), RuntimeError("x")), 75, "full or read-only", "quota"),
    "checkpoint": (after(FULL, UserError("iteration 8 is not saved", exit_code=75)), 75, "full or read-only",
                   "iteration 8 is not saved"),
    "permission": (PermissionError(errno.EACCES, "Permission denied", "a.jpg"), 2, "bad input", "a.jpg"),
    "data worker": (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), 75, "interrupted",
                    "(pid 7) is killed by signal: Killed; the run resumes"),
    "data worker, seen late": (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), 75, "interrupted",
                               "(pid(s) 7, 8) exited unexpectedly; the run"),
    "data worker's own end": (RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details"),
                              1, "failed", "with exit code 1"),
    "another": (ValueError("one\ntwo"), 1, "failed", "ValueError: two"),
    "no text": (AssertionError(), 1, "failed", "AssertionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_an_attempt_ends_as_its_first_error_says(name: str):
    error, code, exit_class, text = ENDS[name]
    outcome = classify_outcome(error)
    assert (outcome.code, outcome.exit_class) == (code, exit_class)
    assert outcome.message is not None and text.lower() in outcome.message.lower()
    assert "\n" not in outcome.message
    if exit_class == "full or read-only":
        assert "type the same command" in str(outcome.hint)
