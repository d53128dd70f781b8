"""The simulation of studies, against studies judged one by one, and the guarantee that it verifies."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.decisions import EFFECT, count_runs_taken, measure_error_rates
from experiments.reporting.stats.sequences import add_sequence
from experiments.reporting.stats.statistics import compute_difference


def test_simulated_studies_end_as_those_that_are_judged_one_by_one():
    pairs = np.random.default_rng(1).normal(0.3, 0.28, (40, 12))
    ends = []
    for study in pairs:
        for n in range(2, 13):
            change = add_sequence(
                compute_difference(dict(enumerate(study[:n])), dict.fromkeys(range(n), 0.0)), EFFECT
            )
            if change.is_settled:
                break
        ends.append((n, change.verdict if change.is_settled else "out of seeds"))
    found = count_runs_taken(pairs)
    assert found["mean seeds"] == pytest.approx(np.mean([n for n, _ in ends]), abs=0.05)
    for name, verdict in (
        ("gain", "gain"),
        ("smaller", "smaller than the effect"),
        ("out of seeds", "out of seeds"),
    ):
        assert found[f"{name} %"] == pytest.approx(100 * sum(v == verdict for _, v in ends) / 40)


def test_looking_after_each_seed_errs_in_5_percent_at_most_and_with_t_intervals_far_more():
    found = measure_error_rates(np.random.default_rng(2).standard_normal((10_000, 30)))
    assert found["study %"] <= 5
    assert found["t interval %"] > 20
