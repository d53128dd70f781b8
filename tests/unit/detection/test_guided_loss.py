"""Guided Loss against plain PyTorch: its values, its gradients, what happens without positives, its bias."""

import math

import pytest
import torch

from experiments import detection
from experiments.common.errors import UserError
from experiments.detection.level_weighting.batched_anchors import BatchedAnchors
from experiments.detection.level_weighting.level_wise import make_level_wise

from mmdet.registry import MODELS  # isort: skip
from mmengine.structures import InstanceData  # isort: skip

CLASSES, STRIDES, SIZE, PRIOR = 3, [8, 16, 32], 96, 0.002
# One positive-rich image, one with a single small box, one without any: N_pos is not MMDetection's count, which
# takes at least one positive an image.
BOXES = [[[4, 4, 40, 36], [30, 20, 90, 94]], [[50, 50, 66, 70]], []]


def head(kind="GuidedRetinaHead", **options):
    loss_cls = dict(type="CrossEntropyLoss", use_sigmoid=True)
    if kind == "RetinaHead":
        loss_cls = dict(type="FocalLoss", use_sigmoid=True)
    else:
        options = {"foreground_prior": PRIOR, **options}
    assigner = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
    config = dict(
        type=kind, num_classes=CLASSES, in_channels=8, feat_channels=8, stacked_convs=1, loss_cls=loss_cls,
        anchor_generator=dict(type="AnchorGenerator", octave_base_scale=2, scales_per_octave=2,
                              ratios=[0.5, 1.0, 2.0], strides=STRIDES),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"), loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        train_cfg=dict(assigner=assigner, sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1),
    )  # fmt: skip
    return MODELS.build({**config, **options})


def batch(boxes):
    """Ground truth and image sizes of a batch."""
    truth = [
        InstanceData(
            bboxes=torch.tensor(b, dtype=torch.float32).reshape(-1, 4), labels=torch.arange(len(b)) % CLASSES
        )
        for b in boxes
    ]
    return truth, [dict(img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))] * len(boxes)


def outputs(images, seed=0):
    """Random scores and box deltas per level, as leaves."""
    generator = torch.Generator().manual_seed(seed)
    sides = [SIZE // stride for stride in STRIDES]
    return tuple(
        [torch.randn(images, 6 * depth, s, s, generator=generator).requires_grad_() for s in sides]
        for depth in (CLASSES, 4)
    )


def by_hand(scores, boxes):
    """Per level the plain cross-entropy sum over all anchors that are not ignored; and N_pos.

    Labels come from stock MMDetection's head of the same anchors and assigner.
    """
    stock = head("RetinaHead")
    truth, metas = batch(boxes)
    anchors, valid = stock.get_anchors([s.shape[-2:] for s in scores], metas, "cpu")
    labels, weights = stock.get_targets(anchors, valid, truth, metas)[:2]
    sums, positives = [], 0
    for score, label, weight in zip(scores, labels, weights):
        foreground = torch.sigmoid(score.permute(0, 2, 3, 1).reshape(*label.shape, CLASSES).double())
        target = label[..., None] == torch.arange(CLASSES)
        loss = -torch.where(target, foreground, 1 - foreground).log()
        sums.append(loss[weight > 0].sum())
        positives += int((label < CLASSES).sum())
    assert any((weight == 0).any() for weight in weights) or not positives  # some anchors are ignored
    return sums, positives


def test_its_value_is_that_of_the_box_loss_and_its_gradient_r_times_that_of_plain_cross_entropy():
    scores, deltas = outputs(len(BOXES))
    losses = head().loss_by_feat(scores, deltas, *batch(BOXES))
    stock = head("RetinaHead").loss_by_feat(scores, deltas, *batch(BOXES))
    assert len(losses["loss_cls"]) == len(losses["loss_bbox"]) == len(STRIDES)
    torch.testing.assert_close(torch.stack(losses["loss_bbox"]), torch.stack(stock["loss_bbox"]))

    sums, positives = by_hand(scores, BOXES)
    plain = [part / (positives + len(BOXES)) for part in sums]
    total_reg = sum(losses["loss_bbox"]).item()
    ratio = total_reg / sum(plain).item()
    assert sum(losses["loss_cls"]).item() == pytest.approx(total_reg, rel=1e-5)
    weights = [0.5, 1.0, 2.5]  # level weights come after r, so each level's gradient is r times its own
    weighted = sum(w * loss for w, loss in zip(weights, losses["loss_cls"]))
    expected = sum(w * ratio * loss for w, loss in zip(weights, plain))
    assert weighted.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, hand in zip(torch.autograd.grad(weighted, scores), torch.autograd.grad(expected, scores)):
        torch.testing.assert_close(mine, hand, rtol=1e-4, atol=1e-7)
    with pytest.raises(RuntimeError, match="not have been used"):  # r carries none of the box loss's gradient
        torch.autograd.grad(sum(losses["loss_cls"]), deltas)


@pytest.mark.parametrize("boxes", [BOXES, [[], []]])
def test_the_plain_loss_is_divided_by_true_positives_and_images(boxes, monkeypatch):
    seen = []
    single = detection.GuidedRetinaHead.loss_by_feat_single

    def watched(*args, **kwargs):
        seen.append(single(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(detection.GuidedRetinaHead, "loss_by_feat_single", watched)
    scores, deltas = outputs(len(boxes))
    head().loss_by_feat(scores, deltas, *batch(boxes))
    sums, positives = by_hand(scores, boxes)
    assert len(seen) == len(STRIDES)  # once a level, finest first
    for (loss, _), total in zip(seen, sums):
        assert loss.item() == pytest.approx(total.item() / (positives + len(boxes)), rel=1e-5)


def test_without_positives_everything_is_zero_and_keeps_its_gradient_path():
    scores, deltas = outputs(2)
    losses = head().loss_by_feat(scores, deltas, *batch([[], []]))
    for name, leaves in (("loss_cls", scores), ("loss_bbox", deltas)):
        assert [loss.item() for loss in losses[name]] == [0.0] * len(STRIDES)
        for gradient in torch.autograd.grad(sum(losses[name]), leaves):
            assert not gradient.any()


def test_vanishing_classification_loss_stays_finite():
    scores, deltas = outputs(1)
    perfect = head()
    perfect.loss_cls.loss_weight = 0.0  # as if every anchor were classified without error
    losses = perfect.loss_by_feat(scores, deltas, *batch(BOXES[:1]))
    assert sum(losses["loss_bbox"]).item() > 0
    assert sum(losses["loss_cls"]).item() == 0.0


def test_telling_levels_apart_for_the_trace_changes_no_loss():
    from experiments.detection.level_weighting.level_wise import make_level_wise

    plain, wise = head(), head()
    make_level_wise(wise)
    scores, deltas = outputs(len(BOXES))
    for name, levels in plain.loss_by_feat(scores, deltas, *batch(BOXES)).items():
        again = wise.loss_by_feat(scores, deltas, *batch(BOXES))[name]
        torch.testing.assert_close(torch.stack(list(again)), torch.stack(levels))


@pytest.mark.parametrize("prior", [1e-5, 0.25, None])
def test_first_scores_are_the_prior(prior):
    made = head(foreground_prior=prior)
    made.init_weights()
    bias = -math.log((1 - (prior or 0.01)) / (prior or 0.01))
    torch.testing.assert_close(made.retina_cls.bias, torch.full_like(made.retina_cls.bias, bias))
    assert made.retina_cls.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert not made.retina_reg.bias.any()


def test_state_dict_is_that_of_retinanets_head():
    assert head().state_dict().keys() == head("RetinaHead").state_dict().keys()


def test_a_head_without_its_prior_does_not_train():
    scores, deltas = outputs(1)
    with pytest.raises(UserError, match="foreground_prior is missing") as caught:
        head(foreground_prior=None).loss_by_feat(scores, deltas, *batch(BOXES[:1]))
    assert "msdet prior" in caught.value.hint


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"foreground_prior": 1.5}, "foreground_prior: 1.5 is not allowed"),
        ({"foreground_prior": 0}, "foreground_prior: 0 is not allowed"),
        ({"loss_cls": dict(type="FocalLoss", use_sigmoid=True)}, "FocalLoss is not allowed"),
        ({"loss_cls": dict(type="CrossEntropyLoss")}, "CrossEntropyLoss is not allowed"),
        ({"train_cfg": dict(assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4),
                            sampler=dict(type="RandomSampler", num=256, pos_fraction=0.5))},
         "RandomSampler is not allowed"),
    ],
)  # fmt: skip
def test_what_is_not_guided_loss_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        head(**option)


def test_on_all_images_at_once_the_losses_are_the_same():
    scores, deltas = outputs(len(BOXES))
    found = []
    for fast in (False, True):
        one = head()
        make_level_wise(one, fast)
        assert isinstance(one, BatchedAnchors) == fast
        losses = one.loss_by_feat(scores, deltas, *batch(BOXES))
        found.append([torch.stack(list(losses[name])) for name in ("loss_cls", "loss_bbox")])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)
