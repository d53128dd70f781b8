"""The time of an image in inference, by neck: Figure 4 of arXiv 2108.04014, batch 1, models in turns.

*Model only*: a preprocessed tensor on the device in, detections on the device out, NMS included. *End to end*: an image
file in, through the test pipeline, the preprocessing and the model, detections in the file's own coordinates out. RLO's
model is the baseline's, so its ratio to the baseline is what this measurement takes for noise.

No weights are trained: time does not depend on them, but the work of NMS does, for they decide how many candidates it
gets. So the score threshold is 0 here, and every model hands NMS the most that its test settings allow (`nms_pre` of
each level), all equally many. Trained, with the usual threshold, each would be a little quicker.
"""

from __future__ import annotations

import copy
import logging
import statistics
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.analysis import get_model_complexity_info

from benchmarks.ratios import Progress, estimate_ratio, measure_seconds, summarize_times, take_turns
from experiments.data.find import find_dataset
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.recipes.tables import Row, load_table
from experiments.training.config.builder import build_config  # before MMDetection: it installs the operators
from experiments.training.config.data import test_pipeline
from experiments.training.config.pretrained import without_pretrained

from mmcv.transforms import Compose  # isort: skip
from mmdet.registry import MODELS  # isort: skip
from mmdet.utils import register_all_modules  # isort: skip

TABLE, BASELINE = "fig4", "baseline"
PAPER_SIZE = (1333, 800)
REPEATS = 5  # inferences of each kind in a model's turn
WARM_UP = 3  # inferences of each kind and model before the first round
WIDEST = 640  # pixels of the image file, COCO's usual width


def measure(
    profile: str | None,
    dataset: str | None,
    size: tuple[int, int] | None,
    rounds: int,
    progress: Progress,
) -> dict[str, Any]:
    """Return seconds per image of each row of table fig4, as `experiments.reporting.bench` describes them.

    Args:
        dataset: As on the command line; only its number of classes counts.
        size: Width and height that images are resized to fit in, in pixels; None: the profile's, else (1333, 800).
        rounds: At least 2; in each, every model has REPEATS inferences of either kind.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        image, rows = Path(folder) / "image.jpg", load_rows(profile, dataset, size)
        width, height = size or rows[0][1].image_size or PAPER_SIZE
        image_size = write_noise_image(image, (width, height))
        logging.disable(logging.WARNING)  # MMEngine has a line for every weight
        try:
            systems = []
            for row, recipe in rows:
                progress(f"building {row.label}")
                systems.append(System(row, recipe, image, device))
        finally:
            logging.disable(logging.NOTSET)
        seconds = _in_turns(systems, rounds, progress)
    first = systems[0]
    return {
        "profile": profile,
        "dataset": first.recipe.dataset.name,
        "device": device,
        "image": list(image_size),
        "size": [width, height],
        "tensor": list(first.tensor.shape),
        "rounds": rounds,
        "repeats": REPEATS,
        "candidates": first.candidates(),
        "models": [_figures(system, seconds) for system in systems],
    }


class System:
    """One row of the table, ready to detect; the random seed of its weights is the same for all."""

    def __init__(self, row: Row, recipe: Recipe, image: Path, device: str) -> None:
        self.row, self.recipe, self.image, self.device = row, recipe, image, device
        register_all_modules(init_default_scope=True)
        config = build_config(recipe, find_classes(recipe), Path(), Path())
        without_pretrained(config.model)
        config.model.test_cfg.score_thr = 0.0
        steps = copy.deepcopy(test_pipeline(config))
        self.pipeline = Compose([step for step in steps if step["type"] != "LoadAnnotations"])
        torch.manual_seed(0)
        self.model = MODELS.build(config.model)
        self.model.init_weights()
        self.model.to(device).eval()
        prepared = self.model.data_preprocessor(self.load(), False)
        self.tensor, self.samples = prepared["inputs"], prepared["data_samples"]
        self.counts = self._count()

    def load(self) -> dict[str, Any]:
        """Return the image as a data loader gives it, a batch of one."""
        loaded = self.pipeline(dict(img_path=str(self.image), img_id=0))
        return {"inputs": [loaded["inputs"]], "data_samples": [loaded["data_samples"]]}

    def model_only(self) -> None:
        """Detect on the preprocessed tensor."""
        self.model(self.tensor, self.samples, mode="predict")

    def end_to_end(self) -> None:
        """Detect on the image file."""
        self.model.test_step(self.load())

    def candidates(self) -> int:
        """Return how many boxes NMS gets."""
        most = self.model.test_cfg.nms_pre
        scores, *_ = self.model(self.tensor)
        return sum(min(most, level.numel()) for level in scores)

    def _count(self) -> dict[str, Any]:
        """Return the parameters that inference uses, and multiply-adds up to the head's maps."""
        training_only = sum(p.numel() for name, p in self.model.named_parameters() if name.startswith("aux_"))
        parameters = sum(p.numel() for p in self.model.parameters()) - training_only
        try:
            found = get_model_complexity_info(
                self.model, inputs=(self.tensor,), show_table=False, show_arch=False
            )
            flops = float(found["flops"])
        except Exception:  # tracing fails on what a neck of one's own may do; the time does not rest on it
            flops = None
        return {"parameters": parameters, "flops": flops}


def load_rows(
    profile: str | None, dataset: str | None, size: tuple[int, int] | None
) -> list[tuple[Row, Recipe]]:
    """Return the rows of table fig4 and their recipes, which all have images of one size."""
    sets = [f"image_size={list(size)}"] if size else []
    return [
        (row, recipes.load_recipe(row.recipe, profile, sets, dataset, row.set))
        for row in load_table(TABLE).rows()
        if row.recipe is not None
    ]


def find_classes(recipe: Recipe) -> list[str]:
    """Return a data set's classes; none where only annotations name them: then the model's own 80 count."""
    spec = recipe.dataset
    return find_dataset(spec, generate=False).classes if spec.generate is not None else list(spec.classes)


def write_noise_image(path: Path, size: tuple[int, int]) -> tuple[int, int]:
    """Write a JPEG of noise that fills `size` exactly when it is resized; return its own size."""
    shrunk = min(1.0, WIDEST / size[0])
    width, height = round(size[0] * shrunk), round(size[1] * shrunk)
    random = np.random.default_rng(0)
    pixels = np.zeros((height, width, 3))
    for side in (4, 16, 64):
        noise = random.uniform(0, 85, (side, side, 3))
        pixels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.imwrite(str(path), pixels.astype(np.uint8))
    return width, height


def _in_turns(
    systems: list[System], rounds: int, progress: Progress
) -> dict[tuple[str, str], list[list[float]]]:
    """Return for each (row, kind) and round the seconds of REPEATS inferences."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for number, system in take_turns(systems, 1 + rounds):  # the first round only warms up
        progress(f"round {number} of {rounds}" if number else "warming up")
        for kind, work in (("model", system.model_only), ("end_to_end", system.end_to_end)):
            first = 1 if number else WARM_UP  # what others left in the caches goes first
            block = [measure_seconds(work, system.device) for _ in range(first + REPEATS)]
            if number:
                found.setdefault((system.row.id, kind), []).append(block[first:])
    return found


def _figures(system: System, seconds: dict[tuple[str, str], list[list[float]]]) -> dict[str, Any]:
    row = system.row
    names = {"id": row.id, "label": row.label, "recipe": system.recipe.name}
    told: dict[str, Any] = {**names, **system.counts}
    for kind in ("model", "end_to_end"):
        own, base = seconds[row.id, kind], seconds[BASELINE, kind]
        told[kind] = summarize_times([second for block in own for second in block])
        # Nothing in inference comes once in a while, so a block's median is what it takes when nothing disturbs it.
        medians = [[statistics.median(block) for block in blocks] for blocks in (own, base)]
        told[f"{kind}_ratio"] = None if row.id == BASELINE else estimate_ratio(*medians)
    return told
