"""Consistent supervision: its loss by hand, its RoIs, and that inference knows nothing of it."""

import copy

import pytest
import torch
import torch.nn.functional as F

from experiments import detection  # noqa: F401  (operators come before MMDetection)

from mmcv.ops import roi_align  # isort: skip
from mmdet.models.task_modules.assigners import AssignResult  # isort: skip
from mmdet.models.task_modules.samplers import SamplingResult  # isort: skip
from mmdet.registry import MODELS  # isort: skip
from mmdet.structures import DetDataSample  # isort: skip
from mmdet.utils import register_all_modules  # isort: skip
from mmengine import ConfigDict  # isort: skip
from mmengine.runner.checkpoint import load_state_dict  # isort: skip
from mmengine.structures import InstanceData  # isort: skip

SIZE = 128
CLASSES = 3
CASES = {  # boxes of each image
    "boxes": [[[4, 4, 24, 24], [30, 10, 75, 60], [0, 0, 120, 126]], [[50, 50, 110, 118]]],
    "one image empty": [[[10, 10, 80, 80]], []],
    "no box at all": [[], []],
}
AUX_HEAD = dict(type="Shared2FCBBoxHead", fc_out_channels=32)
CODER = dict(type="DeltaXYWHBBoxCoder", target_stds=[1.0, 1.0, 1.0, 1.0])
NMS = dict(type="nms", iou_threshold=0.7)


def assigner(positive, negative):
    return dict(
        type="MaxIoUAssigner", pos_iou_thr=positive, neg_iou_thr=negative, min_pos_iou=0, ignore_iof_thr=-1
    )


def common():
    return dict(
        data_preprocessor=dict(
            type="DetDataPreprocessor", mean=[0, 0, 0], std=[50, 50, 50], pad_size_divisor=32
        ),
        backbone=dict(type="ResNet", depth=18, base_channels=8, norm_eval=False, init_cfg=None),
        neck=dict(type="AugFPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5),
    )


def retinanet():
    config = common()
    config["neck"].update(start_level=1, add_extra_convs="on_input")
    head = dict(type="RetinaHead", num_classes=CLASSES, in_channels=16, feat_channels=16, stacked_convs=1)
    head["anchor_generator"] = dict(
        type="AnchorGenerator",
        octave_base_scale=2,
        scales_per_octave=3,
        ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
    )
    head.update(
        bbox_coder=CODER, loss_cls=dict(type="FocalLoss", use_sigmoid=True), loss_bbox=dict(type="L1Loss")
    )
    train = dict(
        assigner=assigner(0.5, 0.4), sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1
    )
    test = dict(nms_pre=100, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20)
    return dict(config, type="LevelWeightedAugRetinaNet", bbox_head=head, train_cfg=train, test_cfg=test)


def faster_rcnn():
    sampler = dict(type="RandomSampler", num=64, pos_fraction=0.25)
    rpn = dict(type="RPNHead", in_channels=16, feat_channels=16, bbox_coder=CODER)
    rpn["anchor_generator"] = dict(
        type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
    )
    rpn.update(loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True), loss_bbox=dict(type="L1Loss"))
    roi = dict(type="StandardRoIHead")
    roi["bbox_roi_extractor"] = dict(
        type="SoftRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
        out_channels=16,
        featmap_strides=[4, 8, 16, 32],
    )
    roi["bbox_head"] = dict(AUX_HEAD, in_channels=16, num_classes=CLASSES)
    proposals = dict(nms_pre=200, max_per_img=100, nms=NMS, min_bbox_size=0)
    return dict(
        common(),
        type="LevelWeightedAugFasterRCNN",
        rpn_head=rpn,
        roi_head=roi,
        train_cfg=dict(
            rpn=dict(assigner=assigner(0.7, 0.3), sampler=sampler, allowed_border=-1, pos_weight=-1),
            rpn_proposal=proposals,
            rcnn=dict(assigner=assigner(0.5, 0.5), sampler=sampler, pos_weight=-1),
        ),
        test_cfg=dict(rpn=proposals, rcnn=dict(score_thr=0.0, nms=NMS, max_per_img=20)),
    )


FAMILIES = {"RetinaNet": (retinanet, "bbox_head"), "Faster R-CNN": (faster_rcnn, "rpn_head")}


def detector(family, **options):
    register_all_modules(init_default_scope=True)
    config = dict(aux_head=AUX_HEAD, weighting=dict(rule="uniform"))
    if family == "Faster R-CNN":
        config["weighting"]["where"] = "rpn"
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict({**FAMILIES[family][0](), **config, **options}))
    model.init_weights()
    return model


def batch(case):
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for boxes in CASES[case]:
        inputs.append(torch.randint(0, 255, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8))
        shape = (SIZE, SIZE)
        sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.arange(len(boxes)) % CLASSES,
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def run(model, case, mode):
    data = model.data_preprocessor(copy.deepcopy(batch(case)), mode == "loss")
    torch.manual_seed(1)  # of the samplers
    return model(**data, mode=mode)


# ---- The loss


def sampling_result(rois, truth, labels, assigned):
    """What MMDetection's sampler hands out where `assigned` (from 1; 0: background) is settled."""
    assigned = torch.tensor(assigned)
    of_roi = torch.where(assigned > 0, labels[(assigned - 1).clamp(min=0)], -1)
    assignment = AssignResult(len(truth), assigned, torch.zeros(len(rois)), of_roi)
    positive, negative = (assigned > 0).nonzero()[:, 0], (assigned == 0).nonzero()[:, 0]
    flags = torch.zeros(len(rois), dtype=torch.uint8)
    return SamplingResult(positive, negative, rois, truth, assignment, flags)


def test_the_loss_by_hand():
    model = detector("RetinaNet", aux_weight=0.25)
    torch.nn.init.normal_(model.aux_head.fc_reg.weight, std=0.5)  # some errors beyond smooth L1's bend
    torch.nn.init.normal_(model.aux_head.fc_cls.weight, std=0.2)
    truth = torch.tensor([[10.0, 10, 50, 60], [60.0, 20, 120, 100]])
    first = torch.tensor([[12.0, 8, 50, 55], [0.0, 0, 30, 30], [58.0, 25, 118, 110], [80.0, 80, 100, 90]])
    second = torch.tensor([[5.0, 5, 100, 120]])
    results = [
        sampling_result(first, truth, torch.tensor([2, 0]), [1, 0, 2, 0]),
        sampling_result(second, truth[:0], torch.zeros(1, dtype=torch.long), [0]),
    ]
    laterals = [torch.randn(2, 16, SIZE // s, SIZE // s, requires_grad=True) for s in (8, 16, 32)]
    losses = model.auxiliary_losses(laterals, results)

    rois = torch.cat(
        [F.pad(first[[0, 2, 1, 3]], (1, 0)), F.pad(second, (1, 0), value=1.0)]
    )  # positives first
    labels = torch.tensor([2, 0, 3, 3, 3])  # 3 is the background
    deltas = []
    for roi, box in zip(first[[0, 2]].tolist(), truth.tolist()):
        (x1, y1, x2, y2), (a1, b1, a2, b2) = roi, box
        w, h = x2 - x1, y2 - y1
        shift = [((a1 + a2) - (x1 + x2)) / 2 / w, ((b1 + b2) - (y1 + y2)) / 2 / h]
        size = torch.tensor([(a2 - a1) / w, (b2 - b1) / h]).log().tolist()
        deltas.append([v / s for v, s in zip(shift + size, (0.1, 0.1, 0.2, 0.2))])
    one, two = model.aux_head.shared_fcs
    cls_total = bbox_total = 0
    for lateral, stride in zip(laterals, (8, 16, 32)):
        x = roi_align(lateral, rois, 7, 1 / stride, 2, "avg", True).flatten(1)
        x = F.relu(two(F.relu(one(x))))
        cls_total += F.cross_entropy(model.aux_head.fc_cls(x), labels)
        predicted = model.aux_head.fc_reg(x).reshape(5, CLASSES, 4)
        error = torch.stack([predicted[0, 2], predicted[1, 0]]) - torch.tensor(deltas)
        size = error.abs()
        assert (size < 1).any() and (size > 1).any()
        bbox_total += torch.where(size < 1, size * size / 2, size - 0.5).sum() / 5
    assert losses["loss_aux_cls"].item() == pytest.approx(0.25 * cls_total.item(), rel=1e-5)
    assert losses["loss_aux_bbox"].item() == pytest.approx(0.25 * bbox_total.item(), rel=1e-5)
    sum(losses.values()).backward()
    assert all(x.grad.any() for x in laterals)
    assert all(p.grad is not None and p.grad.any() for p in model.aux_head.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_papers_head_is_mmdetections_default(family):
    head = detector(family, aux_head=dict(type="Shared2FCBBoxHead")).aux_head
    assert [(fc.in_features, fc.out_features) for fc in head.shared_fcs] == [(16 * 49, 1024), (1024, 1024)]
    assert (head.fc_cls.out_features, head.fc_reg.out_features) == (CLASSES + 1, CLASSES * 4)
    assert tuple(head.bbox_coder.stds) == (0.1, 0.1, 0.2, 0.2)
    assert (type(head.loss_bbox).__name__, head.loss_bbox.beta) == ("SmoothL1Loss", 1.0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_adds_to_the_detectors_loss_and_is_not_weighted(family, case):
    weighted = FAMILIES[family][1]
    rule = dict(rule="static", weights=[2.0] * 5)
    if weighted == "rpn_head":
        rule["where"] = "rpn"
    ours, plain = detector(family, weighting=rule), detector(family, weighting=rule, aux_head=None)
    plain.load_state_dict(ours.state_dict())
    losses, expected = run(ours.train(), case, "loss"), run(plain.train(), case, "loss")
    added = {name: losses.pop(name) for name in ("loss_aux_cls", "loss_aux_bbox")}
    assert added["loss_aux_cls"].isfinite() and added["loss_aux_cls"] > 0
    assert (added["loss_aux_bbox"] > 0) == (case != "no box at all")
    total, logs = ours.parse_losses({**losses, **added})
    expected_total, expected_logs = plain.parse_losses(expected)
    for name, value in expected_logs.items():
        if name != "loss":
            torch.testing.assert_close(logs[name], value, msg=name)
    torch.testing.assert_close(total, expected_total + sum(added.values()))
    total.backward()
    assert [name for name, p in ours.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in ours.parameters() if p.grad is not None)
    if case == "boxes":
        extra = [p for name, p in ours.named_parameters() if "aux_head" in name or "augmentation" in name]
        assert all(p.grad.any() for p in extra)


def test_without_any_roi_it_is_zero_with_a_gradient():
    model = detector("RetinaNet").train()
    model.bbox_head.retina_cls.bias.data.fill_(-20.0)
    losses = run(model, "no box at all", "loss")
    added = [losses[name] for name in ("loss_aux_cls", "loss_aux_bbox")]
    assert [loss.item() for loss in added] == [0, 0]
    sum(added).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.aux_head.parameters())


# ---- The RoIs


def test_one_stage_rois_are_the_detectors_boxes():
    model = detector("RetinaNet")
    shapes = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    scores = [torch.full((2, 9 * CLASSES, *shape), -20.0) for shape in shapes]
    deltas = [torch.zeros(2, 9 * 4, *shape) for shape in shapes]
    # Anchor 3 of a place is the square of side 2 x stride around it (ratio 1, scale 1).
    scores[0][0, 3 * CLASSES + 1, 4, 4] = 2.0  # [24, 24, 40, 40], class 1
    scores[0][0, 3 * CLASSES + 1, 4, 5] = 1.0  # [32, 24, 48, 40]: IoU 1/3 with it, so kept
    scores[1][0, 3 * CLASSES, 4, 4] = -4.4  # [48, 48, 80, 80], score 0.012
    scores[1][0, 3 * CLASSES, 6, 6] = -4.7  # [80, 80, 112, 112], score 0.009: left out
    scores[2][0, 3 * CLASSES, 0, 0] = 0.0  # [-32, -32, 32, 32], cut to the image
    scores[2][
        0, 4 * CLASSES, 0, 0
    ] = -1.0  # the scale above: [-40.3, -40.3, 40.3, 40.3]: IoU after the cut 0.63
    scores[0][1, 3 * CLASSES, 8, 8] = 3.0  # the second image: [56, 56, 72, 72]
    scores[0][1, 4 * CLASSES, 8, 8] = 2.0  # the scale above: IoU 0.63; and with the next one ...
    deltas[0][1, 4 * 4 + 2 : 5 * 4, 8, 8] = -0.2  # ... shrunk to side 16.5 it is suppressed
    maps = [[level.requires_grad_() for level in levels] for levels in (scores, deltas)]
    data = batch("boxes")
    data["data_samples"][0].gt_instances = InstanceData(
        bboxes=torch.tensor([[24.0, 26, 40, 42], [90.0, 90, 120, 120]]), labels=torch.tensor([2, 1])
    )
    data["data_samples"][1].gt_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
    )
    first, second = model.sampled_rois([maps], data["data_samples"])
    positive = sorted(first.pos_priors.tolist())
    assert positive == [
        [24, 24, 40, 40],
        [24, 26, 40, 42],
        [90, 90, 120, 120],
    ]  # two of them are ground truth
    assert first.pos_gt_labels.tolist() == [
        {24: 2, 90: 1}[int(x)] for x in first.pos_priors[:, 0].tolist()
    ]  # the truth's class, not the predicted one
    side = pytest.approx(32 * 2 ** (1 / 3))
    assert sorted(first.neg_priors.tolist()) == [
        [0, 0, 32, 32],
        [0, 0, side, side],
        [32, 24, 48, 40],
        [48, 48, 80, 80],
    ]
    assert second.priors.tolist() == [[56, 56, 72, 72]] and len(second.pos_priors) == 0
    assert not first.priors.requires_grad


def box_iou(one, other):
    """(n, 4), (m, 4) -> (n, m)."""
    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (one, other)]
    one, other = one[:, None], other[None]
    sides = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    inner = sides.clamp(min=0).prod(-1)
    return inner / (areas[0][:, None] + areas[1] - inner)


def test_one_stage_rois_of_a_real_pass():
    """512 of at most 1000 boxes, a quarter positive at most; one pass of the head serves both losses."""
    model = detector("RetinaNet").train()
    model.bbox_head.retina_cls.bias.data.fill_(0.0)  # every box scores about 0.5: plenty of them
    seen = {}
    original, calls = model.sampled_rois, []
    model.bbox_head.register_forward_hook(lambda *_: calls.append(1))
    model.sampled_rois = lambda *args: seen.setdefault("results", original(*args))
    run(model, "boxes", "loss")
    assert calls == [1]
    for result, truth in zip(seen["results"], CASES["boxes"], strict=True):
        assert len(result.priors) == 512
        assert len(truth) <= len(result.pos_priors) <= 128
        ious = box_iou(result.priors, torch.tensor(truth, dtype=torch.float32)).max(1).values
        assert (ious[: len(result.pos_priors)] >= 0.5).all() and (ious[len(result.pos_priors) :] < 0.5).all()
        assert result.priors.min() >= 0 and result.priors.max() <= SIZE


def test_two_stage_rois_are_those_of_the_roi_head():
    model = detector("Faster R-CNN").train()
    of_head, of_aux = [], []
    model.roi_head.bbox_roi_extractor.register_forward_pre_hook(lambda _, args: of_head.append(args[1]))
    for extractor in model.aux_extractors:
        extractor.register_forward_pre_hook(lambda _, args: of_aux.append(args[1]))
    run(model, "boxes", "loss")
    assert len(of_head) == 1 and len(of_aux) == 4
    for rois in of_aux:
        assert torch.equal(rois, of_head[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_it_sees_the_laterals_before_anything_is_added(family):
    model = detector(family).train()
    made, seen = [], []
    for conv in model.neck.lateral_convs:
        conv.register_forward_hook(lambda module, args, output: made.append(output))
    for extractor in model.aux_extractors:
        extractor.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    run(model, "boxes", "loss")
    assert len(seen) == len(model.neck.lateral_convs) and all(a is b for a, b in zip(seen, made))
    assert [round(SIZE / x.shape[-1]) for x in seen] == model.lateral_strides()
    assert [round(1 / x.roi_layers[0].spatial_scale) for x in model.aux_extractors] == model.lateral_strides()


# ---- No cost at inference


def predictions(model):
    with torch.no_grad():
        samples = run(model.eval(), "boxes", "predict")
    return [(s.pred_instances.bboxes, s.pred_instances.scores, s.pred_instances.labels) for s in samples]


@pytest.mark.parametrize("family", FAMILIES)
def test_inference_knows_nothing_of_it(family):
    model = detector(family)
    run(model.train(), "boxes", "loss")
    hooked = [name for name, module in model.named_modules() if module._forward_hooks and "loss_" not in name]
    assert hooked == [] and "sample" not in vars(
        getattr(getattr(model, "roi_head", None), "bbox_sampler", model)
    )
    called = []
    for name, module in model.named_modules():
        if name.startswith("aux_"):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    before = predictions(model)
    with torch.no_grad():
        run(model, "boxes", "tensor")
    assert called == []
    for parameter in model.aux_head.parameters():
        torch.nn.init.normal_(parameter)
    without = detector(family, aux_head=None)
    assert [name for name, _ in without.named_modules() if name.startswith("aux")] == []
    without.load_state_dict(model.state_dict(), strict=True)
    assert sum(len(boxes) for boxes, *_ in before) > 0
    for one in (predictions(model), predictions(without)):
        for ours, expected in zip(one, before, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_mmengine_loads_a_checkpoint_without_the_auxiliary_head_too():
    trained, without = detector("RetinaNet"), detector("RetinaNet", aux_head=None)
    load_state_dict(without, trained.state_dict(), strict=True)
    assert torch.equal(without.neck.augmentation.reduce[0].weight, trained.neck.augmentation.reduce[0].weight)


def test_where_roi_is_refused_with_soft_roi_selection():
    with pytest.raises(ValueError, match="where: 'roi' is not allowed"):
        detector("Faster R-CNN", weighting=dict(rule="rlo", where="roi"))
