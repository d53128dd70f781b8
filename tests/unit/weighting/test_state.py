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
    "avw": {},
    "random": {},
    "uniform": {},
    "static": {"weights": [1.0, 1.1, 1.2, 1.3, 1.4]},
}


def signature(rule):
    p = rule.probabilities
    return rule.weights.tolist(), rule.action, rule.reward, None if p is None else p.tolist()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("stop_at", [7, 20, 53])  # in the first interval, at an end, in mid-interval
def test_a_saved_rule_goes_on_exactly(name, stop_at):
    def build():
        return build_weighting(name, num_levels=5, seed=4, alpha=10, **RULES[name])

    rows = [torch.tensor(row, dtype=torch.float32) for row in falling_losses(stop_at + 300, 5, 3)]
    unbroken, stopped = build(), build()
    for row in rows[:stop_at]:
        unbroken.observe(row)
        stopped.observe(row)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = build_weighting(name, num_levels=5, seed=99, alpha=10, **RULES[name])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert signature(resumed) == signature(unbroken)
    for row in rows[stop_at:]:
        unbroken.observe(row)
        resumed.observe(row)
        assert signature(resumed) == signature(unbroken)


def test_a_state_of_another_shape_is_refused():
    state = build_weighting("rlo", num_levels=5, alpha=10).state_dict()
    with pytest.raises(ValueError, match="alpha"):
        build_weighting("rlo", num_levels=5, alpha=20).load_state_dict(state)
    with pytest.raises(ValueError, match="num_levels"):
        build_weighting("rlo", num_levels=4, alpha=10).load_state_dict(state)
    with pytest.raises(ValueError, match="actions"):
        build_weighting("rlo", num_levels=5, alpha=10, actions=["largest"]).load_state_dict(state)


def test_as_a_part_of_a_model_a_rule_adds_nothing():
    model = torch.nn.Module()
    model.layer = torch.nn.Linear(2, 2)
    model.rule = build_weighting("rlo", num_levels=5)
    assert set(model.state_dict()) == {"layer.weight", "layer.bias"}
    missing, unexpected = model.load_state_dict(model.state_dict())
    assert not missing and not unexpected


def _rank(rank, world_size, store, results, stop_at):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    rows = torch.stack([torch.tensor(falling_losses(95, 5, seed)) for seed in range(world_size)])
    rule = build_weighting("rlo", num_levels=5, seed=6, alpha=10)
    history = []
    for step, row in enumerate(rows[rank]):
        if step == stop_at:
            rule.synchronise()  # as before a checkpoint, which rank 0 alone writes
            states = [rule.state_dict()]
            dist.broadcast_object_list(states, src=0)
            rule = build_weighting("rlo", num_levels=5, seed=6, alpha=10)
            rule.load_state_dict(states[0])
        rule.observe(row)
        history.append(signature(rule))
    torch.save(history, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_agree_and_equal_one_that_is_fed_the_mean(tmp_path):
    for number, stop_at in enumerate((None, 34)):  # unbroken, and saved and resumed in mid-interval
        folder = tmp_path / str(number)
        folder.mkdir()
        mp.spawn(_rank, args=(2, tmp_path / f"store{number}", folder, stop_at), nprocs=2)
        one, two = (torch.load(folder / f"{rank}.pt") for rank in range(2))
        assert one == two
        rule = build_weighting("rlo", num_levels=5, seed=6, alpha=10)
        mean = (torch.tensor(falling_losses(95, 5, 0)) + torch.tensor(falling_losses(95, 5, 1))) / 2
        for row, seen in zip(mean, one):
            rule.observe(row)
            assert signature(rule) == seen
        assert {action for _, action, _, _ in one} >= {"variance", "smallest", "largest", "uniform"}
