"""Mean weights of finished runs, for controls with fixed weights. No torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import fmean
from typing import Literal

from experiments.common.errors import UserError
from experiments.common.files import MAX_TEXT_BYTES, explain_unreadable
from experiments.runs.run_folder import RunFolder

DECIMALS = 4  # readable, and far below any effect


def time_means(run: RunFolder) -> dict[str, float]:
    """Return level to mean weight over a run, finest level first.

    Raises:
        UserError: The trace is missing or broken, has no rows, or several heads.
    """
    fault = explain_unreadable(run.trace, MAX_TEXT_BYTES)
    if fault is not None:
        raise _damaged(run, f"cannot be read: {fault.removeprefix('cannot be read: ')}")
    weights: dict[tuple[str, str], list[float]] = {}
    last = 0
    try:
        with run.trace.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                weights.setdefault((row["head"], row["level"]), []).append(float(row["weight"]))
                last = max(last, int(row["interval"]))
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise _damaged(run, "is not a trace") from None
    if len({head for head, _ in weights}) != 1:
        found = "several weighted heads" if weights else "no complete interval"
        raise UserError(f"{run.trace} has {found}, so it has no mean weights")
    means = {level: fmean(values) for (_, level), values in weights.items()}
    if any(len(values) != last for values in weights.values()):
        raise _damaged(run, f"lacks some of its {last} intervals, so it has no mean weights")
    if not all(map(math.isfinite, means.values())):
        raise _damaged(run, "has weights that are not finite")
    return means


def _damaged(run: RunFolder, fault: str) -> UserError:
    seed = run.path.name.removeprefix("seed")
    return UserError(f"{run.trace} {fault}", f"train it again: msdet run {run.recipe} --seed {seed} --force")


def compute_mean_weights(
    runs: Sequence[RunFolder],
    mean: Literal["level", "overall"],
    time_means: Callable[[RunFolder], dict[str, float]] = time_means,
) -> list[list[float]]:
    """Return the weights in `trace.csv`, averaged over time and then over runs.

    A trace row covers one interval, so the mean over rows is the mean over iterations. The first interval counts with
    its weights of 1; iterations after the last complete interval have no row.

    Args:
        runs: Runs of the same detector, with one weighted head.
        mean: `level` for a mean of each level, `overall` for the mean over levels, on every level.
        time_means: Returns the means of one run; a cached one, say.

    Returns:
        For each run the mean over it and those before it: K values, finest level first.

    Raises:
        UserError: A trace is missing or broken, has no rows or several heads, or the runs differ in their levels.
    """
    by_run = [time_means(run) for run in runs]
    for run, means in zip(runs, by_run):
        if list(means) != list(by_run[0]):
            raise UserError(f"{run.trace}: its levels are {list(means)}, another run's {list(by_run[0])}")
    totals = dict.fromkeys(by_run[0] if by_run else (), Fraction())  # exact sums: their order does not matter
    so_far = []
    for count, means in enumerate(by_run, start=1):
        totals = {level: total + Fraction(means[level]) for level, total in totals.items()}
        weights = [float(total) / count for total in totals.values()]
        if mean == "overall":
            weights = [fmean(weights)] * len(weights)
        so_far.append([round(weight, DECIMALS) for weight in weights])
    return so_far
