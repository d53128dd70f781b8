"""The mean weights of finished runs: what the controls with fixed weights are made of. No torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import fmean
from typing import Literal

from experiments.common.errors import UserError
from experiments.runs.run_folder import RunFolder

DIGITS = 4  # after the point: a page that can be read, and far below any effect


def time_means(run: RunFolder) -> dict[str, float]:
    """Level to its mean weight over a run, in the order in which its trace has them: finest first.

    Raises:
        UserError: The trace is missing or broken, has no rows or several heads.
    """
    weights: dict[tuple[str, str], list[float]] = {}
    intervals = []
    try:
        with open(run.trace, newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                weights.setdefault((row["head"], row["level"]), []).append(float(row["weight"]))
                intervals.append(int(row["interval"]))
    except OSError as error:
        raise UserError(f"{run.trace} cannot be read: {error.strerror or error}", _again(run)) from None
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{run.trace} is not a trace", _again(run)) from None
    if len({head for head, _ in weights}) != 1:
        found = "several weighted heads" if weights else "no whole interval"
        raise UserError(f"{run.trace} has {found}: no mean weights follow from it")
    last = max(intervals)
    if any(len(values) != last for values in weights.values()):
        raise UserError(
            f"{run.trace} lacks some of its {last} intervals: no mean weights follow from it", _again(run)
        )
    means = {level: fmean(values) for (_, level), values in weights.items()}
    if not all(map(math.isfinite, means.values())):
        raise UserError(f"{run.trace} has weights that are no finite numbers", _again(run))
    return means


def mean_weights(
    runs: Sequence[RunFolder],
    mean: Literal["level", "overall"],
    time_means: Callable[[RunFolder], dict[str, float]] = time_means,
) -> list[list[float]]:
    """The weights that a rule had in force, averaged over time and then over runs, from `trace.csv`.

    A trace row covers one interval, so the mean over rows is the mean over iterations. The first interval's
    weights of 1 were in force and count; what came after the last whole interval leaves no row.

    Args:
        runs: All of the same detector, with one weighted head.
        mean: `level` by level, or `overall`: the mean over levels, on every level.
        time_means: In place of reading a trace, for who has read it before.

    Returns:
        For each run the mean over it and those before it: K values, finest level first.

    Raises:
        UserError: A trace is missing or broken, has no rows or several heads, or the runs differ in their levels.
    """
    by_run = [time_means(run) for run in runs]
    for run, means in zip(runs, by_run):
        if list(means) != list(by_run[0]):
            raise UserError(f"{run.trace}: its levels are {list(means)}, another run's {list(by_run[0])}")
    totals = dict.fromkeys(by_run[0] if by_run else (), Fraction())  # exact, so that no sum is begun anew
    so_far = []
    for count, means in enumerate(by_run, start=1):
        totals = {level: total + Fraction(means[level]) for level, total in totals.items()}
        weights = [float(total) / count for total in totals.values()]
        if mean == "overall":
            weights = [fmean(weights)] * len(weights)
        so_far.append([round(weight, DIGITS) for weight in weights])
    return so_far


def _again(run: RunFolder) -> str:
    return f"train it again: msdet run {run.recipe} --seed {run.path.name.removeprefix('seed')} --force"
