"""Means, spreads and differences over the seeds of one recipe, and ranks among recipes."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

Verdict = Literal["gain", "loss", "smaller than the effect", "within noise", "too few seeds"]
Key = TypeVar("Key")
Change = TypeVar("Change", bound="Difference")

CONFIDENCE_LEVEL = 0.95
MIN_SEEDS = 3  # on each side; with two, the interval is 13 standard errors wide either way
MIN_BOOTSTRAP_PAIRS = 5  # fewer have too few resamples for an interval's ends


@dataclass(frozen=True)
class Spread:
    """A metric over `n` seeds, in percent."""

    mean: float
    sd: float | None  # of the sample (divided by n - 1); None for a single seed
    n: int

    def __str__(self) -> str:
        sd = "-" if self.sd is None else f"{self.sd:.1f}"
        return f"{self.mean:.1f} ± {sd} ({self.n})"


@dataclass(frozen=True)
class Difference:
    """One recipe minus another, in percentage points."""

    value: float  # paired, the mean of the seeds' differences; else the difference of the means
    error: float | None = None  # its standard error; None where either side has a single seed
    low: float | None = None  # ends of the 95 % confidence interval; None where there is no error
    high: float | None = None
    paired: bool = False  # two or more seeds have a result on both sides
    n: int = 1  # pairs; unpaired, the seeds of the side that has fewer
    pairs: tuple[float, ...] = ()  # the seeds' differences by ascending seed; empty when unpaired
    degrees_of_freedom: float = 0.0  # of the t distribution behind the interval; 0 where there is none
    p_adjusted: float | None = None  # after Holm, over a family of comparisons; None without a family
    family: int = 1  # its size

    @property
    def p_value(self) -> float | None:
        """The two-sided p-value of the t test, not adjusted; None where there is no error."""
        if not self.error:
            return None if self.error is None else float(self.value == 0)
        from scipy.special import stdtr

        return float(2 * stdtr(self.degrees_of_freedom, -abs(self.value) / self.error))

    @property
    def verdict(self) -> Verdict:
        """`gain` or `loss` where interval and adjusted p-value leave out 0, from MIN_SEEDS seeds on."""
        if self.n < MIN_SEEDS or self.low is None or self.high is None:
            return "too few seeds"
        if self.low <= 0 <= self.high or (self.p_adjusted or 0) >= 1 - CONFIDENCE_LEVEL:
            return "within noise"
        return "gain" if self.low > 0 else "loss"

    def bootstrap(self) -> tuple[float, float] | None:
        """Return the 95 % percentile bootstrap interval of the mean of the pairs (SciPy, 9999 draws).

        A check on the normality that the t interval assumes. With a handful of pairs it is too narrow, for it knows
        no differences but those seen. None under MIN_BOOTSTRAP_PAIRS pairs.
        """
        if len(self.pairs) < MIN_BOOTSTRAP_PAIRS:
            return None
        import numpy as np
        from scipy.stats import bootstrap

        if len(set(self.pairs)) == 1:  # nothing to resample
            return self.value, self.value
        found = bootstrap(
            (np.array(self.pairs),),
            np.mean,
            confidence_level=CONFIDENCE_LEVEL,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        text = format_signed(self.value)
        if self.low is None or self.high is None:
            return text
        return f"{text} [{format_signed(self.low)}, {format_signed(self.high)}]"


def format_signed(number: float) -> str:
    """Return `+0.3`, `-1.0`, or `0.0` without a sign."""
    rounded = round(number, 1) or 0.0  # never "-0.0"
    return f"{rounded:+.1f}" if rounded else "0.0"


def compute_spread(values: Iterable[float | None]) -> Spread | None:
    """Return mean and spread of the finite numbers; None where there is none."""
    numbers = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not numbers:
        return None
    mean, n = statistics.fmean(numbers), len(numbers)
    squares = math.fsum((v - mean) ** 2 for v in numbers)  # statistics.stdev is exact, and 30 times slower
    return Spread(mean, math.sqrt(squares / (n - 1)) if n > 1 else None, n)


def compute_difference(one: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Return `one` minus `baseline`, each a result by seed; None where either has none.

    Seeds share their initial weights and the order of their images, so results of one seed belong together: where
    two or more seeds match, their differences are taken and the others are left out (paired t). Otherwise the
    means are compared (Welch's t: neither side's variance is taken for the other's).
    """
    one, baseline = _finite(one), _finite(baseline)
    if not one or not baseline:
        return None
    common = sorted(one.keys() & baseline.keys())
    if len(common) > 1:
        return _paired(tuple(one[seed] - baseline[seed] for seed in common))
    return _unpaired(list(one.values()), list(baseline.values()))


def adjust_by_holm(changes: Mapping[Key, Change]) -> dict[Key, Change]:
    """Return the differences of one family with Holm's adjusted p-values: the chance of any false verdict is 5 %.

    Those with too few seeds are not judged, and so are no part of the family.
    """
    judged = {key: c.p_value or 0.0 for key, c in changes.items() if c.verdict != "too few seeds"}
    adjusted, least = dict(changes), 0.0
    for place, key in enumerate(sorted(judged, key=judged.__getitem__)):
        least = max(least, min(1.0, (len(judged) - place) * judged[key]))
        adjusted[key] = replace(changes[key], p_adjusted=least, family=len(judged))
    return adjusted


def rank_values(values: Mapping[Key, float | None]) -> dict[Key, int]:
    """Return 1 for the highest value, 2 for the next; values equal as shown share a rank.

    Noise is not asked about: that is the difference's business. Empty where fewer than two rows have a value, or
    all have the same.
    """
    shown = {key: round(value, 1) for key, value in values.items() if value is not None}  # as tables show it
    order = sorted(set(shown.values()), reverse=True)
    if len(order) < 2:
        return {}
    return {key: order.index(value) + 1 for key, value in shown.items() if value in order[:2]}


def rank_by_metric(
    rows: Mapping[Key, Mapping[str, float]], metrics: Iterable[str]
) -> dict[Key, dict[str, int]]:
    """Return `rank_values` of each metric, by row and metric."""
    found: dict[Key, dict[str, int]] = {key: {} for key in rows}
    for metric in metrics:
        for key, rank in rank_values({key: row.get(metric) for key, row in rows.items()}).items():
            found[key][metric] = rank
    return found


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {int(seed): float(v) for seed, v in values.items() if v is not None and math.isfinite(v)}


def _paired(pairs: tuple[float, ...]) -> Difference:
    n = len(pairs)
    value = math.fsum(pairs) / n
    error = math.sqrt(math.fsum((pair - value) ** 2 for pair in pairs) / (n - 1) / n)
    half = error * compute_t_quantile(n - 1)
    return Difference(value, error, value - half, value + half, True, n, pairs, n - 1)


def _unpaired(one: list[float], baseline: list[float]) -> Difference:
    value = statistics.fmean(one) - statistics.fmean(baseline)
    n = min(len(one), len(baseline))
    if n < 2:
        return Difference(value, n=n)
    parts = [(statistics.variance(side) / len(side), len(side) - 1) for side in (one, baseline)]
    squared = sum(part for part, _ in parts)
    if squared == 0:
        return Difference(value, 0.0, value, value, n=n, degrees_of_freedom=len(one) + len(baseline) - 2)
    degrees_of_freedom = squared**2 / sum(part**2 / own for part, own in parts)  # Welch-Satterthwaite
    error = math.sqrt(squared)
    half = error * compute_t_quantile(degrees_of_freedom)
    return Difference(value, error, value - half, value + half, n=n, degrees_of_freedom=degrees_of_freedom)


@functools.lru_cache(maxsize=1024)
def compute_t_quantile(degrees_of_freedom: float) -> float:
    """Return how many standard errors the 95 % interval reaches to either side."""
    from scipy.special import stdtrit  # a tenth of what importing scipy.stats takes

    return float(stdtrit(degrees_of_freedom, 0.5 + CONFIDENCE_LEVEL / 2))
