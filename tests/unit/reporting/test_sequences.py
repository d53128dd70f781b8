"""The anytime-valid t test, Holm's adjustment and their place in reports, against integrals and hand calculations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import integrate, stats

from experiments.reporting import build_report, collect
from experiments.reporting.render.records import render_csv, report_content
from experiments.reporting.stats.sequences import (
    SequentialDifference,
    add_sequence,
    compute_e_value,
    compute_sequence_quantile,
)
from experiments.reporting.stats.statistics import Difference, adjust_by_holm, compute_difference
from experiments.reporting.tables.row_evidence import list_row_notes

from .conftest import MakeRun

BASE, RLO, AVW = "retinanet-r50", "retinanet-r50-rlo", "retinanet-r50-avw"


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize(
    ("t", "n", "scale"), [(1, 5, 1), (3, 5, 1), (-2.5, 12, 2), (2.5, 12, 0.5), (4, 30, 1)]
)
def test_the_e_value_is_a_mixture_of_noncentral_t_densities(t: float, n: int, scale: float):
    def weighted(mean: float) -> float:
        return float(stats.nct.pdf(t, n - 1, mean * math.sqrt(n)) * stats.norm.pdf(mean, 0, scale))

    mixture, _ = integrate.quad(weighted, -12 * scale, 12 * scale, limit=400, points=[0, t / math.sqrt(n)])
    assert compute_e_value(t, n, scale) == pytest.approx(mixture / stats.t.pdf(t, n - 1), rel=1e-9)


def test_the_interval_ends_where_the_e_value_reaches_20():
    assert [compute_sequence_quantile(n) for n in (1, 2, 3, 4)] == [math.inf] * 4  # e stays below 20 at any t
    for n, scale in ((5, 1.0), (9, 0.5), (100, 2.0)):
        assert compute_e_value(compute_sequence_quantile(n, scale), n, scale) == pytest.approx(20, rel=1e-9)
    change = add_sequence(compute_difference(by_seed(3, 1, 2, 4, 0, 2), by_seed(0, 0, 0, 0, 0, 0)))
    assert compute_e_value((change.value - change.low) / change.error, 6) == pytest.approx(20)
    assert change.p_value == pytest.approx(1 / change.e_value)


def test_equal_differences_and_a_single_pair_are_no_errors():
    same = add_sequence(compute_difference(by_seed(1, 1), by_seed(0, 0)))
    assert (same.low, same.verdict) == (None, "too few seeds")
    assert same.e_value == pytest.approx(math.sqrt(3))  # (1 / 3) ** (-(2 - 1) / 2), the limit for a large t
    one = add_sequence(compute_difference(by_seed(1), by_seed(0)))
    assert (one.e_value, one.low, one.verdict) == (1.0, None, "too few seeds")
    many = add_sequence(compute_difference(by_seed(*range(8)), by_seed(*[3.0] * 8)), effect=1.0, scale=1 / 3)
    assert (many.low, many.verdict, many.is_settled) == (None, "within noise", False)  # not for want of seeds


def test_differences_within_the_effect_are_settled():
    pairs = np.array([0.1, -0.1] * 5)
    change = compute_difference(by_seed(*pairs), by_seed(*[0.0] * 10))
    assert add_sequence(change, 0.2).verdict == "smaller than the effect"  # 3.87 * 0.105 / sqrt(10) = 0.129
    small = add_sequence(change, 0.1)
    assert (small.verdict, small.is_settled) == ("within noise", False)
    n, how = small.seeds_to_settle()
    half = {m: compute_sequence_quantile(m) * change.error * math.sqrt(10 / m) for m in (n - 1, n)}
    assert (how, half[n] < 0.1 <= half[n - 1]) == ("smaller than the effect", True)


def test_holm_adjusts_as_by_hand():
    def with_p_value(p: float) -> Difference:
        value = float(stats.t.isf(p / 2, 4))
        return Difference(value, 1.0, 0.1, 2 * value, True, 5, degrees_of_freedom=4)

    changes = {p: with_p_value(p) for p in (0.01, 0.04, 0.03)}
    few = Difference(1.0, 1.0, -5, 7, True, 2, degrees_of_freedom=1)
    adjusted = adjust_by_holm({**changes, "few": few})
    # the smallest times 3, the next times 2; the last may not come before that one
    assert {k: c.p_adjusted for k, c in adjusted.items()} == {
        0.01: pytest.approx(0.03), 0.03: pytest.approx(0.06), 0.04: pytest.approx(0.06), "few": None,
    }  # fmt: skip
    assert [adjusted[p].verdict for p in (0.01, 0.03, 0.04)] == ["gain", "within noise", "within noise"]


def study(results: Path, **content: object) -> None:
    rows = [{"id": "baseline", "label": BASE, "recipe": BASE}]
    rows += [{"id": name, "label": name, "recipe": name, "baseline": "baseline"} for name in (RLO, AVW)]
    page = {"name": "s", "title": "S", "columns": ["AP"], "profile": "tiny", "blocks": [{"rows": rows}]}
    path = results / "ablations" / "s.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(page | content), encoding="utf-8")


def test_rows_of_a_study_show_the_sequence_interval_and_are_adjusted(results: Path, make_run: MakeRun):
    study(results, study={"effect": 0.5})
    for seed, gain in enumerate((1.0, 1.2, 0.8, 1.1, 0.9)):
        for name, ap in ((BASE, 40), (RLO, 40 + gain), (AVW, 40 + 2 * gain - 1.9)):
            make_run(name, seed, {"AP": ap}, profile="tiny")
    table = build_report(collect(results), ["s"]).tables[0]
    assert "anytime-valid" in table.notes[0]
    change = next(row.difference for row in table.rows if row.definition.id == RLO)
    assert isinstance(change, SequentialDifference)
    assert change.high - change.value == pytest.approx(8.453 * math.sqrt(0.025 / 5), abs=1e-3)
    # alone p is 1 / 28.5; with a second recipe twice that
    assert (change.p_adjusted, change.verdict) == (pytest.approx(2 / 28.5, rel=1e-3), "within noise")
    notes = dict(list_row_notes(table, has_resampling=False))
    assert "the interval holds at every look, e-value 28.5, p 0.035" in notes[RLO]
    assert "p 0.035, over 2 rows 0.07 (Holm)" in notes[RLO]
    assert "anytime_low" in render_csv([table]).partition("\n")[0]


def test_seeds_added_after_a_look_have_the_anytime_valid_interval_beside(results: Path, make_run: MakeRun):
    def notes() -> str:
        report = build_report(collect(results), ["s"])
        json.dumps(report_content(report), allow_nan=False)
        return dict(list_row_notes(report.tables[0], has_resampling=False))[RLO]

    study(results)
    for seed in range(5):
        for name, ap in ((BASE, 40), (RLO, 41 + seed / 10)):
            make_run(name, seed, {"AP": ap}, profile="tiny")
    assert "anytime-valid" not in notes()
    make_run(BASE, 5, {"AP": 40}, profile="tiny")
    (later,) = (results / "runs" / BASE).glob("*/seed5/record.json")
    record = json.loads(later.read_text())
    later.write_text(json.dumps(record | {"created": "2026-01-02T00:00:00+00:00"}))
    assert "anytime-valid" not in notes()  # the row lacks that seed: it is in no difference
    for run in (results / "runs" / RLO).glob("*/seed4/record.json"):
        record = json.loads(run.read_text())
        record["created"] = "2026-01-02T00:00:00+00:00"  # a day after the others had ended
        run.write_text(json.dumps(record))
    assert "seeds were added after a first look: anytime-valid interval [+0.6, +1.8]" in notes()
