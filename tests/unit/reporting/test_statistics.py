"""Means, spreads and differences, against numbers worked out by hand, NumPy and SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from experiments.reporting.stats.power import compute_power
from experiments.reporting.stats.statistics import (
    Difference,
    Spread,
    compute_difference,
    compute_spread,
    rank_values,
)


def test_one_seed_has_no_standard_deviation():
    assert compute_spread([36.9]) == Spread(36.9, None, 1)
    assert str(compute_spread([36.9])) == "36.9 ± - (1)"


def test_two_seeds_by_hand():
    found = compute_spread([36.0, 37.0])  # deviations 0.5 and 0.5: sqrt(0.5 / (2 - 1))
    assert found.mean == 36.5
    assert found.sd == pytest.approx(0.7071067811865476, rel=1e-12)
    assert str(found) == "36.5 ± 0.7 (2)"


def test_identical_values_have_a_deviation_of_zero():
    found = compute_spread([36.1] * 5)
    assert found.sd == 0.0
    assert found.mean == 36.1
    assert str(found) == "36.1 ± 0.0 (5)"


@pytest.mark.parametrize("n", [2, 3, 5, 17])
def test_as_numpy_says(n: int):
    values = np.random.default_rng(n).normal(37, 0.4, n)
    found = compute_spread(values)
    assert found.n == n
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.sd == pytest.approx(values.std(ddof=1), rel=1e-9)


def test_what_is_no_number_does_not_count():
    assert compute_spread([36.0, math.nan, None, math.inf, 37.0]) == compute_spread([36.0, 37.0])
    assert compute_spread([]) is None
    assert compute_spread([math.nan, None]) is None


def by_seed(*values: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, start=first))


def test_paired_by_hand():
    # differences 1, 2, 3: mean 2, variance 1, error sqrt(1/3); t(2) at 97.5 % is 4.302653
    found = compute_difference(by_seed(36.0, 38.0, 40.0), by_seed(35.0, 36.0, 37.0))
    assert (found.value, found.paired, found.n) == (pytest.approx(2.0), True, 3)
    assert found.error == pytest.approx(math.sqrt(1 / 3), rel=1e-12)
    assert found.high - found.value == pytest.approx(4.30265273 * math.sqrt(1 / 3), rel=1e-8)
    assert str(found) == "+2.0 [-0.5, +4.5]"
    assert found.verdict == "within noise"


@pytest.mark.parametrize("n", [2, 3, 5, 17])
def test_paired_as_scipy_says(n: int):
    random = np.random.default_rng(n)
    base = random.normal(36, 0.4, n)
    other = base + random.normal(0.5, 0.3, n)
    found = compute_difference(by_seed(*other), by_seed(*base))
    expected = stats.ttest_rel(other, base).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.value == pytest.approx((other - base).mean(), rel=1e-12)
    assert found.pairs == pytest.approx(tuple(other - base))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (17, 4)])
def test_seeds_that_do_not_match_are_compared_as_scipy_says(n: int, m: int):
    random = np.random.default_rng(n)
    one, base = random.normal(36.5, 0.4, n), random.normal(36, 0.2, m)
    found = compute_difference(by_seed(*one), by_seed(*base, first=100))
    expected = stats.ttest_ind(one, base, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert not found.paired
    assert found.pairs == ()
    assert found.n == min(n, m)
    assert found.bootstrap() is None


def test_unequal_seeds_are_paired_where_they_match():
    # seeds 0 and 2 are on both sides (a run of seed 1 failed here, one of seed 3 is only here): 1.0 and 2.0
    found = compute_difference({0: 37.0, 2: 38.0, 3: 99.0}, {0: 36.0, 1: 12.0, 2: 36.0})
    assert found.pairs == pytest.approx((1.0, 2.0))
    assert found.value == pytest.approx(1.5)
    assert found.verdict == "too few seeds"


def test_one_seed_that_matches_is_no_pairing():
    found = compute_difference({0: 37.0, 1: 37.4}, {0: 36.0, 5: 36.2})
    assert not found.paired
    assert found.value == pytest.approx(37.2 - 36.1)


def test_a_single_seed_on_either_side_gives_no_interval():
    for one, base in ((by_seed(36.9), by_seed(36.0, 36.2)), (by_seed(36.0, 36.2), by_seed(36.9))):
        found = compute_difference(one, base)
        assert (found.error, found.low, found.high) == (None, None, None)
        assert found.verdict == "too few seeds"
        assert compute_power(found, 0.8) is None
    assert str(compute_difference(by_seed(36.0), by_seed(36.9))) == "-0.9"


def test_nothing_to_compare_with():
    assert compute_difference({}, by_seed(36.0)) is None
    assert compute_difference(by_seed(36.0), {0: math.nan}) is None


def test_identical_values_differ_by_nothing():
    found = compute_difference(by_seed(36.0, 36.5, 36.1), by_seed(36.0, 36.5, 36.1))
    assert (found.value, found.low, found.high, found.verdict) == (0.0, 0.0, 0.0, "within noise")
    assert found.bootstrap() is None
    equal = compute_difference(by_seed(*[36.0] * 5), by_seed(*[36.0] * 5))
    assert equal.bootstrap() == (0.0, 0.0)
    assert compute_power(found, 0.8) is None
    same = compute_difference(by_seed(36.0, 36.0, 36.0), by_seed(35.0, 35.0, 35.0, first=7))
    assert (same.value, same.low, same.high, same.verdict) == (1.0, 1.0, 1.0, "gain")


def test_words_follow_the_interval():
    def verdict(*pairs: float) -> str:
        return compute_difference(by_seed(*(36 + p for p in pairs)), by_seed(*[36.0] * len(pairs))).verdict

    assert verdict(0.8, 0.9, 0.7) == "gain"
    assert verdict(-0.8, -0.9, -0.7) == "loss"
    assert verdict(0.8, -0.9, 0.7) == "within noise"
    assert verdict(0.8, 0.8001) == "too few seeds"  # whatever two seeds agree on


def test_bootstrap_against_all_resamples():
    """With five pairs there are 3125 resamples, each as likely as any other."""
    pairs = (0.5, 1.5, 2.1, -0.7, 0.9)
    found = compute_difference(by_seed(*(36 + pair for pair in pairs)), by_seed(*[36.0] * 5))
    means = [sum(drawn) / 5 for drawn in itertools.product(pairs, repeat=5)]
    assert found.bootstrap() == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.05)
    assert compute_difference(by_seed(36.5, 37.5, 38.1, 39), by_seed(*[36.0] * 4)).bootstrap() is None
    many = compute_difference(by_seed(*np.random.default_rng(0).normal(37, 1, 40)), by_seed(*[36.0] * 40))
    low, high = many.bootstrap()  # for many pairs it comes near the t interval
    assert (low, high) == pytest.approx((many.low, many.high), abs=0.05)
    assert many.bootstrap() == (low, high)  # the same at every call


def test_power_as_noncentral_t_says():
    pairs = np.array([0.2, 1.1, 0.5, 0.9, 0.1])
    found = compute_power(compute_difference(by_seed(*(36 + pairs)), by_seed(*[36.0] * 5)), 0.4)
    sd = pairs.std(ddof=1)

    def exact(effect: float, n: int) -> float:
        limit, shift = stats.t.ppf(0.975, n - 1), effect / sd * math.sqrt(n)
        return stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)

    assert exact(0.4, found.needed) >= 0.8 > exact(0.4, found.needed - 1)
    assert exact(found.detectable, 5) == pytest.approx(0.8, abs=1e-4)
    assert f"the published +0.4 takes {found.needed} seeds" in str(found)


def test_power_of_two_seeds_by_simulation():
    """There the noncentral t is not computed by SciPy: 100 000 experiments instead."""
    found = compute_power(compute_difference(by_seed(37.0, 38.0), by_seed(36.0, 36.0)), None)  # sd sqrt(1/2)
    draws = np.random.default_rng(0).normal(found.detectable, math.sqrt(0.5), (100_000, 2))
    t = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(2))
    assert (np.abs(t) > stats.t.ppf(0.975, 1)).mean() == pytest.approx(0.8, abs=0.005)


def test_power_unpaired_needs_both_sides():
    found = compute_power(
        compute_difference(by_seed(36.9, 37.1, 36.7), by_seed(36.1, 36.0, 36.4, first=7)), 0.3
    )
    sd = math.sqrt(np.var([36.9, 37.1, 36.7], ddof=1) + np.var([36.1, 36.0, 36.4], ddof=1))

    def exact(n: int) -> float:
        limit = stats.t.ppf(0.975, 2 * (n - 1))
        return stats.nct.sf(limit, 2 * (n - 1), 0.3 / sd * math.sqrt(n))

    assert exact(found.needed) >= 0.8 > exact(found.needed - 1)


def test_a_published_difference_too_small_to_be_seen():
    found = compute_power(compute_difference(by_seed(30.0, 37.0, 44.0), by_seed(36.0, 36.0, 36.0)), 0.1)
    assert found.needed is None
    assert "more than 1000 seeds" in str(found)


def test_no_difference_has_no_sign():
    assert str(Difference(0.0)) == "0.0"
    assert str(Difference(-0.04)) == "0.0"
    assert str(Difference(-0.06, 0.0, -0.06, -0.06)) == "-0.1 [-0.1, -0.1]"


def test_ties_share_a_rank():
    assert rank_values({"a": 36.1, "b": 36.9, "c": 36.94, "d": 36.0, "e": None}) == {"b": 1, "c": 1, "a": 2}
    assert rank_values({"a": 36.1, "b": 36.1}) == {}  # all alike: nothing stands out
    assert rank_values({"a": 36.1, "b": None}) == {}
