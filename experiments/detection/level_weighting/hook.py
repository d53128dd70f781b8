"""The MMEngine hook that drives the level weighting, and the optimizer of learnable rules."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from torch import nn

from experiments.common.errors import UserError
from experiments.detection.level_weighting.level_losses import LevelLosses
from experiments.detection.level_weighting.level_weighted import LevelWeighted
from experiments.detection.level_weighting.trace import Trace, make_scalars


@HOOKS.register_module()
class LevelWeightingHook(Hook):
    """End optimizer steps for the rule, save its state beside the model's, and write `trace.csv`.

    Where the runner reports to a tracker (TensorBoard, say), the trace goes there, too. The rule counts optimizer
    steps, also where gradients are accumulated. A config names the hook itself:

        custom_hooks = [dict(type='LevelWeightingHook')]
    """

    priority = "NORMAL"  # before the hooks that log and save
    trace: Trace | None = None

    def before_run(self, runner: Runner) -> None:
        for number, head in enumerate(find_weighted_heads(runner)):
            if unwrap(runner.model).weighting_seed is None:
                head.rule.generator.manual_seed(runner.seed + number)
        save = runner.save_checkpoint

        @functools.wraps(save)
        def save_synchronised(*args: Any, **kwargs: Any) -> Any:
            # A collective, and so before MMEngine's own: it calls hooks inside it on rank 0 only.
            for head in find_weighted_heads(runner):
                head.synchronise()
                head.check_finite()
            return save(*args, **kwargs)

        runner.save_checkpoint = save_synchronised

    def before_train(self, runner: Runner) -> None:
        check_weighted(runner.model)
        check_no_weight_decay(unwrap(runner.model), runner.optim_wrapper)
        unwrap(runner.model).is_driven = True
        self.trace = Trace(Path(runner.work_dir) / "trace.csv") if runner.rank == 0 else None
        if self.trace is not None:
            self.trace.cut(max(head.iteration for head in find_weighted_heads(runner)))
        backends = runner.visualizer._vis_backends.values()
        self.tracked = any(not isinstance(backend, LocalVisBackend) for backend in backends)

    def after_train(self, runner: Runner) -> None:
        unwrap(runner.model).is_driven = False

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if not runner.optim_wrapper.should_update():
            return  # gradients are still being accumulated
        for head in find_weighted_heads(runner):
            rows = head.finish_step()
            if rows and self.trace is not None:
                self.trace.append(rows)
                if self.tracked:
                    runner.visualizer.add_scalars(make_scalars(rows), step=head.iteration)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.trace is not None:
            self.trace.sync()
        checkpoint["weighting"] = {head.head: head.level_state() for head in find_weighted_heads(runner)}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # Only a resumed run continues the rule; `load_from` alone starts it anew on given weights.
        if runner._resume and "weighting" in checkpoint:
            for head in find_weighted_heads(runner):
                head.load_level_state(checkpoint["weighting"][head.head])


def unwrap(model: Any) -> Any:
    """Return the model inside a wrapper of MMEngine's, DistributedDataParallel say."""
    return model.module if is_model_wrapper(model) else model


def find_weighted_heads(runner: Runner) -> Iterable[LevelLosses]:
    """Return the level losses of the runner's detector; none where it is inside another model, as for a test."""
    model = unwrap(runner.model)
    return model.weighting if isinstance(model, LevelWeighted) else ()


def check_weighted(model: nn.Module) -> None:
    """Check that the objective of a model is formed with level weights.

    Only the outermost model's `parse_losses` forms the objective. Copies that hooks keep, for a moving average say,
    are not inside of the model.

    Raises:
        UserError: A level-weighted detector is inside of another model, or there is none.
    """
    outer = unwrap(model)
    name = type(outer).__name__
    inner = next((m for m in outer.modules() if isinstance(m, LevelWeighted) and m is not outer), None)
    if inner is not None:
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


def list_rule_parameters(model: Any) -> list[nn.Parameter]:
    """Return the parameters of a level-weighted detector's rules; most rules have none."""
    return [p for head in getattr(model, "weighting", ()) for p in head.rule.parameters()]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RuleParameterConstructor(DefaultOptimWrapperConstructor):
    """Build an optimizer whose last group holds the rule's parameters, without weight decay.

    `paramwise_cfg` has the same effect, but with it MMEngine makes one group for each parameter of the model, and
    leaves frozen ones out: more kernels a step, and checkpoints that are saved without it cannot be resumed.
    """

    def __call__(self, model: nn.Module) -> Any:
        wrapper = super().__call__(model)
        learnt = list_rule_parameters(getattr(model, "module", model))
        if learnt:
            own, groups = {id(p) for p in learnt}, wrapper.optimizer.param_groups
            for group in groups:
                group["params"] = [p for p in group["params"] if id(p) not in own]
            groups[:] = [group for group in groups if group["params"]]
            wrapper.optimizer.add_param_group({"params": learnt, "weight_decay": 0.0})
        return wrapper


def check_no_weight_decay(model: Any, optim_wrapper: Any) -> None:
    """Check that no weight decay pulls a learnable rule's weights towards those at its start.

    Raises:
        UserError: Names the decay, and the line of the config that turns it off.
    """
    learnt = {id(p) for p in list_rule_parameters(model)}
    for group in optim_wrapper.param_groups if learnt else ():
        if group.get("weight_decay") and any(id(p) in learnt for p in group["params"]):
            raise UserError(
                f"optim_wrapper: weight decay {group['weight_decay']} of the rule's parameters is not allowed: 0",
                "optim_wrapper.paramwise_cfg = dict(custom_keys={'weighting.': dict(decay_mult=0.0)})",
            )
