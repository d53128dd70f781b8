"""Cases that follow from their numbers: a bound on the time of each, and counts of what many of them did."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from experiments.training.environment import read_git_state
from tests.kept import RESULTS, keep_rows, short_commit

MANY = int(os.environ.get("FUZZ_CASES", "1000"))  # of each kind, in `make test-all`
LONGEST_CASE_S = 60  # a case that takes so long would never end
COLUMNS = ["kind", "cases", "failed", "longest_cpu_s", "commit"]


def numbers(few: int) -> list[Any]:
    """Parameters of a test: the numbers of a few cases, and of many in a slow one."""
    return [pytest.param(range(few), id="few"), pytest.param(range(MANY), id="many", marks=pytest.mark.slow)]


class Cases:
    """The cases of one kind. Of many, a failed one does not end the test: all are counted, and the counts kept."""

    def __init__(self, kind: str, numbers: Sequence[int] = ()) -> None:
        self.kind, self.count, self.failed, self.longest_s = kind, 0, {}, 0.0  # type: ignore[var-annotated]
        self._are_many = len(numbers) == MANY

    @contextlib.contextmanager
    def case(self, number: object) -> Iterator[None]:
        began = time.process_time()
        try:
            with _time_limit(f"{self.kind} {number}"):
                yield
        except Exception as error:
            if not self._are_many:
                raise
            self.failed[number] = repr(error)
        self.count += 1
        self.longest_s = max(self.longest_s, time.process_time() - began)

    def check(self) -> None:
        """Keep the counts of many cases; fail where one failed."""
        if self._are_many:
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv("PATH", os.defpath)  # the tests leave none
                commit = short_commit(read_git_state())
            row = {"kind": self.kind, "cases": self.count, "failed": len(self.failed),
                   "longest_cpu_s": f"{self.longest_s:.2f}", "commit": commit}  # fmt: skip
            keep_rows(RESULTS / "reliability" / "fuzz.csv", COLUMNS, "kind", [row])
        assert not self.failed


@contextlib.contextmanager
def _time_limit(case: str) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise AssertionError(f"case {case} took more than {LONGEST_CASE_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_CASE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
