"""The parameters of learnable rules in the optimizer: base learning rate, no weight decay."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from experiments.common.errors import UserError


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
