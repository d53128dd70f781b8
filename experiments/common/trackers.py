"""The trackers a run can report to. Imports none of them, nor torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from experiments.common.errors import UserError, did_you_mean

TRACKERS = ("tensorboard", "wandb", "mlflow")  # names of packages, and of msdet's extras that install them


def check(trackers: Sequence[str]) -> None:
    """Raise UserError where a tracker is unknown or not installed."""
    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"--track: '{name}' is no tracker; {did_you_mean(name, TRACKERS)}")
        spec = importlib.util.find_spec(name)
        # W&B and MLflow write folders of their own names, which look like packages without an origin
        if spec is None or spec.origin is None:
            raise UserError(
                f"--track {name}: the package '{name}' is not installed", f"pip install 'msdet[{name}]'"
            )
