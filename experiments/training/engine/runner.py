"""MMEngine's Runner, made strict about what it reads and exact about what it repeats."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from experiments.common.errors import UserError
from experiments.detection.level_weighting.hook import unwrap
from experiments.training.engine.checkpoints import read_checkpoint
from experiments.training.engine.fast import fit_optimizer_state, set_device_math
from experiments.training.engine.sampler import SeededDataset


class CachedTextConfig(Config):
    """A copy of a config that is formatted once: every checkpoint holds its text, which takes most of a second."""

    def __init__(self, config: Config) -> None:
        super().__init__(config._cfg_dict, config.text, config.filename, config.env_variables)

    @functools.cached_property
    def pretty_text(self) -> str:
        """Return the config as Python code."""
        return super().pretty_text


class StrictRunner(Runner):
    """MMEngine's Runner that never unpickles code: checkpoints are read with `weights_only=True`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cfg: Config = CachedTextConfig(self.cfg)  # nothing changes it from here on

    @property
    def timestamp(self) -> str:
        """Return the folder of MMEngine's own log: one `mmengine/` of the run, not one for each start."""
        return "mmengine"

    def wrap_model(self, model_wrapper_cfg: Any, model: Any) -> Any:
        """Return the model, wrapped for several processes; with `fast` made faster before."""
        if self.cfg.get("fast"):
            set_device_math(fast=True)
            model.to(memory_format=torch.channels_last)
        return super().wrap_model(model_wrapper_cfg, model)

    def _init_model_weights(self) -> None:
        # random numbers are drawn in the order of memory
        self.model.to(memory_format=torch.contiguous_format)
        super()._init_model_weights()
        if self.cfg.get("fast"):
            self.model.to(memory_format=torch.channels_last)

    @staticmethod
    def build_dataloader(dataloader: Any, seed: int | None = None, **options: Any) -> DataLoader:
        """Build a loader whose training data are augmented by what follows from (seed, epoch, sample)."""
        sampler = dataloader.get("batch_sampler") if isinstance(dataloader, dict) else None
        if isinstance(sampler, dict) and sampler.get("type") == "ResumableBatchSampler" and seed is not None:
            dataset = dataloader["dataset"]
            if isinstance(dataset, dict):
                dataset = DATASETS.build(dataset)
                if hasattr(dataset, "full_init"):
                    dataset.full_init()
            dataloader = {**dataloader, "dataset": SeededDataset(dataset, seed)}
        return Runner.build_dataloader(dataloader, seed=seed, **options)

    def dump_config(self) -> None:
        """Do nothing: the worker has written `config.py` already."""

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict:
        """Load weights that fit the model, and log those that do not.

        Raises:
            UserError: A resumed run's checkpoint is of another model, or no weight fits.
        """
        path = Path(filename)
        if not path.is_file():  # torchvision:// and the like
            return super().load_checkpoint(filename, *args, **kwargs)
        checkpoint = read_checkpoint(path)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = unwrap(self.model)
        state, own = dict(checkpoint.get("state_dict", checkpoint)), model.state_dict()
        misfits = [n for n, v in state.items() if n in own and getattr(v, "shape", None) != own[n].shape]
        fitting = {name: value for name, value in state.items() if name not in misfits}
        missing, unexpected = model.load_state_dict(fitting, strict=False)
        if self._resume and (missing or unexpected):
            raise UserError(f"{path} is of another model: missing {missing[:3]}, unexpected {unexpected[:3]}")
        if len(missing) == len(own):
            raise UserError(f"{path} holds none of the model's weights")
        for name, keys in (
            ("of another shape, left as initialised", misfits),  # a head for other classes, say
            ("not in the file, left as initialised", [name for name in missing if name not in misfits]),
            ("in the file only, unused", unexpected),
        ):
            if keys:
                self.logger.warning(f"{path}: {len(keys)} weights {name}: {', '.join(keys[:5])} ...")
        if self._resume and "optimizer" in checkpoint:
            fit_optimizer_state(checkpoint["optimizer"], self.optim_wrapper)
        self._has_loaded = True
        self.logger.info(f"loaded {path}")
        return checkpoint
