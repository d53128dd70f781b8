"""What a level-weighted detector does with its level losses: gradient paths, accumulation, the check, bad options."""

import pytest
import torch

from experiments.common.errors import UserError
from experiments.detection.level_weighting.level_losses import NotFiniteError
from experiments.detection.level_weighting.level_weighted import WeightedSum
from experiments.detection.level_weighting.level_wise import SumByBin
from experiments.weighting import OptionError
from tests.unit.detection.detectors import batch, build, losses_of

from mmdet.models import dense_heads  # isort: skip
from mmdet.models.dense_heads import RetinaHead  # isort: skip
from mmdet.registry import MODELS  # isort: skip


def test_every_level_has_a_gradient_path_without_positives():
    model = build("retinanet", dict(rule="uniform"))
    losses = losses_of(model, batch("no box at all"))
    for level in losses["loss_bbox"]:
        assert level.item() == 0
        assert level.requires_grad


def test_the_rule_observes_unweighted_level_losses_over_accumulated_micro_batches():
    model = build("retinanet", dict(rule="static", weights=[2.0] * 5, alpha=2))
    head = model.weighting[0]
    expected = []
    intervals = []
    for step in range(2):
        micro = []
        for number in range(3):
            losses = losses_of(model, batch("all levels", seed=10 * step + number))
            model.parse_losses(losses)
            micro.append(
                torch.stack([c + b for c, b in zip(losses["loss_cls"], losses["loss_bbox"])])
                .detach()
                .double()
            )
        expected.append(torch.stack(micro).mean(0))
        intervals.append(head.finish_step())
    before, rows = intervals
    assert not before and [row["iteration"] for row in rows] == [2] * 5
    torch.testing.assert_close(head.rule.last.losses, torch.stack(expected).sum(0), rtol=1e-5, atol=1e-7)
    told = torch.tensor([row["loss"] for row in rows], dtype=torch.float64)
    torch.testing.assert_close(told, torch.stack(expected).mean(0), rtol=1e-5, atol=1e-7)
    assert [row["weight"] for row in rows] == [2.0] * 5
    assert [row["level"] for row in rows] == ["P3", "P4", "P5", "P6", "P7"]


def test_a_loss_that_is_no_number_is_named():
    model = build("retinanet", dict(rule="rlo", alpha=3))
    head = model.weighting[0]
    for step in range(2):
        losses = losses_of(model, batch("all levels", seed=step))
        if step == 1:
            losses["loss_bbox"][3] = losses["loss_bbox"][3] * float("nan")
        model.parse_losses(losses)
        head.finish_step()
    with pytest.raises(NotFiniteError) as caught:  # as before a checkpoint
        head.check_finite()
    assert caught.value.message == "loss_bbox of level P6 (bbox_head) became NaN at iteration 2"
    assert caught.value.exit_code == 3
    model.parse_losses(losses_of(model, batch("all levels")))
    with pytest.raises(NotFiniteError):  # at the interval's end
        head.finish_step()


class OneNumberHead(RetinaHead):
    """A user's own, of which nobody knows what it returns before it has."""

    def loss_by_feat(self, *args, **kwargs):
        return {name: sum(levels) for name, levels in super().loss_by_feat(*args, **kwargs).items()}


def test_a_users_head_without_lists_over_levels_is_refused_at_the_first_step():
    MODELS.register_module(module=OneNumberHead, force=True)
    model = build("retinanet", dict(rule="rlo"), changes={"bbox_head.type": "OneNumberHead"})
    losses = losses_of(model, batch("all levels"))
    with pytest.raises(
        OptionError, match="OneNumberHead returns no loss as a list over its 5 levels"
    ) as caught:
        model.parse_losses(losses)
    assert isinstance(caught.value, UserError)  # shown without a traceback


def test_a_users_subclass_of_a_head_that_is_refused_is_refused_too():
    class Mine(dense_heads.FreeAnchorRetinaHead):
        pass

    MODELS.register_module(module=Mine, force=True)
    with pytest.raises(OptionError, match="Mine returns each loss as one number for all levels"):
        build("retinanet", dict(rule="rlo"), changes={"bbox_head.type": "Mine", "bbox_head.loss_bbox": L1})


L1 = dict(type="SmoothL1Loss", beta=0.11, loss_weight=0.75)


@pytest.mark.parametrize(
    ("options", "named"),
    [(dict(n=9), "n: 9"), (dict(alpha=1), "alpha: 1"), (dict(alhpa=5), "did you mean 'alpha'")],
)
def test_bad_options_are_refused_when_the_detector_is_built(options, named):
    with pytest.raises(ValueError, match=named):
        build("retinanet", dict(rule="rlo", **options))


def test_sums_and_their_gradients_are_those_of_autograd():
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 3.0, 5.0)]
    weights = torch.tensor([1.5, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    total, stacked = WeightedSum.apply(weights, *values)
    assert total.item() == 9.5 and stacked.tolist() == [2.0, 3.0, 5.0] and not stacked.requires_grad
    inputs = (weights, *values)
    assert torch.autograd.gradcheck(
        lambda *given: WeightedSum.apply(*given)[0], inputs, check_undefined_grad=False
    )

    bins = torch.tensor([0, 2, 0, 3, 3])  # bin 1 stays empty
    rows = [torch.rand(n, dtype=torch.float64, requires_grad=True) for n in (3, 2)]
    a, b = (each.detach() for each in rows)
    expected = torch.stack([a[0] + a[2], a[0] * 0, a[1], b.sum()])
    torch.testing.assert_close(SumByBin.apply(4, bins, *rows), expected)
    assert torch.autograd.gradcheck(lambda *inputs: SumByBin.apply(4, bins, *inputs), tuple(rows))


def test_a_value_that_is_no_number_stays_in_its_bin():
    rows = torch.tensor([1.0, float("nan"), 2.0])
    assert SumByBin.apply(2, torch.tensor([0, 1, 0]), rows)[0] == 3
