"""Which trackers a run can report to, and whether they are installed. No torch, and none of them is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from experiments.common.errors import UserError, did_you_mean

TRACKERS = ("tensorboard", "wandb", "mlflow")  # names of packages, and of msdet's extras that install them


def check(trackers: Sequence[str]) -> None:
    """Makes sure that every tracker can be used, before anything slow starts.

    Raises:
        UserError: One is unknown, or not installed.
    """
    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"--track: '{name}' is no tracker; {did_you_mean(name, TRACKERS)}")
        spec = importlib.util.find_spec(name)
        # W&B and MLflow leave folders of their own names behind, which look like packages without an origin
        if spec is None or spec.origin is None:
            raise UserError(
                f"--track {name}: the package '{name}' is not installed", f"pip install 'msdet[{name}]'"
            )
