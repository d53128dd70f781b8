"""Paired differences judged again after each seed: an anytime-valid t test and its confidence sequence.

Wang and Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance" (2023,
arXiv 2310.03722), Theorem 4.9: Lai's (1976) sequence with a Gaussian mixture. For differences from N(mu, sigma^2), the
ratio of two likelihoods of their t statistics, one averaged over mu / sigma ~ N(0, scale^2), the other with mu = 0, is
a martingale that begins at 1. By Ville's inequality it ever reaches 1 / alpha with a chance of at most alpha. So the
interval of the means that it does not reject holds at all looks at once, whatever the scale.

No package has it for Python 3.10: `ville` (0.1.0) takes the variance as known, or holds for large samples only;
`expectation` (0.6.1, GPL) requires Python 3.12 and plotly. `msdet bench decisions` checks the error rates.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from experiments.reporting.stats.statistics import CONFIDENCE_LEVEL, MIN_SEEDS, Difference, Verdict

# Most sensitive to a mean of one standard deviation; smaller ones take more than 20 seeds.
DEFAULT_SCALE = 1.0
MAX_SEEDS = 1000  # at which a forecast ends


@dataclass(frozen=True)
class SequentialDifference(Difference):
    """A paired difference whose `low` and `high` hold at all looks: None while the interval is unbounded."""

    effect: float | None = None  # the smallest difference that matters, in points; None where none is named
    scale: float = DEFAULT_SCALE  # of the mixture, in standard deviations

    @property
    def e_value(self) -> float:
        """The evidence against no difference: how many times better the mixture explains the pairs."""
        if self.error is None:
            return 1.0
        t = self.value / self.error if self.error else math.inf * self.value if self.value else 0.0
        return compute_e_value(t, self.n, self.scale)

    @property
    def p_value(self) -> float:
        """The anytime-valid p-value, 1 / e."""
        return min(1.0, 1 / self.e_value)

    @property
    def verdict(self) -> Verdict:
        """As that of any difference, or `smaller than the effect`, where the interval lies within +-`effect`."""
        found = super().verdict
        if self.low is None or self.high is None:  # a small `scale` has no interval for some seeds yet
            return "within noise" if self.n >= MIN_SEEDS else found
        is_small = self.effect is not None and -self.effect <= self.low and self.high <= self.effect
        return "smaller than the effect" if found == "within noise" and is_small else found

    @property
    def is_settled(self) -> bool:
        return self.verdict not in ("within noise", "too few seeds")

    def seeds_to_settle(self) -> tuple[int, Verdict] | None:
        """Return at how many seeds the question is settled, and how, if mean and spread stay as they are.

        None under MIN_SEEDS pairs, and where it would take more than MAX_SEEDS.
        """
        if self.n < MIN_SEEDS or self.error is None:
            return None
        variance = self.error**2 * self.n
        for n in range(self.n + 1, MAX_SEEDS + 1):
            longer = replace(self, n=n, error=math.sqrt(variance / n), p_adjusted=None)
            if (later := add_sequence(longer, self.effect, self.scale)).is_settled:
                return n, later.verdict
        return None


def add_sequence(
    change: Difference, effect: float | None = None, scale: float = DEFAULT_SCALE
) -> SequentialDifference:
    """Return a paired difference with its confidence sequence in place of its t interval."""
    reach = compute_sequence_quantile(change.n, scale)
    half = reach * change.error if change.error is not None and change.paired and reach < math.inf else None
    low, high = (None, None) if half is None else (change.value - half, change.value + half)
    own = {"low": low, "high": high, "effect": effect, "scale": scale}
    return SequentialDifference(**{**vars(change), **own})


def compute_e_value(t: float, n: int, scale: float = DEFAULT_SCALE) -> float:
    """Return the e-value of a t statistic of n pairs, at most e to the 700, which a float holds."""
    shrinkage, x = _shrinkage(n, scale), t * t / (n - 1)
    ratio = (1 + x) / (1 + shrinkage * x) if x < math.inf else 1 / shrinkage
    log = 0.5 * math.log(shrinkage) + 0.5 * n * math.log(ratio)
    return math.exp(min(log, 700))


@functools.lru_cache(maxsize=4096)
def compute_sequence_quantile(n: int, scale: float = DEFAULT_SCALE) -> float:
    """Return how many standard errors the interval of n pairs reaches to either side; infinite for few pairs.

    It is the t at which the e-value is 1 / alpha.
    """
    if n < 2:
        return math.inf
    shrinkage = _shrinkage(n, scale)
    ratio = ((1 - CONFIDENCE_LEVEL) * math.sqrt(shrinkage)) ** (-2 / n)
    if ratio * shrinkage >= 1:
        return math.inf
    return math.sqrt((n - 1) * (ratio - 1) / (1 - ratio * shrinkage))


def _shrinkage(n: int, scale: float) -> float:
    return 1 / (1 + n * scale**2)
