"""Drives the level weighting from MMEngine's loop: after each optimizer step, around checkpoints, into the trace."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from torch import nn
from torch.optim import Optimizer

from experiments.common.errors import UserError
from experiments.detection.level_weighting.level_losses import LevelLosses
from experiments.detection.level_weighting.level_weighted import LevelWeighted
from experiments.detection.level_weighting.trace import Trace, scalars


@HOOKS.register_module()
class LevelWeightingHook(Hook):
    """Ends optimizer steps for the rule, saves its state beside the model's, and writes `trace.csv`.

    Where the runner reports to a tracker (TensorBoard, say), the trace goes there, too.

    It joins every runner whose model is level-weighted (see `attach_to_runners`), stock `tools/train.py`
    included. The rule counts optimizer steps, also where gradients are accumulated.
    """

    priority = "NORMAL"  # before the hooks that log and save

    def before_run(self, runner: Runner) -> None:
        for number, head in enumerate(weighted_heads(runner)):
            if unwrap(runner.model).weighting_seed is None:
                head.rule.generator.manual_seed(runner.seed + number)
        runner.save_checkpoint = self._with_all_ranks(runner, runner.save_checkpoint)

    def before_train(self, runner: Runner) -> None:
        check_weighted(runner.model)
        self.trace = Trace(Path(runner.work_dir) / "trace.csv") if runner.rank == 0 else None
        if self.trace is not None:
            self.trace.cut(max(head.iteration for head in weighted_heads(runner)))
        backends = runner.visualizer._vis_backends.values()
        self.tracked = any(not isinstance(backend, LocalVisBackend) for backend in backends)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not runner.optim_wrapper.should_update():
            return  # gradients are still being accumulated
        for head in weighted_heads(runner):
            record = head.finish_step()
            if record is not None and self.trace is not None:
                self.trace.append(record)
                if self.tracked:
                    runner.visualizer.add_scalars(scalars(record), step=record.iteration)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["weighting"] = {head.head: head.level_state() for head in weighted_heads(runner)}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # Only a resumed run continues the rule; `load_from` alone starts it anew on given weights.
        if runner._resume and "weighting" in checkpoint:
            for head in weighted_heads(runner):
                head.load_level_state(checkpoint["weighting"][head.head])

    @staticmethod
    def _with_all_ranks(runner: Runner, save: Any) -> Any:
        """MMEngine calls `save_checkpoint` on every rank, but hooks inside it on rank 0 only."""

        @functools.wraps(save)
        def save_synchronised(*args: Any, **kwargs: Any) -> Any:
            for head in weighted_heads(runner):
                head.synchronise()
                head.check_finite()
            return save(*args, **kwargs)

        return save_synchronised


def unwrap(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model


def weighted_heads(runner: Runner) -> Iterable[LevelLosses]:
    """The level losses of the runner's detector; none where it is inside another model, as for a test."""
    model = unwrap(runner.model)
    return model.weighting if isinstance(model, LevelWeighted) else ()


def inner_detectors(model: nn.Module) -> list[LevelWeighted]:
    """The level-weighted detectors inside of a model, itself left out."""
    return [m for m in model.modules() if isinstance(m, LevelWeighted) and m is not model]


def check_weighted(model: nn.Module) -> None:
    """Refuses to train a model whose level losses would be added up without their weights.

    Only the outermost model's `parse_losses` forms the objective. Copies that hooks keep, for a moving average say,
    are not inside of the model.

    Raises:
        UserError: A level-weighted detector is inside of another model, or there is none.
    """
    outer = unwrap(model)
    name = type(outer).__name__
    for inner in inner_detectors(outer):
        kind = type(inner).__name__
        raise UserError(
            f"model: {kind} inside of {name} would train unweighted: the objective is that of {name}",
            f"train {kind} by itself, or name MMDetection's own {kind.removeprefix('LevelWeighted')} in {name}",
        )
    if not isinstance(outer, LevelWeighted):
        raise UserError(
            f"model: {name} is not level-weighted, but has a LevelWeightingHook",
            f"set model.type to LevelWeighted{name}, or leave the hook out",
        )


def attach_to_runners() -> None:
    """Lets every Runner with a level-weighted model have the hook, so that a config needs no line for it.

    A Runner whose model holds a level-weighted detector has it, too, and the hook refuses to train that model.
    With a level-weighted model the optimizer also gets the parameters of learnable rules in the way they need.
    """
    original = Runner.register_hooks
    if getattr(original, "attaches_level_weighting", False):
        return

    @functools.wraps(original)
    def register_hooks(self: Runner, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        present = any(isinstance(hook, LevelWeightingHook) for hook in self.hooks)
        model = unwrap(self.model)
        if (isinstance(model, LevelWeighted) or inner_detectors(model)) and not present:
            self.register_hook(LevelWeightingHook())

    register_hooks.attaches_level_weighting = True  # type: ignore[attr-defined]
    Runner.register_hooks = register_hooks
    build = Runner.build_optim_wrapper

    @functools.wraps(build)
    def build_optim_wrapper(self: Runner, *args: Any, **kwargs: Any) -> Any:
        wrapper = build(self, *args, **kwargs)
        if isinstance(unwrap(self.model), LevelWeighted):
            group_rule_parameters(wrapper.optimizer, unwrap(self.model))
        return wrapper

    Runner.build_optim_wrapper = build_optim_wrapper


def group_rule_parameters(optimizer: Optimizer, model: LevelWeighted) -> None:
    """Puts the parameters of learnable rules into a group of their own, without weight decay: it would pull the
    weights towards those at the start. Their learning rate is the optimizer's own."""
    learnt = [p for head in model.weighting for p in head.rule.parameters()]
    if not learnt:
        return
    own = {id(p) for p in learnt}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in own]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    optimizer.add_param_group({"params": learnt, "weight_decay": 0.0})
