"""Recipe -> MMEngine config: MMDetection's own config, changed only where the recipe says so."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine import Config, ConfigDict

from experiments import detection  # first: it installs the operators that MMDetection needs
from experiments.common.errors import UserError, did_you_mean
from experiments.recipes.schema import Recipe
from experiments.training.config.data import set_data, set_data_workers, set_image_size
from experiments.training.config.keys import set_key
from experiments.training.engine.runner import StrictRunner
from experiments.weighting.options import OptionError, may_have_parameters

from mmdet.registry import MODELS  # isort: skip


def build_config(
    recipe: Recipe,
    classes: Sequence[str],
    data_root: Path,
    work_dir: Path,
    seed: int = 0,
    processes: int = 1,
    micro_batch: int | None = None,
) -> Config:
    """Return the config that the worker runs; stock MMDetection runs it too, where msdet is installed.

    Args:
        classes: The data set's classes in the order of their ids; empty keeps those of the model's config.
        work_dir: The run folder.
        seed: Seeds data order, initialisation and the weighting rule.
        processes: Workers that share the batch of `schedule.gpus` x `schedule.images_per_gpu` images.
        micro_batch: Images per worker and forward pass, a divisor of `schedule.images_per_gpu`; None: as many as
            `Schedule.micro_batch` gives. What this leaves of the batch is accumulated.

    Raises:
        UserError: The workers cannot share the batch; the model's config is not found or not for a detector that
            can be level-weighted; a module under `imports` is not found; or a key under `set` does not exist.
    """
    _import_users(recipe.imports)
    config = load_model_config(recipe.model)
    config.custom_imports = dict(
        imports=["experiments.training.components", *recipe.imports], allow_failed_imports=False
    )
    _weight_levels(config, recipe)
    if classes:
        _set_classes(config.model, len(classes))
    set_data(config, recipe, list(classes), data_root)
    _set_schedule(config, recipe)
    accumulation = _share_batch(config, recipe, processes, micro_batch)
    _set_runtime(config, recipe, work_dir, seed)
    if recipe.image_size is not None:
        set_image_size(config, recipe.image_size)
    for key, value in recipe.set.items():
        set_key(config, key, value)
    _drive_weighting(config, recipe)
    counts = config.optim_wrapper.get("accumulative_counts", 1)
    if not isinstance(counts, int) or counts < 1 or counts % accumulation:
        raise UserError(
            f"set: optim_wrapper.accumulative_counts: {counts} is not allowed: a multiple of {accumulation},"
            " the micro-batches of a step here",
            "leave it out: accumulation follows from the schedule and the workers",
        )
    config.test_dataloader, config.test_evaluator = config.val_dataloader, config.val_evaluator
    return config


def build_runner(config: Config) -> StrictRunner:
    """Build MMEngine's Runner for a config.

    Raises:
        UserError: The config names something that does not exist, or has an option that is not allowed.
    """
    with _raise_user_errors():
        return StrictRunner.from_cfg(config)


def check_detector(config: Config) -> None:
    """Build the detector, without memory for its weights if it lets itself. Raises: as `build_runner`."""
    with MODELS.switch_scope_and_registry("mmdet") as models:
        with contextlib.suppress(Exception), torch.device("meta"):
            models.build(config.model)
            return
        try:
            with _raise_user_errors():
                models.build(config.model)
        except (AttributeError, KeyError, TypeError, ValueError, AssertionError) as error:
            # any other may be this machine's, which lacks something that the training's has
            raise UserError(f"the config cannot be built: {error}", "msdet show RECIPE --config") from error


@contextlib.contextmanager
def _raise_user_errors() -> Iterator[None]:
    try:
        yield
    except OptionError as error:
        raise UserError(f"weighting.{error}", "msdet show RECIPE   (all options)") from None
    except (KeyError, TypeError, ValueError) as error:
        text = str(error).strip("'\"")
        if isinstance(error, KeyError) and "is not in" not in text:
            raise
        if isinstance(error, TypeError) and "unexpected keyword" not in text:
            raise
        raise UserError(f"the config cannot be built: {text}", "msdet show RECIPE --config") from error


def _import_users(modules: Sequence[str]) -> None:
    """Import the user's modules: MMEngine does so only where a config is read from a file."""
    here = str(Path.cwd())
    if modules and here not in sys.path:
        sys.path.append(here)  # behind everything else: nothing of ours is hidden by a file of the same name
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # it is there, but lacks something itself
            raise UserError(
                f"imports: no module '{name}' in {here} or among the installed ones",
                "type the command in the folder that holds it, or install it",
            ) from None


def load_model_config(model: str) -> Config:
    """Return MMDetection's config named `mmdet:<path>`, or a user's own file (which is code, and is run)."""
    prefix, _, relative = model.partition(":")
    if prefix == "mmdet":
        import mmdet

        folder = Path(mmdet.__file__).parent / ".mim" / "configs"
        path = folder / relative
        if not path.is_file():
            known = [str(p.relative_to(folder)) for p in folder.glob("*/*.py")]
            raise UserError(f"model: MMDetection has no config '{relative}'; {did_you_mean(relative, known)}")
    else:
        path = Path(model)
        if not path.is_file():
            raise UserError(
                f"model: no file {path.resolve()}", "name MMDetection's own as mmdet:<family>/<file>.py"
            )
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a config is Python: anything can go wrong in it
        raise UserError(
            f"model: {path} cannot be read as a config: {type(error).__name__}: {error}"
        ) from error
    for key in ("model", "train_dataloader", "val_dataloader", "optim_wrapper"):
        if key not in config:
            raise UserError(f"model: {path} has no '{key}', so it is not a whole training config")
    if not isinstance(config.model, dict) or "type" not in config.model:
        raise UserError(f"model: {path} names no detector: its `model` has no 'type'")
    return config


def _weight_levels(config: Config, recipe: Recipe) -> None:
    kind, head = config.model.type, (config.model.get("bbox_head") or {}).get("type")
    if kind in detection.LEVEL_WEIGHTED:
        config.model.type = detection.LEVEL_WEIGHTED[kind]
    elif not (isinstance(kind, str) and kind.startswith("LevelWeighted")) and not recipe.imports:
        allowed = ", ".join(sorted(detection.LEVEL_WEIGHTED))
        why = f"; its {head} {detection.REASONS[head]}" if head in detection.REASONS else ""
        raise UserError(f"model: detector '{kind}' cannot be level-weighted; supported: {allowed}{why}")
    config.model.weighting = ConfigDict(recipe.weighting)


def _drive_weighting(config: Config, recipe: Recipe) -> None:
    """Add the hook that drives the rule, behind all others, and the optimizer's group for a rule's parameters."""
    hooks = list(config.get("custom_hooks") or [])
    if not any(hook["type"] == "LevelWeightingHook" for hook in hooks):
        config.custom_hooks = [*hooks, ConfigDict(type="LevelWeightingHook")]
    if may_have_parameters(recipe.weighting["rule"]):
        config.optim_wrapper.setdefault("constructor", "RuleParameterConstructor")


def _set_classes(node: Any, count: int) -> None:
    if isinstance(node, dict) and "num_classes" in node:
        node["num_classes"] = count
    below = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    for child in below:
        _set_classes(child, count)


def _share_batch(config: Config, recipe: Recipe, processes: int, micro_batch: int | None) -> int:
    """Divide the batch among the workers; return the micro-batches that each of them accumulates."""
    schedule, train = recipe.schedule, config.train_dataloader
    images = micro_batch or schedule.micro_batch(processes)
    if schedule.images_per_gpu % images or (schedule.batch // images) % processes:
        raise UserError(
            f"{processes} workers cannot share a batch of {schedule.gpus} x {schedule.images_per_gpu} images"
            f" in micro-batches of {images}"
        )
    train.batch_size = schedule.images_per_gpu
    train.batch_sampler = ConfigDict(
        type="ResumableBatchSampler",
        inner=train.get("batch_sampler"),
        shards=schedule.gpus,
        micro_batch=images,
    )
    accumulation = schedule.batch // images // processes
    if accumulation > 1:
        config.optim_wrapper.accumulative_counts = accumulation
    return accumulation


def _set_schedule(config: Config, recipe: Recipe) -> None:
    schedule = recipe.schedule
    length = {"max_epochs": schedule.epochs} if schedule.epochs else {"max_iters": schedule.iterations}
    config.train_cfg = dict(type="ResumableTrainLoop", val_interval=schedule.eval_every or 10**9, **length)
    optimizer = config.optim_wrapper.optimizer
    if schedule.optimizer == "adamw" and optimizer.type != "AdamW":
        config.optim_wrapper.optimizer = dict(type="AdamW", lr=schedule.lr, weight_decay=0.05)
    elif schedule.optimizer == "sgd" and optimizer.type != "SGD":
        config.optim_wrapper.optimizer = dict(type="SGD", lr=schedule.lr, momentum=0.9, weight_decay=1e-4)
    else:
        optimizer.lr = schedule.lr
    if recipe.amp is not None:  # evaluation stays in float32
        kinds = {
            "bf16": dict(type="BFloat16OptimWrapper"),
            "fp16": dict(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic"),
        }
        config.optim_wrapper.update(kinds[recipe.amp])
    config.param_scheduler = _schedulers(config.get("param_scheduler") or [], schedule)
    if "auto_scale_lr" in config:
        config.auto_scale_lr.enable = False  # the recipe's learning rate is what it says


def _schedulers(base: Any, schedule: Any) -> list[ConfigDict]:
    base = base if isinstance(base, (list, tuple)) else [base]
    schedulers = [s for s in base if s["type"] in ("LinearLR", "ConstantLR")]
    if schedule.warmup is not None:
        warmup = dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=schedule.warmup)
        schedulers = [ConfigDict(warmup)] if schedule.warmup else []
    if schedule.decay == "cosine":
        by_epoch = schedule.epochs is not None
        length = schedule.epochs if by_epoch else schedule.iterations
        scheduler = ConfigDict(type="CosineAnnealingLR", begin=0, end=length, T_max=length, by_epoch=by_epoch)
        if by_epoch:
            scheduler.convert_to_iter_based = True
        schedulers.append(scheduler)
    elif schedule.milestones:
        steps = dict(begin=0, end=schedule.epochs or 10**9, by_epoch=True, milestones=schedule.milestones)
        schedulers.append(ConfigDict(type="MultiStepLR", gamma=0.1, **steps))
    return schedulers


def _set_runtime(config: Config, recipe: Recipe, work_dir: Path, seed: int) -> None:
    config.work_dir = str(work_dir)
    config.randomness = dict(seed=seed)
    config.load_from, config.resume = None, False
    config.default_hooks.checkpoint = dict(type="ResumableCheckpointHook", every=recipe.checkpoint_every)
    config.custom_hooks = [*config.get("custom_hooks", []), ConfigDict(type="ProgressHook")]
    config.val_evaluator.outfile_prefix = str(work_dir / "detections" / "val")
    if torch.cuda.is_available():
        set_data_workers(config)
    else:  # loading beside a training that uses every core only slows both
        for loader in (config.train_dataloader, config.val_dataloader):
            loader.num_workers, loader.persistent_workers = 0, False
        config.env_cfg.dist_cfg = dict(backend="gloo")
        config.model_wrapper_cfg = dict(
            type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False
        )
    config.pop("tta_model", None)
    config.pop("tta_pipeline", None)
