"""The level-weighted RetinaNet against stock MMDetection's own loss, gradients and state dict."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from experiments import detection

from mmdet.registry import MODELS  # isort: skip
from mmdet.structures import DetDataSample  # isort: skip
from mmdet.utils import register_all_modules  # isort: skip
from mmengine.model import MMDistributedDataParallel  # isort: skip
from mmengine.structures import InstanceData  # isort: skip

SIZE = 192
CASES = {
    # boxes per image, x1 y1 x2 y2: sides 20..190 reach all levels of the shrunk assignment
    "all levels": [
        [[4, 4, 24, 24], [30, 10, 75, 60], [10, 20, 120, 140], [0, 0, 190, 190]],
        [[50, 50, 150, 160]],
    ],
    "finest level only": [[[10, 10, 26, 26]], [[40, 40, 58, 56], [100, 90, 117, 110]]],
    "one image empty": [[[10, 10, 80, 80]], []],
    "no box at all": [[], []],
}


def retinanet(kind, weighting=None):
    register_all_modules(init_default_scope=True)
    config = small_config()
    config["type"] = kind
    if weighting is not None:
        config["weighting"] = weighting
    torch.manual_seed(0)
    return MODELS.build(config)


def small_config():
    return dict(
        data_preprocessor=dict(
            type="DetDataPreprocessor", mean=[0, 0, 0], std=[50, 50, 50], pad_size_divisor=32
        ),
        backbone=dict(type="ResNet", depth=18, base_channels=8, norm_eval=False, init_cfg=None),
        neck=dict(
            type="FPN",
            in_channels=[8, 16, 32, 64],
            out_channels=16,
            start_level=1,
            add_extra_convs="on_input",
            num_outs=5,
        ),
        bbox_head=dict(
            type="RetinaHead",
            num_classes=4,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type="AnchorGenerator",
                octave_base_scale=2,
                scales_per_octave=3,
                ratios=[0.5, 1.0, 2.0],
                strides=[8, 16, 32, 64, 128],
            ),
            bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[1.0, 1.0, 1.0, 1.0]),
            loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
            loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        ),
        train_cfg=dict(
            assigner=dict(
                type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1
            ),
            sampler=dict(type="PseudoSampler"),
            allowed_border=-1,
            pos_weight=-1,
        ),
        test_cfg=dict(nms_pre=100, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20),
    )


def batch(case, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs, samples = [], []
    for boxes in CASES[case]:
        inputs.append(torch.randint(0, 255, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(
            metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
        )
        instances = InstanceData()
        instances.bboxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        instances.labels = torch.arange(len(boxes)) % 4
        sample.gt_instances = instances
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def losses_of(model, data):
    model.train()
    data = model.data_preprocessor(copy.deepcopy(data), True)
    return model(**data, mode="loss")


def gradients(model, total):
    model.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(one, two, rtol=1e-5):
    assert one.keys() == two.keys() and one
    for name, gradient in one.items():
        scale = gradient.abs().max().item()
        assert torch.allclose(gradient, two[name], rtol=rtol, atol=rtol * scale + 1e-12), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", ["uniform", "rlo"])
def test_with_weights_one_loss_and_gradients_are_stock_retinanets(case, rule):
    stock = retinanet("RetinaNet")
    ours = retinanet("LevelWeightedRetinaNet", dict(rule=rule))
    ours.load_state_dict(stock.state_dict())
    stock_total, stock_logs = stock.parse_losses(losses_of(stock, batch(case)))
    total, logs = ours.parse_losses(losses_of(ours, batch(case)))
    assert total.item() == pytest.approx(stock_total.item(), rel=1e-5)
    assert {k: v.item() for k, v in logs.items()} == pytest.approx(
        {k: v.item() for k, v in stock_logs.items()}, rel=1e-5
    )
    assert_same_gradients(gradients(stock, stock_total), gradients(ours, total))


@pytest.mark.parametrize("case", CASES)
def test_with_other_weights_they_are_the_hand_weighted_sum(case):
    weights = [1.5, 0.25, 2.0, 1.0, 0.0]
    stock = retinanet("RetinaNet")
    ours = retinanet("LevelWeightedRetinaNet", dict(rule="static", weights=weights))
    ours.load_state_dict(stock.state_dict())
    losses = losses_of(stock, batch(case))
    by_hand = sum(w * (c + b) for w, c, b in zip(weights, losses["loss_cls"], losses["loss_bbox"]))
    total, logs = ours.parse_losses(losses_of(ours, batch(case)))
    assert total.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert logs["loss_cls"].item() == pytest.approx(
        sum(losses["loss_cls"]).item(), rel=1e-5
    )  # logged unweighted
    assert logs["loss"].item() == total.item()
    assert_same_gradients(gradients(stock, by_hand), gradients(ours, total))


def test_every_level_has_a_gradient_path_without_positives():
    model = retinanet("LevelWeightedRetinaNet", dict(rule="uniform"))
    losses = losses_of(model, batch("no box at all"))
    for level in losses["loss_bbox"]:
        assert level.item() == 0
        assert level.requires_grad


def test_the_model_state_is_stock_retinanets():
    stock = retinanet("RetinaNet")
    ours = retinanet("LevelWeightedRetinaNet", dict(rule="rlo"))
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in stock.named_parameters()]
    missing, unexpected = stock.load_state_dict(ours.state_dict(), strict=True)
    assert not missing and not unexpected


def test_the_rule_observes_unweighted_level_losses_over_accumulated_micro_batches():
    model = retinanet("LevelWeightedRetinaNet", dict(rule="static", weights=[2.0] * 5, alpha=2))
    head = model.weighting[0]
    expected = []
    records = []
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
        records.append(head.finish_step())
    assert records[0] is None
    record = records[1]
    assert record.iteration == 2
    torch.testing.assert_close(head.rule.last.losses, torch.stack(expected).sum(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        sum(record.terms.values()), torch.stack(expected).mean(0), rtol=1e-5, atol=1e-7
    )
    assert record.weights.tolist() == [2.0] * 5
    assert record.levels == ["P3", "P4", "P5", "P6", "P7"]


def test_a_loss_that_is_no_number_is_named():
    model = retinanet("LevelWeightedRetinaNet", dict(rule="rlo", alpha=3))
    head = model.weighting[0]
    for step in range(2):
        losses = losses_of(model, batch("all levels", seed=step))
        if step == 1:
            losses["loss_bbox"][3] = losses["loss_bbox"][3] * float("nan")
        model.parse_losses(losses)
        head.finish_step()
    with pytest.raises(detection.level_losses.NotFiniteError) as caught:  # as before a checkpoint
        head.check_finite()
    assert caught.value.message == "loss_bbox of level P6 (bbox_head) became NaN at iteration 2"
    assert caught.value.exit_code == 3
    model.parse_losses(losses_of(model, batch("all levels")))
    with pytest.raises(detection.level_losses.NotFiniteError):  # at the interval's end
        head.finish_step()


@pytest.mark.parametrize(
    ("options", "named"),
    [(dict(n=9), "n: 9"), (dict(alpha=1), "alpha: 1"), (dict(alhpa=5), "did you mean 'alpha'")],
)
def test_bad_options_are_refused_when_the_detector_is_built(options, named):
    with pytest.raises(ValueError, match=named):
        retinanet("LevelWeightedRetinaNet", dict(rule="rlo", **options))


def _rank(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = {}
    for kind, weighting in (("RetinaNet", None), ("LevelWeightedRetinaNet", dict(rule="rlo", alpha=2, n=2))):
        model = retinanet(kind, weighting)
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
        wrapped.train()
        for step, case in enumerate([*CASES, "all levels"]):
            data = model.data_preprocessor(batch(case, seed=10 * rank + step), True)
            total, _ = model.parse_losses(wrapped(**data, mode="loss"))
            if step == 0:
                found[kind] = gradients(model, total)
            if weighting:
                model.weighting[0].finish_step()
                found["weights", step] = model.weighting[0].rule.weights.tolist()
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    mp.spawn(_rank, args=(tmp_path / "store", tmp_path), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert_same_gradients(one["RetinaNet"], one["LevelWeightedRetinaNet"])
    assert_same_gradients(one["LevelWeightedRetinaNet"], two["LevelWeightedRetinaNet"])  # reduced over ranks
    weights = {k: v for k, v in one.items() if k[0] == "weights"}
    assert weights == {k: v for k, v in two.items() if k[0] == "weights"}
    assert any(v != [1.0] * 5 for v in weights.values())
