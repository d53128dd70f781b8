"""What level weighting adds to a training iteration: RLO and AVW against uniform, interleaved in one process.

The three detectors share weights, data and machine; blocks of iterations take turns, in an order that turns
round by round, so that what else the machine does falls on all alike. The ratio is taken within each round.
Stock MMDetection's own detector is a fourth, for what the level split itself costs.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.stepper import Stepper

KINDS = ("stock", "uniform", "avw", "rlo")


def measure(rounds: int = 12, steps: int = 10, batch_size: int = 8, size: int = 160) -> dict[str, Any]:
    """Milliseconds per iteration, ratios to uniform within each round, and what the rule itself takes.

    A ratio's uncertainty is two standard errors over the rounds. The rule's own share is timed directly: it
    is far below what the ratio of two trainings can resolve.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    steppers = {
        kind: Stepper(
            "retinanet-r50",
            "tiny",
            [] if kind == "stock" else [f"weighting.rule={kind}", "weighting.alpha=100"],
            stock=kind == "stock",
            batch_size=batch_size,
            size=(size, size),
            device=device,
        )
        for kind in KINDS
    }
    for stepper in steppers.values():
        stepper.seconds(3)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        order = KINDS[number % len(KINDS) :] + KINDS[: number % len(KINDS)]
        for kind in order:
            times[kind].append(steppers[kind].seconds(steps) / steps)
    found: dict[str, Any] = {f"{kind} ms": 1000 * statistics.median(times[kind]) for kind in KINDS}
    for kind in ("stock", "avw", "rlo"):
        ratios = [a / b for a, b in zip(times[kind], times["uniform"])]
        error = statistics.stdev(ratios) / len(ratios) ** 0.5
        found[f"{kind} to uniform"] = {"ratio": statistics.mean(ratios), "two standard errors": 2 * error}
    for kind in ("uniform", "avw", "rlo"):
        stepper = steppers[kind]
        found[f"{kind} finish_step"] = {
            "us per iteration": 1e6 * stepper.rule_s / stepper.steps,
            "% of the iteration": 100 * stepper.rule_s / stepper.all_s,
        }
    return found
