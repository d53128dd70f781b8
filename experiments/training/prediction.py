"""A run's detections on image files: its newest weights, MMDetection's own test pipeline, no augmentation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.recipes.loading import load_recipe
from experiments.recipes.schema import Recipe
from experiments.runs.run_folder import RunFolder
from experiments.training.evaluation import load_config, load_weights, silence


@dataclass(frozen=True)
class Detection:
    """A detected object: `box` is x, y, width, height in pixels of the original image, `score` 0 to 1."""

    category: str
    score: float
    box: tuple[float, float, float, float]


class Predictor:
    """A run's detector, loaded.

    Args:
        run: With a checkpoint; finished or not. The newest is taken.

    Raises:
        UserError: It has none, it is broken, or does not fit the run's recipe.
    """

    def __init__(self, run: RunFolder) -> None:
        self.checkpoint, self.record = run.newest_checkpoint(), run.read()
        self._in_batches: dict[int, list[Detection]] = {}  # by place in the validation set
        self.classes = list(self.record.dataset.get("classes") or ())
        with silence():
            self._load(load_recipe(str(run.recipe)))

    def _load(self, recipe: Recipe) -> None:
        import torch
        from mmcv.transforms import Compose
        from mmdet.registry import MODELS
        from mmengine.registry import init_default_scope

        from experiments.training.config.data import test_pipeline

        data = self.record.dataset
        with tempfile.TemporaryDirectory() as folder:
            root, fingerprint = Path(str(data.get("root") or "")), str(data.get("fingerprint") or "")
            config = load_config(recipe, self.checkpoint, self.classes, root, fingerprint, Path(folder))
        init_default_scope("mmdet")
        self._model = MODELS.build(config.model)
        load_weights(self._model, self.checkpoint, recipe)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        steps = [s for s in test_pipeline(config) if s["type"] != "LoadAnnotations"]
        self._pipeline = Compose(steps)
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
