"""The rules against hand-computed numbers and against the NumPy reference."""

import math

import numpy as np
import pytest
import torch

from experiments.weighting import build_weighting
from tests.unit.weighting.reference import ACTIONS, Reference


def feed(rule, rows):
    for row in rows:
        rule.observe(torch.tensor(row, dtype=torch.float64))


def falling_losses(steps, k, seed):
    """Noisy losses that fall on the whole, differently on each level."""
    rng = np.random.default_rng(seed)
    trend = np.exp(-np.arange(steps)[:, None] / rng.uniform(200, 3000, size=k))
    return trend * rng.uniform(0.05, 1.5, size=k) * rng.gamma(4, 0.25, size=(steps, k))


def test_two_intervals_of_avw_by_hand():
    rule = build_weighting("avw", num_levels=3, alpha=2, n=2)
    # t = 1: sums 4, 2, 2; variances 2, 0, 0.5 (two values: half the squared difference)
    feed(rule, [[1, 1, 0.5], [3, 1, 1.5]])
    assert rule.last.variance.tolist() == [2, 0, 0.5]
    assert rule.last.rate.tolist() == pytest.approx([-1 / 1.00001, 1 / 1.00001, 0.5 / 1.00001])
    # rates put level 1 first, level 2 second
    assert rule.weights.tolist() == pytest.approx([1, 1 + 1.5 * 2 / 8, 1 + 1.0 * 2 / 8])
    # t = 2: sums 4, 4, 2; variances 0, 2, 0.5
    feed(rule, [[2, 1, 0.5], [2, 3, 1.5]])
    assert rule.last.rate.tolist() == pytest.approx([2 / 2.00001, -2 / 0.00001, 0])
    assert rule.weights.tolist() == pytest.approx([1 + 1.5 * 4 / 10, 1, 1 + 1.0 * 2 / 10])
    assert rule.weights.dtype == torch.float32


def test_weights_stay_one_until_the_first_interval_ends_and_constant_within_it():
    rule = build_weighting("rlo", num_levels=5, seed=1, alpha=10)
    seen = []
    for row in falling_losses(35, 5, 0):
        seen.append(rule.weights)
        rule.observe(torch.tensor(row))
    assert all(w.eq(1).all() for w in seen[:10])
    for start in (10, 20, 30):
        assert all(w is seen[start] for w in seen[start : start + 5])


@pytest.mark.parametrize("k", [pytest.param(4, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize(
    "actions", [ACTIONS, ["variance", "largest"], ["smallest"], ["largest"], ["uniform"]]
)
def test_rlo_equals_the_reference_over_hundreds_of_intervals(k, actions):
    for n in range(1, k + 1):
        rule = build_weighting("rlo", num_levels=k, seed=n, alpha=5, n=n, actions=actions)
        reference = Reference(k, 5, n, actions=actions)
        drawn = set()
        for row in falling_losses(5 * 150, k, seed=10 * k + n):
            rule.observe(torch.tensor(row))
            if reference.step(row, lambda rule=rule: rule.action):
                drawn.add(rule.action)
                np.testing.assert_allclose(rule.weights.numpy(), reference.w, rtol=1e-6)
                np.testing.assert_allclose(rule.probabilities.numpy(), reference.p, rtol=1e-9)
                assert rule.probabilities.sum().item() == pytest.approx(1, abs=1e-12)
                assert rule.reward == reference.reward
        assert drawn == set(actions)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_avw_equals_the_reference(n):
    rule = build_weighting("avw", num_levels=5, alpha=7, n=n)
    reference = Reference(5, 7, n, actions=["variance"])
    for row in falling_losses(7 * 200, 5, seed=n):
        rule.observe(torch.tensor(row))
        reference.step(row, lambda: "variance")
        np.testing.assert_allclose(rule.weights.numpy(), reference.w, rtol=1e-6)


def test_reward_and_punishment_by_hand():
    rule = build_weighting("rlo", num_levels=2, alpha=2, gamma=0.05, actions=["smallest", "largest"])
    feed(rule, [[2, 2], [2, 2]])
    assert rule.reward == 0
    assert rule.probabilities.tolist() == [0.5, 0.5]  # no action was in force yet
    for losses, reward in ((1, 1), (1, 0), (3, -1)):  # the total falls, stays, rises
        chosen = 0 if rule.action == "smallest" else 1
        before = rule.probabilities.tolist()
        feed(rule, [[losses, losses]] * 2)
        assert rule.reward == reward
        expected = before[chosen] + (0.05 if reward > 0 else -0.05)  # a reward of 0 punishes
        assert rule.probabilities[chosen].item() == pytest.approx(expected)
        assert rule.probabilities[1 - chosen].item() == pytest.approx(1 - expected)


def test_only_the_chosen_probability_is_clipped():
    rule = build_weighting("rlo", num_levels=2, alpha=2, gamma=0.5)
    total = 1000.0
    feed(rule, [[total, total]] * 2)
    first = ACTIONS.index(rule.action)
    total /= 2
    feed(rule, [[total, total]] * 2)
    # 0.25 + 0.5 = 0.75; the other three share the rest
    assert rule.probabilities[first].item() == pytest.approx(0.75)
    rest = [p for q, p in enumerate(rule.probabilities.tolist()) if q != first]
    assert rest == pytest.approx([0.25 / 3] * 3)  # below the lower bound of 0.1, and left there
    while rule.action != ACTIONS[first]:
        total *= 2  # punish whatever else is drawn, until the first action is drawn again
        chosen = ACTIONS.index(rule.action)
        feed(rule, [[total, total]] * 2)
        assert rule.probabilities[chosen].item() == pytest.approx(0.1)
    total /= 2
    feed(rule, [[total, total]] * 2)
    assert rule.probabilities[first].item() == pytest.approx(0.9)


def test_draws_follow_the_probabilities():
    rule = build_weighting("rlo", num_levels=4, seed=3, alpha=2, gamma=0.0)
    rule.probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    counts = dict.fromkeys(ACTIONS, 0)
    rounds = 4000
    for _ in range(rounds):
        feed(rule, [[1, 1, 1, 1]] * 2)
        counts[rule.action] += 1
    for action, p in zip(ACTIONS, [0.1, 0.2, 0.3, 0.4]):
        assert abs(counts[action] / rounds - p) < 4 * math.sqrt(p * (1 - p) / rounds)
    assert rule.probabilities.tolist() == [0.1, 0.2, 0.3, 0.4]  # gamma 0 learns nothing


def test_ties_go_to_the_finer_level_and_levels_without_loss_weigh_one():
    rule = build_weighting("rlo", num_levels=4, alpha=2, n=2, actions=["largest"])
    feed(rule, [[1, 1, 1, 1]] * 2)
    assert rule.weights.tolist() == pytest.approx([1 + 1.5 / 4, 1 + 1 / 4, 1, 1])
    rule = build_weighting("rlo", num_levels=4, alpha=2, n=2, actions=["smallest"])
    feed(rule, [[1, 0, 3, 0]] * 2)
    assert rule.weights.tolist() == [1, 1, 1, 1]  # both selected levels have no loss
    rule = build_weighting("avw", num_levels=4, alpha=2)
    feed(rule, [[0, 0, 0, 0]] * 2)
    assert rule.weights.tolist() == [1, 1, 1, 1]


def test_the_order_of_actions_does_not_matter():
    one = build_weighting("rlo", num_levels=5, seed=5, alpha=2, actions=["uniform", "variance", "largest"])
    two = build_weighting("rlo", num_levels=5, seed=5, alpha=2, actions=["variance", "largest", "uniform"])
    for row in falling_losses(100, 5, 1):
        one.observe(torch.tensor(row))
        two.observe(torch.tensor(row))
    assert one.action == two.action
    assert one.probabilities.tolist() == two.probabilities.tolist()


def test_rlo_neither_consumes_nor_follows_the_global_random_state():
    def actions(disturb):
        rule = build_weighting("rlo", num_levels=5, seed=7, alpha=2)
        drawn = []
        for row in falling_losses(60, 5, 2):
            if disturb:
                torch.rand(3)
            rule.observe(torch.tensor(row))
            drawn.append(rule.action)
        return drawn

    torch.manual_seed(0)
    first = actions(disturb=False)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == after
    assert actions(disturb=True) == first
    other = build_weighting("rlo", num_levels=5, seed=8, alpha=2)
    drawn = []
    for row in falling_losses(60, 5, 2):
        other.observe(torch.tensor(row))
        drawn.append(other.action)
    assert drawn != first


def test_observe_detaches_and_takes_what_autograd_gives():
    rule = build_weighting("rlo", num_levels=5, alpha=2)
    for _ in range(4):
        losses = torch.rand(5, requires_grad=True)
        (rule.weights * losses).sum().backward()
        rule.observe(losses)
    assert not rule.weights.requires_grad
    assert not rule.last.losses.requires_grad


def test_controls():
    uniform = build_weighting("uniform", num_levels=4, alpha=2)
    feed(uniform, [[1, 2, 3, 4]] * 4)
    assert uniform.weights.tolist() == [1, 1, 1, 1]
    assert uniform.last.losses.tolist() == [2, 4, 6, 8]
    static = build_weighting("static", num_levels=3, alpha=2, weights=[1.2, 1.0, 0.5])
    assert static.weights.tolist() == pytest.approx([1.2, 1.0, 0.5])
    feed(static, [[1, 2, 3]] * 4)
    assert static.weights.tolist() == pytest.approx([1.2, 1.0, 0.5])
    random = build_weighting("random", num_levels=5, alpha=2, seed=0)
    assert random.weights.tolist() == [1] * 5
    seen = []
    for _ in range(3):
        feed(random, [[1] * 5] * 2)
        seen.append(random.weights)
        assert random.weights.sum().item() == pytest.approx(5, rel=1e-6)
        assert (random.weights > 0).all()
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_dwa_by_hand():
    rule = build_weighting("dwa", num_levels=3, alpha=2)
    feed(rule, [[4, 2, 1], [4, 2, 1]])
    assert rule.weights.tolist() == [1, 1, 1]  # the first two intervals have no ratio yet
    feed(rule, [[2, 2, 3], [2, 2, 1]])  # sums 4, 4, 4 after 8, 4, 2: ratios 1/2, 1, 2
    e = [math.exp(ratio / 2) for ratio in (0.5, 1, 2)]
    assert rule.weights.tolist() == pytest.approx([3 * each / sum(e) for each in e])
    assert rule.weights.tolist() == pytest.approx([0.6817, 0.8753, 1.4431], abs=1e-4)
    feed(rule, [[0, 2, 2], [0, 2, 2]])
    feed(
        rule, [[9, 2, 2], [9, 2, 2]]
    )  # the first level's ratio would be infinite: read as 1, like the others'
    assert rule.weights.tolist() == pytest.approx([1, 1, 1])


def test_uncertainty_learns_the_minimum_of_its_objective():
    rule = build_weighting("uncertainty", num_levels=3, alpha=2)
    assert rule.weights.tolist() == [0.5, 0.5, 0.5]
    losses = torch.tensor([0.25, 1.0, 4.0])
    ((rule.weights * losses).sum() + rule.regulariser()).backward()
    (s,) = rule.parameters()
    # d/ds (e^-s L / 2 + s / 2) at s = 0: (1 - L) / 2
    assert s.grad.tolist() == pytest.approx([0.375, 0, -1.5])
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.5)
    for _ in range(80):
        optimizer.zero_grad()
        ((rule.weights * losses).sum() + rule.regulariser()).backward()
        optimizer.step()
        rule.observe(losses)
    assert s.tolist() == pytest.approx([math.log(0.25), 0, math.log(4)], abs=1e-4)  # where e^s = L
    assert rule.weights.tolist() == pytest.approx([2, 0.5, 0.125], rel=1e-4)
    assert rule.last.losses.tolist() == [0.5, 2, 8]


@pytest.mark.parametrize(
    ("rule", "options", "named"),
    [
        ("rlo", {"alpha": 1}, ["alpha", "1", "2"]),
        ("rlo", {"n": 9}, ["n", "9", "5"]),
        ("rlo", {"n": 0}, ["n", "0", "1"]),
        ("rlo", {"beta": [0.9, 0.1]}, ["beta", "0.9", "lower"]),
        ("rlo", {"gamma": -1}, ["gamma", "-1", "0"]),
        ("rlo", {"gamma": float("nan")}, ["gamma", "nan", "finite"]),
        ("rlo", {"actions": []}, ["actions", "[]", "at least 1"]),
        ("rlo", {"actions": ["largest", "largest"]}, ["actions", "twice"]),
        ("rlo", {"actions": ["larges"]}, ["actions", "larges", "largest"]),
        ("rlo", {"amplification": [1.5]}, ["amplification", "1.5"]),
        ("rlo", {"alhpa": 5}, ["alhpa", "alpha"]),
        ("rlo", {"epsilon": 0}, ["epsilon", "0"]),
        ("avw", {"gamma": 0.1}, ["gamma", "avw"]),
        ("dwa", {"n": 2}, ["n", "dwa"]),
        ("uncertainty", {"alpha": 0}, ["alpha", "0"]),
        ("static", {}, ["weights", "missing"]),
        ("static", {"weights": [1, 1]}, ["weights", "5 levels"]),
        ("rol", {}, ["rol", "rlo"]),
        ("nowhere:Rule", {}, ["nowhere"]),
    ],
)
def test_options_that_are_not_allowed_are_named(rule, options, named):
    with pytest.raises(ValueError) as caught:
        build_weighting(rule, num_levels=5, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in named:
        assert word in message


def test_a_rule_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(
        "import torch\n"
        "from experiments.weighting.base import WeightingRule\n"
        "class Ramp(WeightingRule):\n"
        "    def __init__(self, num_levels, seed=0, alpha=100, slope=0.1):\n"
        "        super().__init__(num_levels, seed, alpha)\n"
        "        self.slope = slope\n"
        "    def update(self, interval):\n"
        "        return 1 + self.slope * interval.index * torch.arange(self.num_levels)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rule = build_weighting("my_rules:Ramp", num_levels=3, alpha=2, slope=0.5)
    feed(rule, [[1, 1, 1]] * 4)
    assert rule.weights.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"slop.*did you mean 'slope'"):
        build_weighting("my_rules:Ramp", num_levels=3, slop=0.5)
    with pytest.raises(ValueError, match="not a subclass"):
        build_weighting("my_rules:torch", num_levels=3)
