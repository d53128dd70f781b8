"""Means, spreads and differences over the seeds of one recipe."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A metric over seeds, in percent.

    Attributes:
        mean: Over the seeds.
        sd: Sample standard deviation (divided by n - 1); None for a single seed.
        n: Number of seeds.
    """

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        sd = "-" if self.sd is None else f"{self.sd:.1f}"
        return f"{self.mean:.1f} ± {sd} ({self.n})"


@dataclass(frozen=True)
class Difference:
    """Mean minus the baseline's mean, in percentage points.

    Attributes:
        error: Its standard error; None where either side has a single seed.
    """

    value: float
    error: float | None = None

    def __str__(self) -> str:
        value = round(self.value, 1) or 0.0  # never "-0.0"
        text = f"{value:+.1f}" if value else "0.0"
        return text if self.error is None else f"{text} ± {self.error:.1f}"


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of those values that are finite numbers; None where none is."""
    numbers = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not numbers:
        return None
    sd = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Spread(statistics.fmean(numbers), sd, len(numbers))


def difference(one: Spread | None, baseline: Spread | None) -> Difference | None:
    """`one` minus `baseline`; None where either has no value.

    The error is s_p * sqrt(1/n + 1/n_b); the variance s_p^2 = ((n-1) s^2 + (n_b-1) s_b^2) / (n+n_b-2) is
    pooled, for two or three seeds say too little about each side's own. Seeds are not paired.
    """
    if one is None or baseline is None:
        return None
    value = one.mean - baseline.mean
    if one.sd is None or baseline.sd is None:
        return Difference(value)
    freedom = one.n + baseline.n - 2
    pooled = ((one.n - 1) * one.sd**2 + (baseline.n - 1) * baseline.sd**2) / freedom
    return Difference(value, math.sqrt(pooled * (1 / one.n + 1 / baseline.n)))
