"""Evaluation of a checkpoint on a data set, in this process."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.data.find import FoundDataset
from experiments.recipes.schema import Recipe
from experiments.runs.run_folder import RunFolder


def evaluate_checkpoint(
    recipe: Recipe, checkpoint: Path, data: FoundDataset, out: Path | None = None
) -> dict[str, float]:
    """Return the metrics of a checkpoint on the validation split, in percent.

    Args:
        recipe: The recipe that the checkpoint was trained with, with the data set to evaluate on.
        checkpoint: File of weights, whole.
        data: That data set, found.
        out: Folder for `val.bbox.json`; None keeps no detections.

    Raises:
        UserError: The checkpoint is broken, or of another model.
    """
    with silence(), tempfile.TemporaryDirectory() as folder:
        from experiments.training.config.builder import build_runner

        config = load_config(recipe, checkpoint, data.classes, data.root, data.fingerprint, Path(folder))
        config.test_evaluator.outfile_prefix = str((out or Path(folder)).resolve() / "val")
        runner = build_runner(config)
        load_weights(runner.model, checkpoint, recipe)
        return dict(runner.test())


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Print nothing of what MMDetection says, and let it find the user's `imports`."""
    sys.path.append(str(Path.cwd()))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def load_config(
    recipe: Recipe, checkpoint: Path, classes: Sequence[str], root: Path, fingerprint: str, folder: Path
) -> Any:
    """Return the config that a checkpoint is tested with: all its weights come from there.

    Args:
        recipe: The recipe that the checkpoint was trained with.
        checkpoint: File of weights; π of Guided Loss is that of its run.
        classes: Of the data set to test on, and so are the next two.
        root: Its folder.
        fingerprint: Its digest.
        folder: For what MMEngine writes.
    """
    from experiments.training import components  # noqa: F401
    from experiments.training.config.builder import build_config
    from experiments.training.config.foreground_prior import set_prior
    from experiments.training.config.pretrained import without_pretrained

    config = build_config(recipe, classes, root, folder)
    run = RunFolder(checkpoint.resolve().parent.parent)
    trained_on = run.read().dataset if run.record_file.exists() else {}
    set_prior(config, recipe, fingerprint, trained_with=trained_on.get("foreground_prior"))
    without_pretrained(config.model)
    config.default_hooks.pop("checkpoint")
    config.log_level = "ERROR"
    # else MMEngine would go on with that of an earlier evaluation in this process
    config.visualizer.update(name=str(folder), vis_backends=None)
    return config


def load_weights(model: Any, checkpoint: Path, recipe: Recipe) -> None:
    """Load a checkpoint's weights into a model.

    Raises:
        UserError: The checkpoint is broken, or of another model.
    """
    from experiments.training.engine.checkpoints import read_checkpoint

    content = read_checkpoint(checkpoint)
    try:
        model.load_state_dict(content.get("state_dict", content))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{checkpoint} does not fit recipe {recipe.name}: {reason}", "--recipe names another one"
        ) from None
