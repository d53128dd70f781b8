"""Saving in mid-interval, and two processes that see different losses."""

import io

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from experiments.weighting import build_weighting
from tests.unit.weighting.test_rules import falling_losses

RULES = {
    "rlo": {},
    "rlo that learns nothing": {"rule": "rlo", "gamma": 0.0},
    "avw": {},
    "random": {},
    "uniform": {},
    "static": {"weights": [1.0, 1.1, 1.2, 1.3, 1.4]},
    "dwa": {},
    "uncertainty": {},
}


def build(name, seed):
    return build_weighting(**{"rule": name, "num_levels": 5, "seed": seed, "alpha": 10, **RULES[name]})


def step(rule, row):
    """One optimizer step as training takes it, the losses being constants; ranks share their gradients."""
    for parameter in rule.parameters():
        parameter.grad = None
        ((rule.weights * row).sum() + rule.regulariser()).backward()
        if dist.is_initialized():
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
        parameter.data -= 0.1 * parameter.grad
    rule.observe(row)


def signature(rule):
    p = rule.probabilities
    return rule.weights.tolist(), rule.action, rule.reward, None if p is None else p.tolist()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("stop_at", [7, 20, 53])  # in the first interval, at an end, in mid-interval
def test_a_saved_rule_goes_on_exactly(name, stop_at):
    rows = [torch.tensor(row, dtype=torch.float32) for row in falling_losses(stop_at + 300, 5, 3)]
    unbroken, stopped = build(name, seed=4), build(name, seed=4)
    for row in rows[:stop_at]:
        step(unbroken, row)
        step(stopped, row)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = build(name, seed=99)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert signature(resumed) == signature(unbroken)
    for row in rows[stop_at:]:
        step(unbroken, row)
        step(resumed, row)
        assert signature(resumed) == signature(unbroken)


def test_a_learnable_rule_has_parameters_in_place_of_its_weights():
    rule = build("uncertainty", seed=0)
    assert rule.weights.requires_grad
    assert [name for name, _ in rule.named_parameters()] == ["log_variances"]
    assert not list(rule.buffers())
    assert "weights" not in rule.state_dict()
    assert rule.to("meta").weights.device.type == "meta"
    for name in set(RULES) - {"uncertainty"}:
        other = build(name, seed=0)
        assert not other.weights.requires_grad
        assert not list(other.parameters())
        assert other.to("meta").weights.device.type == "meta"


def test_a_state_of_another_shape_is_refused():
    state = build_weighting("rlo", num_levels=5, alpha=10).state_dict()
    with pytest.raises(ValueError, match="alpha"):
        build_weighting("rlo", num_levels=5, alpha=20).load_state_dict(state)
    with pytest.raises(ValueError, match="num_levels"):
        build_weighting("rlo", num_levels=4, alpha=10).load_state_dict(state)
    with pytest.raises(ValueError, match="actions"):
        build_weighting("rlo", num_levels=5, alpha=10, actions=["largest"]).load_state_dict(state)


@pytest.mark.parametrize("name", ["rlo", "uncertainty"])
def test_as_a_part_of_a_model_a_rule_adds_nothing(name):
    model = torch.nn.Module()
    model.layer = torch.nn.Linear(2, 2)
    model.rule = build(name, seed=0)
    assert set(model.state_dict()) == {"layer.weight", "layer.bias"}
    missing, unexpected = model.load_state_dict(model.state_dict())
    assert not missing and not unexpected


STOPS = (None, 34)  # unbroken, and saved and resumed in mid-interval


def _rank(rank, world_size, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    rows = torch.stack([torch.tensor(falling_losses(95, 5, seed)) for seed in range(world_size)])
    seen = {(name, stop_at): _history(name, rows[rank], stop_at) for name in RULES for stop_at in STOPS}
    torch.save(seen, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def _history(name, rows, stop_at):
    rule, history = build(name, seed=6), []
    for number, row in enumerate(rows):
        if number == stop_at:
            rule.synchronise()  # as before a checkpoint, which rank 0 alone writes
            states = [rule.state_dict()]
            dist.broadcast_object_list(states, src=0)
            rule = build(name, seed=7)
            rule.load_state_dict(states[0])
        step(rule, row)
        history.append(signature(rule))
    return history


def test_two_processes_agree_and_equal_one_that_is_fed_the_mean(tmp_path):
    mp.spawn(_rank, args=(2, tmp_path / "store", tmp_path), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one == two
    mean = (torch.tensor(falling_losses(95, 5, 0)) + torch.tensor(falling_losses(95, 5, 1))) / 2
    for name in RULES:
        rule, alone = build(name, seed=6), []
        for row in mean:
            step(rule, row)
            alone.append(signature(rule))
        for stop_at in STOPS:
            seen = one[name, stop_at]
            if rule.learnable:  # a mean of gradients in float32 rounds otherwise than the gradient of a mean
                torch.testing.assert_close(
                    torch.tensor([weights for weights, *_ in seen]),
                    torch.tensor([weights for weights, *_ in alone]),
                )
            else:
                assert seen == alone
        if name.startswith("rlo"):
            assert {action for _, action, *_ in alone} >= {"variance", "smallest", "largest", "uniform"}
