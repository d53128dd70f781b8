"""Best and second of a block of rows, as tables mark them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

Key = TypeVar("Key")

DIGITS = 1  # as shown: what looks equal shares a mark


def rank_values(values: Mapping[Key, float | None]) -> dict[Key, int]:
    """Return 1 for the highest value, 2 for the next; values equal as shown share a rank.

    Noise is not asked about: that is the difference's business. Empty where fewer than two rows have a value, or
    all have the same.
    """
    shown = {key: round(value, DIGITS) for key, value in values.items() if value is not None}
    order = sorted(set(shown.values()), reverse=True)
    if len(order) < 2:
        return {}
    return {key: order.index(value) + 1 for key, value in shown.items() if value in order[:2]}


def rank_by_metric(
    rows: Mapping[Key, Mapping[str, float]], metrics: Iterable[str]
) -> dict[Key, dict[str, int]]:
    """Return ranks by row and metric."""
    found: dict[Key, dict[str, int]] = {key: {} for key in rows}
    for metric in metrics:
        for key, rank in rank_values({key: row.get(metric) for key, row in rows.items()}).items():
            found[key][metric] = rank
    return found
