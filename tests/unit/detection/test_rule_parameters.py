"""The parameters of a learnable rule in the optimizer."""

from types import SimpleNamespace

import pytest
from mmengine.runner import Runner

from tests.unit.detection.detectors import build

STOCK = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4))


def groups_of(rule, **more):
    model = build("retinanet", dict(rule=rule))
    wrapper = Runner.build_optim_wrapper(SimpleNamespace(model=model), {**STOCK, **more})
    return model, wrapper.optimizer.param_groups


@pytest.mark.parametrize("more", [{}, {"paramwise_cfg": {"bias_lr_mult": 2.0, "bias_decay_mult": 0.0}}])
def test_they_join_in_a_group_of_their_own_without_weight_decay(more):
    model, groups = groups_of("uncertainty", **more)
    learnt = list(model.weighting[0].rule.parameters())
    assert len(learnt) == 1 and learnt[0].shape == (5,)
    assert groups[-1]["params"] == learnt
    assert (groups[-1]["weight_decay"], groups[-1]["lr"], groups[-1]["momentum"]) == (0.0, 0.1, 0.9)
    everything = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in everything}) == len(everything) == len(list(model.parameters()))
    _, stock = groups_of("uniform", **more)
    told = [{k: v for k, v in group.items() if k != "params"} for group in groups[:-1]]
    assert told == [{k: v for k, v in group.items() if k != "params"} for group in stock]


def test_a_rule_without_parameters_changes_nothing():
    model, groups = groups_of("rlo")
    assert len(groups) == 1 and len(groups[0]["params"]) == len(list(model.parameters()))
