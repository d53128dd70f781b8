"""The parameters of a learnable rule in the optimizer."""

from types import SimpleNamespace

import pytest
from mmengine.runner import Runner

from experiments.common.errors import UserError
from experiments.detection.level_weighting.hook import check_no_weight_decay
from tests.unit.detection.detectors import build

STOCK = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4))
OWN_GROUP = dict(constructor="RuleParameterConstructor")


def build_optimizer(rule, **more):
    model = build("retinanet", dict(rule=rule))
    return model, Runner.build_optim_wrapper(SimpleNamespace(model=model), {**STOCK, **more})


def options_of(groups):
    return [{k: v for k, v in group.items() if k != "params"} for group in groups]


@pytest.mark.parametrize("more", [{}, {"paramwise_cfg": {"bias_lr_mult": 2.0, "bias_decay_mult": 0.0}}])
def test_they_join_in_a_group_of_their_own_without_weight_decay(more):
    model, wrapper = build_optimizer("uncertainty", **OWN_GROUP, **more)
    groups = wrapper.optimizer.param_groups
    learnt = list(model.weighting[0].rule.parameters())
    assert len(learnt) == 1 and learnt[0].shape == (5,)
    assert groups[-1]["params"] == learnt
    assert (groups[-1]["weight_decay"], groups[-1]["lr"], groups[-1]["momentum"]) == (0.0, 0.1, 0.9)
    everything = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in everything}) == len(everything) == len(list(model.parameters()))
    assert options_of(groups[:-1]) == options_of(build_optimizer("uniform", **more)[1].optimizer.param_groups)
    check_no_weight_decay(model, wrapper)


def test_a_rule_without_parameters_changes_nothing():
    model, wrapper = build_optimizer("rlo", **OWN_GROUP)
    (group,) = wrapper.optimizer.param_groups
    assert group["params"] == list(model.parameters())
    check_no_weight_decay(model, wrapper)


def test_weight_decay_of_a_rules_parameters_is_refused_and_the_line_of_the_hint_turns_it_off():
    model, wrapper = build_optimizer("uncertainty")
    with pytest.raises(UserError, match=r"weight decay 0\.0001 of the rule's parameters") as caught:
        check_no_weight_decay(model, wrapper)
    key, value = caught.value.hint.split(" = ", 1)
    assert (key, value) == (
        "optim_wrapper.paramwise_cfg",
        "dict(custom_keys={'weighting.': dict(decay_mult=0.0)})",
    )
    model, wrapper = build_optimizer(
        "uncertainty", paramwise_cfg=dict(custom_keys={"weighting.": dict(decay_mult=0.0)})
    )
    check_no_weight_decay(model, wrapper)
    (learnt,) = model.weighting[0].rule.parameters()
    (own,) = [g for g in wrapper.optimizer.param_groups if g["params"][0] is learnt]
    assert (own["lr"], own["weight_decay"]) == (0.1, 0.0)
    others = [g for g in wrapper.optimizer.param_groups if g is not own]
    assert {(g["lr"], g["weight_decay"]) for g in others} == {(0.1, 1e-4)}
