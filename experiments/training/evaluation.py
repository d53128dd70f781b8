"""Evaluates a checkpoint on a data set, in this process."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from experiments.data.find import FoundDataset
from experiments.errors import UserError
from experiments.recipes import Recipe
from experiments.runs import RunFolder


def evaluate_checkpoint(
    recipe: Recipe, checkpoint: Path, data: FoundDataset, out: Path | None = None
) -> dict[str, float]:
    """Metrics of a checkpoint on the validation split, in percent.

    Args:
        recipe: The recipe that the checkpoint was trained with, with the data set to evaluate on.
        checkpoint: File of weights, whole.
        data: That data set, found.
        out: Folder for `val.bbox.json`; None keeps no detections.

    Raises:
        UserError: The checkpoint is broken, or of another model.
    """
    sys.path.append(str(Path.cwd()))  # the user's `imports`
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        return _evaluate(recipe, checkpoint, data, out, Path(folder))


def _evaluate(
    recipe: Recipe, checkpoint: Path, data: FoundDataset, out: Path | None, folder: Path
) -> dict[str, float]:
    from experiments.training import components  # noqa: F401
    from experiments.training.checkpoints import read_checkpoint
    from experiments.training.config import build_config
    from experiments.training.pretrained import without_pretrained
    from experiments.training.prior import set_prior
    from experiments.training.worker import build_runner

    config = build_config(recipe, data.classes, data.root, folder)
    run = RunFolder(checkpoint.resolve().parent.parent)
    trained_on = run.read().dataset if run.record_file.exists() else {}
    set_prior(config, recipe, data.fingerprint, trained_with=trained_on.get("foreground_prior"))
    without_pretrained(config.model)
    config.test_evaluator.outfile_prefix = str((out or folder).resolve() / "val")
    config.default_hooks.pop("checkpoint")
    config.log_level = "ERROR"
    content = read_checkpoint(checkpoint)
    runner = build_runner(config)
    try:
        runner.model.load_state_dict(content.get("state_dict", content))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{checkpoint} does not fit recipe {recipe.name}: {reason}", "--recipe names another one"
        ) from None
    return dict(runner.test())
