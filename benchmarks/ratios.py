"""Times: of one call, summarized, and the ratio of two that are measured in turns, with its confidence interval."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

Progress = Callable[[str], None]  # is told what is measured next
Thing = TypeVar("Thing")


def measure_seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """Return how long work takes, the device's included."""
    began = time.perf_counter()
    work()
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - began


def balance_orders(count: int) -> list[list[int]]:
    """Return the order in which things take turns, round by round: a balanced Latin square (Williams 1949).

    Over all rows each thing stands at each place equally often, and comes right after each other thing equally often:
    what a turn leaves behind (warm caches, a hot processor) falls on all alike.

    Returns:
        `count` rows, twice as many where it is odd and above 1.
    """
    zigzag = [0, *(step for low in range(1, count) for step in (low, count - low))][:count]
    rows = [[(place + shift) % count for place in zigzag] for shift in range(count)]
    return rows + [row[::-1] for row in rows] if count % 2 and count > 1 else rows


def take_turns(things: Iterable[Thing], rounds: int) -> Iterator[tuple[int, Thing]]:
    """Yield the round, from 0 on, and whose turn it is, in the orders of `balance_orders` over and over."""
    each = list(things)
    for number, order in zip(range(rounds), itertools.cycle(balance_orders(len(each)))):
        for place in order:
            yield number, each[place]


def summarize_times(seconds: Sequence[float]) -> dict[str, Any]:
    """Return median and quartiles."""
    low, middle, high = (
        statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else 3 * [*seconds]
    )
    return {"median_s": middle, "q1_s": low, "q3_s": high, "n": len(seconds)}


def estimate_ratio(of: Sequence[float], to: Sequence[float]) -> dict[str, Any]:
    """Return the geometric mean of the rounds' ratios, with a 95 % confidence interval.

    A t interval of the mean log ratio over rounds. Rounds that follow each other may be alike, and then tell less than
    as many independent ones: where the lag-1 autocorrelation r is positive, n rounds count as n (1 - r) / (1 + r).
    (As measured r is too low, by 1 / n where rounds are independent: that is added.)

    Args:
        of: Seconds of each round; at least two.
        to: Seconds of the same rounds.
    """
    from experiments.reporting.stats.statistics import compute_t_quantile

    logs = [math.log(a / b) for a, b in zip(of, to, strict=True)]
    mean = statistics.fmean(logs)
    r = min(max(0.0, compute_autocorrelation(logs) + 1 / len(logs)), 1.0)
    effective = max(2.0, len(logs) * (1 - r) / (1 + r))
    error = statistics.stdev(logs) / math.sqrt(effective)
    half = compute_t_quantile(effective - 1) * error
    ends = {"ratio": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)}
    return {**ends, "rounds": len(logs)}


def compute_autocorrelation(values: Sequence[float]) -> float:
    """Return the lag-1 autocorrelation; 0 where nothing varies."""
    mean = statistics.fmean(values)
    apart = [value - mean for value in values]
    total = sum(a * a for a in apart)
    return sum(a * b for a, b in itertools.pairwise(apart)) / total if total else 0.0
