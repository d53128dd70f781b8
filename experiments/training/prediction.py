"""What a checkpoint predicts, in this process: metrics on a data set, or detections on image files."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.data.find import FoundDataset
from experiments.recipes.loading import load_recipe
from experiments.recipes.schema import Recipe
from experiments.runs.run_folder import RunFolder


def evaluate_checkpoint(
    recipe: Recipe, checkpoint: Path, data: FoundDataset, out: Path | None = None
) -> dict[str, float]:
    """Return the metrics of a checkpoint on the validation split, in percent.

    Args:
        recipe: The recipe that the checkpoint was trained with, with the data set to evaluate on.
        out: Folder for `val.bbox.json`; None keeps no detections.

    Raises:
        UserError: The checkpoint is broken, or of another model.
    """
    with _silence(), tempfile.TemporaryDirectory() as folder:
        from experiments.training.config.builder import build_runner

        config = _load_config(recipe, checkpoint, data.classes, data.root, data.fingerprint, Path(folder))
        config.test_evaluator.outfile_prefix = str((out or Path(folder)).resolve() / "val")
        runner = build_runner(config)
        _load_weights(runner.model, checkpoint, recipe)
        return dict(runner.test())


@dataclass(frozen=True)
class Detection:
    """A detected object: `box` is x, y, width, height in pixels of the original image, `score` 0 to 1."""

    category: str
    score: float
    box: tuple[float, float, float, float]


class Predictor:
    """A run's detector, loaded: its newest weights, MMDetection's own test pipeline, no augmentation.

    Args:
        run: With a checkpoint; finished or not.

    Raises:
        UserError: It has none, it is broken, or does not fit the run's recipe.
    """

    def __init__(self, run: RunFolder) -> None:
        checkpoint, self.record = run.newest_checkpoint(), run.read()
        self._in_batches: dict[int, list[Detection]] = {}  # by place in the validation set
        data = self.record.dataset
        self.classes = list(data.get("classes") or ())
        root, fingerprint = Path(str(data.get("root") or "")), str(data.get("fingerprint") or "")
        with _silence():
            import torch
            from mmcv.transforms import Compose
            from mmdet.registry import MODELS
            from mmengine.registry import init_default_scope

            from experiments.training.config.data import test_pipeline

            recipe = load_recipe(str(run.recipe))
            with tempfile.TemporaryDirectory() as folder:
                config = _load_config(recipe, checkpoint, self.classes, root, fingerprint, Path(folder))
            init_default_scope("mmdet")
            self._model = MODELS.build(config.model)
            _load_weights(self._model, checkpoint, recipe)
            self._model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            self._pipeline = Compose([s for s in test_pipeline(config) if s["type"] != "LoadAnnotations"])
            self._batch_size = int(config.test_dataloader.batch_size)

    def detect(self, path: Path) -> list[Detection]:
        """Return the detections on an image by itself, the highest score first."""
        return self._batch([path])[0]

    def detect_val(self, files: Sequence[Path], place: int) -> list[Detection]:
        """Return the detections on an image of the validation set as the run's final evaluation found them.

        A batch is padded to its largest image, and with it what the detector sees at the edges changes: each image
        goes through it beside those that were beside it then.

        Args:
            files: The whole set, in its order; the same in every call.
            place: In it.
        """
        ranks = self.record.attempts[-1].world_size if self.record.attempts else 1
        if place not in self._in_batches:
            members = find_batch(place, len(files), self._batch_size, ranks)
            self._in_batches.update(zip(members, self._batch([files[i] for i in members])))
        return self._in_batches[place]

    def _batch(self, files: Sequence[Path]) -> list[list[Detection]]:
        import torch
        from mmengine.dataset import pseudo_collate

        data = [self._pipeline({"img_path": str(path), "img_id": i}) for i, path in enumerate(files)]
        with torch.no_grad():
            found = self._model.test_step(pseudo_collate(data))
        return [self._detections(sample.pred_instances) for sample in found]

    def _detections(self, found: Any) -> list[Detection]:
        columns = (found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist())
        made = [
            Detection(self.classes[label], score, (x1, y1, x2 - x1, y2 - y1))
            for (x1, y1, x2, y2), score, label in zip(*columns)
        ]
        return sorted(made, key=lambda detection: -detection.score)


def find_batch(place: int, images: int, batch_size: int, ranks: int = 1) -> list[int]:
    """Return the places of the images that an evaluation has in one batch with the image at `place`.

    MMEngine's sampler deals the images out in turn, and fills up with the first ones so that all ranks have as many.
    """
    rank, turn = place % ranks, place // ranks
    whole = -(-images // ranks)  # of each rank
    first = turn - turn % batch_size
    return [(i * ranks + rank) % images for i in range(first, min(first + batch_size, whole))]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Print nothing of what MMDetection says, and let it find the user's `imports`."""
    sys.path.append(str(Path.cwd()))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _load_config(
    recipe: Recipe, checkpoint: Path, classes: Sequence[str], root: Path, fingerprint: str, folder: Path
) -> Any:
    """Return the config that a checkpoint is tested with: all its weights come from there.

    π of Guided Loss is that of the checkpoint's run.

    Args:
        classes, root, fingerprint: Of the data set to test on.
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


def _load_weights(model: Any, checkpoint: Path, recipe: Recipe) -> None:
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
