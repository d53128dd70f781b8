"""Means, spreads and differences, against numbers worked out by hand and against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.reporting.statistics import Difference, Spread, difference, spread


def test_one_seed_has_no_standard_deviation():
    assert spread([36.9]) == Spread(36.9, None, 1)
    assert str(spread([36.9])) == "36.9 ± - (1)"


def test_two_seeds_by_hand():
    found = spread([36.0, 37.0])  # deviations 0.5 and 0.5: sqrt(0.5 / (2 - 1))
    assert found.mean == 36.5
    assert found.sd == pytest.approx(0.7071067811865476, rel=1e-12)
    assert str(found) == "36.5 ± 0.7 (2)"


def test_identical_values_have_a_deviation_of_zero():
    found = spread([36.1] * 5)
    assert found.sd == 0.0
    assert found.mean == 36.1
    assert str(found) == "36.1 ± 0.0 (5)"


@pytest.mark.parametrize("n", [2, 3, 5, 17])
def test_as_numpy_says(n: int):
    values = np.random.default_rng(n).normal(37, 0.4, n)
    found = spread(values)
    assert found.n == n
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.sd == pytest.approx(values.std(ddof=1), rel=1e-9)


def test_what_is_no_number_does_not_count():
    assert spread([36.0, math.nan, None, math.inf, 37.0]) == spread([36.0, 37.0])
    assert spread([]) is None
    assert spread([math.nan, None]) is None


def test_difference_with_unequal_numbers_of_seeds_by_hand():
    # 36, 37, 38: variance 1.  35, 37: variance 2.  pooled (2 * 1 + 1 * 2) / 3 = 4/3, times 1/3 + 1/2 = 10/9
    found = difference(spread([36.0, 37.0, 38.0]), spread([35.0, 37.0]))
    assert found.value == pytest.approx(1.0)
    assert found.error == pytest.approx(math.sqrt(10 / 9), rel=1e-12)
    assert str(found) == "+1.0 ± 1.1"


def test_with_equal_numbers_the_error_is_that_of_the_two_means():
    one, two = np.array([50.1, 50.9, 49.8]), np.array([50.9, 51.2, 51.4])
    expected = math.sqrt(one.var(ddof=1) / 3 + two.var(ddof=1) / 3)
    assert difference(spread(two), spread(one)).error == pytest.approx(expected, rel=1e-9)


def test_a_single_seed_on_either_side_gives_no_error():
    assert difference(spread([36.9]), spread([36.0, 36.2])).error is None
    assert difference(spread([36.0, 36.2]), spread([36.9])).error is None
    assert str(difference(spread([36.0]), spread([36.9]))) == "-0.9"


def test_nothing_to_compare_with():
    assert difference(None, spread([36.0])) is None
    assert difference(spread([36.0]), None) is None


def test_no_difference_has_no_sign():
    assert str(Difference(0.0)) == "0.0"
    assert str(Difference(-0.04)) == "0.0"
    assert str(Difference(-0.06, 0.0)) == "-0.1 ± 0.0"
