"""The exception a user sees: what is wrong in one line, and what to type next. Exit codes."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator

from experiments.common.printable import printable

# Exit codes of a worker and of `msdet run`.
DONE = 0
FAILED = 1
BAD_INPUT = 2
NOT_FINITE = 3
OUT_OF_MEMORY = 4
INTERRUPTED = 75
NOT_RETRIED = (BAD_INPUT, NOT_FINITE)  # another attempt would end the same way

EXIT_CLASSES = {
    DONE: "done", FAILED: "failed", BAD_INPUT: "bad input", NOT_FINITE: "not finite",
    OUT_OF_MEMORY: "out of memory", INTERRUPTED: "interrupted",
}  # fmt: skip

FULL_OR_READ_ONLY = "full or read-only"  # exit class of an attempt that was interrupted by its disk
_STORAGE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

MAX_NAMES = 12  # that an error message lists
MAX_MESSAGE_CHARS = 500
_MAX_WORD_CHARS = 240  # of a message that is too long


class UserError(Exception):
    """A mistake that the user can correct, shown as one line without a traceback.

    Args:
        message: What is wrong and where, with the value and what is allowed.
        hint: The command to type next; shown on a line of its own.
        exit_code: One of this module's codes.
    """

    def __init__(self, message: str, hint: str | None = None, exit_code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.message = make_one_line(message)
        self.hint = hint and printable(hint)
        self.exit_code = exit_code


def walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it followed from, newest first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def find_storage_error(error: BaseException) -> OSError | None:
    """Return the error of a full or read-only disk that an error is or followed from; None where it is another."""
    chain = (e for e in walk_causes(error) if isinstance(e, OSError) and e.errno in _STORAGE_ERRNOS)
    return next(chain, None)


def make_one_line(text: str) -> str:
    """Return text as one printable line: control characters escaped, the middle of long words cut out."""
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    if len(line) > MAX_MESSAGE_CHARS:
        line = " ".join(_shortened(word, _MAX_WORD_CHARS) for word in line.split(" "))
    return _shortened(line, MAX_MESSAGE_CHARS)


def _shortened(text: str, limit: int) -> str:
    """Return text with its middle cut out where it is longer than `limit` characters."""
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


def suggest_name(name: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name most similar to `name`; None where none is similar."""
    close = difflib.get_close_matches(str(name), [str(a) for a in allowed], n=1, cutoff=0.5)
    return close[0] if close else None


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message: the nearest allowed name, else all that are allowed."""
    allowed = sorted(str(a) for a in allowed)
    best = suggest_name(name, allowed)
    if best is not None:
        return f"did you mean '{best}'?"
    if not allowed:
        return "nothing is allowed here"
    return f"allowed: {', '.join(allowed[:MAX_NAMES])}" + (", ..." if len(allowed) > MAX_NAMES else "")
