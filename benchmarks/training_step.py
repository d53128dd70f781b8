"""A detector that trains on one made-up batch over and over, for timing."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, Literal


class Stepper:
    """One detector with its optimizer.

    Args:
        recipe: What is trained; no pretrained weights are loaded.
        profile: As on the command line.
        rule: Takes the place of the recipe's; None: the recipe's.
        loop: `stock` is MMDetection's own detector in place of the level-weighted one, `fast` what --fast makes of it.
        batch_size: Images per batch.
        size: Width and height in pixels.
        device: `cpu` or `cuda`.
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
        import torch
        from mmdet.utils import register_all_modules

        from experiments.detection import operators  # noqa: F401  (importing it registers everything)
        from experiments.recipes import loading as recipes
        from experiments.training.config.builder import build_config
        from experiments.training.config.pretrained import without_pretrained
        from experiments.training.engine.fast import make_fast

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
        from mmdet.registry import MODELS
        from mmengine.optim import OptimWrapper

        self.device = device
        self.model = MODELS.build(config).to(device).train()
        if loop == "fast":
            self.model.to(memory_format=torch.channels_last)
        self.model.is_driven = True  # `step` does what the hook does
        self.optimizer = OptimWrapper(
            torch.optim.SGD(self.model.parameters(), lr=1e-6, fused=loop == "fast" or None)
        )
        self.batch = make_noise_batch(batch_size, size)
        self.steps, self.rule_s, self.all_s = 0, 0.0, 0.0

    def step(self) -> dict[str, Any]:
        """Take one optimizer step; return the losses to be logged."""
        logged = self.model.train_step(copy.copy(self.batch), self.optimizer)
        before = time.perf_counter()
        for head in getattr(self.model, "weighting", ()):
            head.finish_step()
        self.rule_s += time.perf_counter() - before
        self.steps += 1
        return logged

    def seconds(self, steps: int) -> float:
        """Return how long so many steps take, the device's work included."""
        import torch

        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        self.all_s += seconds
        return seconds


def make_noise_batch(batch_size: int, size: tuple[int, int]) -> dict[str, Any]:
    """Return noise as a data loader gives it, with four boxes an image, a tenth to half of its shorter side."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

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
