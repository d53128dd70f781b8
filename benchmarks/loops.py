"""The trainings that are compared: msdet's own worker's, and MMDetection's own, of the same recipe and data."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine import ConfigDict
from mmengine.runner import Runner

from experiments.common.errors import UserError
from experiments.data.find import FoundDataset
from experiments.detection import LevelWeightingHook  # before MMDetection: it installs the operators
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.training import components  # noqa: F401  (registers what a config names)
from experiments.training.config import builder
from experiments.training.config.foreground_prior import set_prior
from experiments.training.config.pretrained import without_pretrained
from experiments.training.engine.fast import make_fast

from mmdet.registry import MODELS  # isort: skip

ALPHA = 100  # the paper's, before a profile shortens it
NEVER = 10**9


class Loop(NamedTuple):
    """A training that is compared: its rule, and how it is executed."""

    label: str
    rule: str = "rlo"
    fast: bool = False
    amp: str | None = None


@dataclass(frozen=True)
class Task:
    """The training that all loops have in common.

    Attributes:
        recipe, profile, dataset: As on the command line.
        batch: Images of a step, in one forward pass; None: `images_per_gpu` of the recipe.
        size: Width and height in pixels; None: as the recipe has it.
        data_root: The data set's folder; None: its own.
    """

    recipe: str
    profile: str | None = None
    dataset: str | None = None
    batch: int | None = None
    size: tuple[int, int] | None = None
    data_root: Path | None = None

    def load(self, rule: str, amp: str | None = None) -> Recipe:
        """Return the recipe under a rule, on one device, endless."""
        size = None if self.size is None else list(self.size)
        given = {"schedule.images_per_gpu": self.batch, "amp": amp, "image_size": size}
        sets = ["schedule.gpus=1", "schedule.eval_every=null", f"checkpoint_every={NEVER}"]
        sets += [f"{key}={value}" for key, value in given.items() if value is not None]
        length = "epochs" if self._load(rule, sets).schedule.epochs else "iterations"
        return self._load(rule, [*sets, f"schedule.{length}={NEVER}"])

    def _load(self, rule: str, sets: list[str]) -> Recipe:
        overrides = {"weighting.rule": rule, "weighting.alpha": ALPHA}
        return recipes.load_recipe(self.recipe, self.profile, sets, self.dataset, overrides)


def build_config(task: Task, loop: Loop, data: FoundDataset, work_dir: Path) -> Any:
    """Return the worker's config without pretrained weights, which change no time, and without evaluation."""
    recipe = task.load(loop.rule, loop.amp)
    config = builder.build_config(recipe, data.classes, data.root, work_dir)
    if loop.fast:
        make_fast(config)
    set_prior(config, recipe, data.fingerprint)
    without_pretrained(config.model)
    for part in ("val", "test"):
        for kind in ("dataloader", "evaluator", "cfg"):
            config[f"{part}_{kind}"] = None
    config.log_level = "ERROR"
    config.experiment_name = config.visualizer.name = str(work_dir)  # MMEngine keeps one of each name
    return config


def build_stock_config(config: Any) -> Any:
    """Return the worker's config with everything of msdet's own replaced by MMDetection's and MMEngine's.

    Raises:
        UserError: The recipe's detector is not MMDetection's.
    """
    config = copy.deepcopy(config)
    kind = config.model.type.removeprefix("LevelWeighted")
    if not (MODELS.get(kind) or Task).__module__.startswith("mmdet."):
        raise UserError(
            f"bench: MMDetection has no detector '{kind}' to compare with",
            "name a recipe of one that it has: --recipe retinanet-r50",
        )
    config.model.type = kind
    config.model.pop("weighting")
    is_by_iterations = "max_iters" in config.train_cfg
    config.train_cfg.type = "IterBasedTrainLoop" if is_by_iterations else "EpochBasedTrainLoop"
    loader = config.train_dataloader
    loader.batch_sampler = loader.batch_sampler.inner
    config.default_hooks.checkpoint = ConfigDict(type="CheckpointHook", interval=NEVER, save_last=False)
    ours = ("ProgressHook", "LevelWeightingHook")
    config.custom_hooks = [hook for hook in config.custom_hooks if hook.type not in ours]
    if config.optim_wrapper.get("constructor") == "RuleParameterConstructor":
        config.optim_wrapper.pop("constructor")
    config.custom_imports = None
    return config


def build_runner(config: Any, stock: bool) -> Any:
    """Return the runner that trains a config: the worker's, or MMEngine's own."""
    return Runner.from_cfg(config) if stock else builder.build_runner(config)


class RuleClock:
    """The time of the rule's own part of a step: the hook that lets it observe, decide, and write the trace."""

    def __init__(self, hooks: Sequence[Any]) -> None:
        self.seconds, self.steps = 0.0, 0
        hook: Any = next(hook for hook in hooks if isinstance(hook, LevelWeightingHook))
        self._finish, hook.after_train_iter = hook.after_train_iter, self._timed

    def _timed(self, *args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        self._finish(*args, **kwargs)
        self.seconds += time.perf_counter() - began
        self.steps += 1
