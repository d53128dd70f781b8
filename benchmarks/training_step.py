"""Steps of a detector on one made-up batch over and over; on a GPU of every full-size recipe."""

from __future__ import annotations

import copy
import statistics
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData

from benchmarks.ratios import measure_seconds
from experiments.common.errors import UserError
from experiments.recipes import loading as recipes
from experiments.recipes.catalogue import find_shipped, list_pages
from experiments.training.config.builder import build_config  # before MMDetection: it installs the operators
from experiments.training.config.pretrained import without_pretrained
from experiments.training.engine.fast import make_fast

from mmdet.registry import MODELS  # isort: skip
from mmdet.structures import DetDataSample  # isort: skip
from mmdet.utils import register_all_modules  # isort: skip

PAPER_SIZE = (1333, 800)
TIMED = 7  # steps behind the first three


class Stepper:
    """One detector with its optimizer.

    Args:
        recipe: What is trained; no pretrained weights are loaded.
        rule: Takes the place of the recipe's; None: the recipe's.
        loop: `stock` is MMDetection's own detector in place of the level-weighted one, `fast` what --fast makes of it.
        size: Width and height in pixels.
    """

    def __init__(
        self,
        recipe: str,
        profile: str | None,
        rule: str | None = None,
        loop: Literal["stock", "ours", "fast"] = "ours",
        batch_size: int = 8,
        size: tuple[int, int] = (160, 160),
        device: str = "cpu",
    ) -> None:
        register_all_modules(init_default_scope=True)
        overrides = {} if rule is None else {"weighting.rule": rule}
        loaded = recipes.load_recipe(recipe, profile, overrides=overrides)
        whole = build_config(loaded, loaded.dataset.classes, Path(), Path())
        if loop == "fast":
            make_fast(whole)
        config = whole.model
        without_pretrained(config)
        if config.get("bbox_head", {}).get("type") == "GuidedRetinaHead":
            config.bbox_head.foreground_prior = 1e-5  # any will do for its time and memory
        if loop == "stock":
            config.type = config.type.removeprefix("LevelWeighted")
            config.pop("weighting")
        torch.manual_seed(0)
        self.model = MODELS.build(config).to(device).train()
        if loop == "fast":
            self.model.to(memory_format=torch.channels_last)
        self.model.is_driven = True  # `step` does what the hook does
        self.optimizer = OptimWrapper(
            torch.optim.SGD(self.model.parameters(), lr=1e-6, fused=loop == "fast" or None)
        )
        self.batch = make_noise_batch(batch_size, size)

    def step(self) -> dict[str, Any]:
        """Take one optimizer step; return the losses to be logged."""
        logged = self.model.train_step(copy.copy(self.batch), self.optimizer)
        for head in getattr(self.model, "weighting", ()):
            head.finish_step()
        return logged


def make_noise_batch(batch_size: int, size: tuple[int, int]) -> dict[str, Any]:
    """Return noise as a data loader gives it, with four boxes an image, a tenth to half of its shorter side."""
    width, height = size
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for _ in range(batch_size):
        inputs.append(torch.randint(0, 255, (3, height, width), generator=generator, dtype=torch.uint8))
        corner = torch.rand(4, 2, generator=generator) * torch.tensor([width, height]) * 0.5
        side = min(size) * torch.tensor([0.1, 0.2, 0.3, 0.5])[:, None]
        sample = DetDataSample(
            metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + side], 1), labels=torch.arange(4)
        )
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def measure() -> dict[str, Any]:
    """Measure a step of each shipped recipe at full size on the GPU, and how often one of RetinaNet R50 waits for it.

    Raises:
        UserError: No GPU.
    """
    if not torch.cuda.is_available():
        raise UserError("bench gpu: torch sees no GPU here", "msdet doctor says what is there")
    names = [name for name, path in list_pages("recipe").items() if path.parent == find_shipped()]
    loops: dict[str, Any] = {"stock": "stock", "rlo": "ours", "rlo with --fast": "fast"}
    common: dict[str, Any] = dict(profile=None, batch_size=2, size=PAPER_SIZE, device="cuda")
    return {
        "one step": {name: _time(Stepper(name, **common)) for name in names},
        "synchronisations of a step": {
            kind: _synchronisations(Stepper("retinanet-r50-rlo", loop=loop, **common))
            for kind, loop in loops.items()
        },
    }


def _time(stepper: Stepper) -> dict[str, float]:
    torch.cuda.reset_peak_memory_stats()
    first, loss = measure_seconds(stepper.step, "cuda"), float(stepper.step()["loss"])
    # The first of these is warm-up beside the two above: cuDNN and the allocator have settled behind it.
    seconds = [measure_seconds(stepper.step, "cuda") for _ in range(1 + TIMED)]
    return {
        "seconds, the first": first,
        "loss": loss,
        "seconds, median": statistics.median(seconds[1:]),
        "peak memory, MiB": torch.cuda.max_memory_allocated() / 2**20,
    }


def _synchronisations(stepper: Stepper) -> int:
    """Return how often a step makes the host wait for the device."""
    stepper.step()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            stepper.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)
