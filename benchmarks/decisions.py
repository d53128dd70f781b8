"""Studies of `msdet compare` by simulation: how often they err, and the runs that they save or cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.reporting.stats.sequences import compute_sequence_quantile
from experiments.reporting.stats.statistics import MIN_SEEDS, compute_t_quantile

STUDIES = 10_000
MAX_SEEDS = 30  # of a study whose errors are counted
PUBLISHED = 0.8  # AP: RetinaNet R50 with RLO, Table 1 of the paper
EFFECT = 0.5  # AP: the default of --effect
# Standard deviation of a seed's difference in AP, and the seeds that a study may have. COCO: runs of one config differ
# by 0.2 to 0.3 AP (open-mmlab/mmdetection, issues 3496 and 3624), so sqrt(2) * 0.2 for a pair. tiny: rows of Tables 4
# and 5 on the built-in data.
SPREADS = {"COCO": (0.28, 20), "tiny": (2.7, 200)}
# mAP of seeds 0 to 9 minus the baseline's, from results/evidence/bccd: a row for each of its seven rules.
REAL = (
    (0.12, -2.34, -3.31, -0.57, 2.39, -1.23, 0.17, -0.50, -0.52, -3.38),
    (-2.02, -0.70, -1.40, 0.35, -1.70, -2.34, -2.13, 0.27, -1.34, 0.20),
    (-1.90, -1.77, -1.40, 0.35, -1.47, -1.95, -0.40, 0.83, -1.34, 0.68),
    (-3.35, -5.58, -4.81, -4.10, 2.52, -5.46, -6.47, -4.54, -3.75, -2.08),
    (0.58, 1.04, -2.44, 0.40, 3.71, 1.24, -2.30, 1.06, -1.08, 3.01),
    (0.03, 0.30, -0.53, -1.42, 0.77, -0.89, -2.69, 1.85, -0.34, 0.91),
    (3.03, 2.30, 0.62, -0.05, 4.47, 0.44, 0.04, 3.47, 0.00, 1.87),
)  # fmt: skip


def measure() -> dict[str, Any]:
    """Return error rates under a mean of 0, and runs beside a fixed sample of equal power; shares in percent."""
    chance, size = np.random.default_rng(0), (STUDIES, MAX_SEEDS)
    real = np.array(REAL)
    residuals = (real - real.mean(axis=1, keepdims=True)).ravel()
    pairs = {
        "normal": chance.standard_normal(size),
        "heavy tails (t with 3 degrees of freedom)": chance.standard_t(3, size),
        "skewed (normal minus exponential)": chance.standard_normal(size) - chance.exponential(1, size) + 1,
        "drawn from real seeds": chance.choice(residuals, size),
        "beyond the method: exponential": chance.exponential(1, size) - 1,
    }
    runs = {
        f"{name}, {part:g} of the published": count_runs_taken(
            part * PUBLISHED + spread * chance.standard_normal((STUDIES, most))
        )
        for name, (spread, most) in SPREADS.items()
        for part in (0.0, 0.5, 1.0)
    }
    errors = {name: measure_error_rates(drawn) for name, drawn in pairs.items()}
    return {"studies": STUDIES, "seeds at most": MAX_SEEDS, "false verdicts": errors, "runs": runs}


def measure_error_rates(pairs: np.ndarray) -> dict[str, float]:
    """Return how often a gain or loss is ever seen where there is none, looking after each seed.

    Args:
        pairs: Differences by study and seed, of mean 0.
    """
    means, study, fixed = _looks(pairs)
    halves = {"study %": study, "t interval %": fixed}
    return {name: _percent((np.abs(means) > half).any(axis=1)) for name, half in halves.items()}


def count_runs_taken(pairs: np.ndarray) -> dict[str, Any]:
    """Return how studies end and the seeds they take, beside those of a fixed sample that decides as often.

    Args:
        pairs: Differences by study and seed, in AP.
    """
    means, study, fixed = _looks(pairs)
    gain, loss, inside = means > study, means < -study, np.abs(means) + study <= EFFECT
    is_settled = gain | loss | inside
    end = np.where(is_settled.any(axis=1), is_settled.argmax(axis=1), pairs.shape[1] - 1)
    verdicts = {"gain": gain, "loss": loss, "smaller": inside & ~gain & ~loss}
    shares = {name: _percent(found[np.arange(len(end)), end]) for name, found in verdicts.items()}
    found: dict[str, Any] = {f"{name} %": share for name, share in shares.items()}
    found["out of seeds %"] = _percent(~is_settled.any(axis=1))
    found["mean seeds"] = round(float(end.mean()) + 1, 1)
    usual = max(shares, key=shares.__getitem__)
    alike = {"gain": means > fixed, "loss": means < -fixed, "smaller": np.abs(means) + fixed <= EFFECT}
    is_enough = 100 * alike[usual].mean(axis=0) >= shares[usual]
    if shares[usual] >= 50 and is_enough.any():
        needed = int(is_enough.argmax()) + 1
        saved = round(100 * (1 - found["mean seeds"] / needed), 1)
        found |= {"fixed seeds of equal power": needed, "saved %": saved}
    return found


def _looks(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean of the first n pairs, and half its sequence interval and t interval, infinite if not judged."""
    n = np.arange(1, pairs.shape[1] + 1)
    means = pairs.cumsum(axis=1) / n
    squares = (pairs**2).cumsum(axis=1) - n * means**2
    errors = np.sqrt(np.maximum(squares, 1e-12) / np.maximum(n - 1, 1) / n)  # 0 times infinity is no number
    errors[:, : MIN_SEEDS - 1] = np.inf
    sizes = [max(k, 2) for k in n.tolist()]
    study = np.array([compute_sequence_quantile(k) for k in sizes])
    fixed = np.array([compute_t_quantile(k - 1) for k in sizes])
    return means, errors * study, errors * fixed


def _percent(are_true: np.ndarray) -> float:
    return round(100 * float(are_true.mean()), 2)
