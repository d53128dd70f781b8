"""Statistical power: seeds that a difference takes, and the difference that seeds can show."""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.reporting.stats.statistics import Difference, compute_t_quantile, format_signed

if TYPE_CHECKING:
    import numpy as np

POWER = 0.8  # the usual chance at which an experiment is planned to find what is there
MAX_SEEDS = 1000  # beyond this nobody trains; the search for a number of seeds ends there


@dataclass(frozen=True)
class Power:
    """What a comparison could have seen: two-sided t test at 5 %, at the measured spread."""

    published: float | None  # the difference that is looked for, in points; None where none is published
    # Seeds (paired; else of each side) that show it with 80 % power; None without it, or above MAX_SEEDS.
    needed: int | None
    detectable: float  # the difference that the present seeds show with 80 % power
    n: int  # the present seeds, as in `Difference`

    def __str__(self) -> str:
        now = (
            f"{self.n} seeds show a difference of {self.detectable:.1f} or more (80 % power, at this spread)"
        )
        if self.published is None:
            return now
        seeds = self.needed or f"more than {MAX_SEEDS}"
        return f"the published {format_signed(self.published)} takes {seeds} seeds; {now}"


def compute_power(change: Difference | None, published: float | None) -> Power | None:
    """Return what a difference's seeds can show, and how many the published one takes.

    The spread is that of the difference: of the pairs, or of both sides' results. It is an estimate from few seeds
    itself; take the answer for an order of magnitude. None where there is no spread.
    """
    if change is None or not change.error:
        return None
    sd = change.error * math.sqrt(change.n)  # of one pair; unpaired, of one seed of each side
    sides = 1 if change.paired else 2
    needed = _seeds_for(abs(published) / sd, sides) if published else None
    return Power(published or None, needed, sd * _effect_for(change.n, sides), change.n)


def _seeds_for(effect: float, sides: int) -> int | None:
    """Return the smallest n that finds an effect (in standard deviations) with 80 % power."""
    if _power(effect, MAX_SEEDS, sides) < POWER:
        return None
    counts = range(2, MAX_SEEDS + 1)  # power grows with n
    return counts[bisect.bisect_left(counts, POWER, key=lambda n: _power(effect, n, sides))]


@functools.lru_cache(maxsize=1024)
def _effect_for(n: int, sides: int) -> float:
    """Return the effect (in standard deviations) that n seeds find with 80 % power, by bisection."""
    low, high = 0.0, 1.0
    while _power(high, n, sides) < POWER:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, n, sides) >= POWER else (middle, high)
    return high


def _power(effect: float, n: int, sides: int) -> float:
    """Return the power of the two-sided t test for an effect in standard deviations.

    Given the measured spread the test is one of a normal variable; its power is averaged over what the spread may
    come out as. (SciPy's noncentral t gives no number for large effects with few seeds.)
    """
    from scipy.special import ndtr

    degrees_of_freedom = sides * (n - 1)
    shift = effect * math.sqrt(n)
    limits = compute_t_quantile(degrees_of_freedom) * _spreads(degrees_of_freedom)
    return float((ndtr(shift - limits) + ndtr(-shift - limits)).mean())


@functools.lru_cache(maxsize=1024)
def _spreads(degrees_of_freedom: int) -> np.ndarray:
    """Return equally likely values of (measured / true standard deviation)."""
    import numpy as np
    from scipy.special import gammaincinv

    quantiles = (np.arange(4000) + 0.5) / 4000
    return np.sqrt(2 / degrees_of_freedom * gammaincinv(degrees_of_freedom / 2, quantiles))
