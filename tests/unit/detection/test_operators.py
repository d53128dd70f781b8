"""The operators that stand in for mmcv's compiled ones: known answers, plain loops, gradients.

The loops below are written from mmcv's C++ for one box, bin or logit at a time.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.detection.operators import extension as operators
from experiments.detection.operators import kernels
from experiments.detection.operators import roi_align as roi_align_kernels
from experiments.detection.operators.roi_align import RoISettings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def ops():
    """`mmcv.ops`, on top of whatever `install` provides."""
    with warnings.catch_warnings():
        # Another test may have imported parts of MMDetection already.
        warnings.simplefilter("ignore", RuntimeWarning)
        operators.install()
    return importlib.import_module("mmcv.ops")


def random_boxes(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping float32 boxes and scores."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    size = torch.rand(count, 2, generator=generator) * 30 + 1
    return torch.cat([corner, corner + size], 1), torch.rand(count, generator=generator)


def iou(a, b, offset: int):
    """IoU of two boxes in float32, NaN for two empty ones."""
    width = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.float32(width * height) / np.float32(areas[0] + areas[1] - width * height)


# ---- NMS


def nms_loop(boxes, scores, threshold: float, offset: int) -> list[int]:
    boxes = boxes.numpy()
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i].item()):
        if not any(iou(boxes[k], boxes[i], offset) > np.float32(threshold) for k in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_nms_equals_the_loop(threshold, offset):
    boxes, scores = random_boxes(120)
    assert kernels.nms(boxes, scores, threshold, offset).tolist() == nms_loop(
        boxes, scores, threshold, offset
    )


def test_nms_over_several_blocks_equals_the_loop(monkeypatch):
    boxes, scores = random_boxes(100, seed=1)
    expected = nms_loop(boxes, scores, 0.3, 0)
    for block in (1, 7, 99, 100, 101):
        monkeypatch.setattr(kernels, "NMS_BLOCK", block)
        assert kernels.nms(boxes, scores, 0.3, 0).tolist() == expected


def test_nms_known_answer_through_mmcv(ops):
    boxes = np.array(
        [
            [49.1, 32.4, 51.0, 35.9],
            [49.3, 32.9, 51.0, 35.3],
            [49.2, 31.8, 51.0, 35.4],
            [35.1, 11.5, 39.1, 15.7],
            [35.6, 11.8, 39.3, 14.2],
            [35.3, 11.5, 39.9, 14.5],
            [35.2, 11.7, 39.7, 15.7],
        ],
        dtype=np.float32,
    )
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.5, 0.4, 0.3], dtype=np.float32)
    dets, kept = ops.nms(boxes, scores, 0.6)
    assert kept.tolist() == [0, 3, 4]
    np.testing.assert_array_equal(dets, np.column_stack([boxes[kept], scores[kept]]))


def test_nms_among_equal_scores_keeps_the_lower_index():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(300, 1)
    assert kernels.nms(boxes, torch.ones(300), 0.5, 0).tolist() == [0]
    apart = boxes + 10 * torch.arange(300.0)[:, None]
    assert kernels.nms(apart, torch.ones(300), 0.5, 0).tolist() == list(range(300))


@pytest.mark.parametrize(("width", "threshold"), [(1, 0.5), (1.2, 0.6), (1.4, 0.7)])
def test_nms_keeps_a_box_exactly_at_the_threshold(width, threshold):
    boxes = torch.tensor([[0, 0, 2, 1], [0, 0, width, 1]], dtype=torch.float32)
    scores = torch.tensor([0.9, 0.8])
    assert kernels.nms(boxes, scores, threshold, 0).tolist() == [0, 1]
    assert kernels.nms(boxes, scores, threshold - 1e-3, 0).tolist() == [0]


def test_nms_keeps_boxes_without_area_unless_offset_gives_them_one():
    boxes, scores = torch.tensor([[3.0, 1.0, 3.0, 1.0]]).repeat(3, 1), torch.tensor([1, 0.9, 0.8])
    assert kernels.nms(boxes, scores, 0.5, 0).tolist() == [0, 1, 2]
    assert kernels.nms(boxes, scores, 0.5, 1).tolist() == [0]


def test_nms_of_nothing():
    kept = kernels.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_nms_score_threshold_and_max_num(ops):
    boxes, scores = random_boxes(60)
    enough = (scores > 0.4).nonzero()[:, 0]
    expected = enough[nms_loop(boxes[enough], scores[enough], 0.3, 0)][:5]
    dets, kept = ops.nms(boxes, scores, 0.3, score_threshold=0.4, max_num=5)
    assert kept.tolist() == expected.tolist()
    torch.testing.assert_close(dets, torch.cat([boxes[kept], scores[kept, None]], 1))
    assert ops.nms(boxes, scores, 0.3, score_threshold=2.0)[1].numel() == 0


def test_batched_nms_treats_classes_apart(ops):
    boxes, scores = random_boxes(90)
    labels = torch.arange(90) % 3
    expected = []
    for label in range(3):
        members = (labels == label).nonzero()[:, 0]
        expected += members[nms_loop(boxes[members], scores[members], 0.5, 0)].tolist()
    _, kept = ops.batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.5})
    assert kept.tolist() == sorted(expected, key=lambda i: -scores[i].item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nms_accepts_other_precisions(dtype):
    boxes, scores = (part.to(dtype) for part in random_boxes(80))
    expected = nms_loop(boxes.float(), scores, 0.5, 0)
    assert kernels.nms(boxes, scores, 0.5, 0).tolist() == expected


# ---- Soft-NMS


def softnms_loop(boxes, scores, threshold, sigma, min_score, method, offset):
    left = [[i, box, score] for i, (box, score) in enumerate(zip(boxes.numpy(), scores.numpy(), strict=True))]
    i = 0
    while i < len(left):
        best = i
        for j in range(i + 1, len(left)):
            if left[best][2] < left[j][2]:
                best = j
        left[i], left[best] = left[best], left[i]
        j = i + 1
        while j < len(left):
            overlap = iou(left[i][1], left[j][1], offset)
            if method == 2:
                left[j][2] *= np.exp(-overlap * overlap / np.float32(sigma))
            elif overlap >= np.float32(threshold):
                left[j][2] *= 1 - overlap if method == 1 else np.float32(0)
            if left[j][2] < np.float32(min_score):
                left[j] = left[-1]
                left.pop()
            else:
                j += 1
        i += 1
    return [entry[0] for entry in left], [float(entry[2]) for entry in left]


@pytest.mark.parametrize("method", [0, 1, 2])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("min_score", [0.0, 1e-3, 0.3])
def test_softnms_equals_the_loop(method, offset, min_score):
    boxes, scores = random_boxes(60, seed=method)
    scores[10:14] = scores[20]  # ties: the order left behind by dropped boxes decides
    boxes[30:34, 2:] = boxes[30:34, :2]  # no area
    dets = torch.full((60, 5), -7.0)
    kept = kernels.softnms(boxes, scores, dets, 0.3, 0.5, min_score, method, offset)
    expected, decayed = softnms_loop(boxes, scores, 0.3, 0.5, min_score, method, offset)
    assert kept.tolist() == expected
    torch.testing.assert_close(dets[: len(kept), :4], boxes[kept])
    torch.testing.assert_close(dets[: len(kept), 4], torch.tensor(decayed), equal_nan=True)
    assert (dets[len(kept) :] == -7).all()


def test_softnms_known_answer_through_mmcv(ops):
    boxes = np.array(
        [[4, 3, 5, 3], [4, 3, 5, 4], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1]],
        dtype=np.float32,
    )
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.4, 0.0], dtype=np.float32)
    dets, kept = ops.soft_nms(boxes, scores, 0.6, sigma=0.5)
    assert kept.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(dets[:, 4], scores[:5])
    # One box inside another: IoU 0.5, so 0.8 * (1 - 0.5), or 0.8 * exp(-0.25 / 0.5).
    pair = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]]), torch.tensor([0.9, 0.8])
    assert ops.soft_nms(*pair, 0.3, method="linear")[0][1, 4].item() == pytest.approx(0.4)
    assert ops.soft_nms(*pair, method="gaussian")[0][1, 4].item() == pytest.approx(0.8 * math.exp(-0.5))
    assert len(ops.soft_nms(*pair, 0.3, method="naive")[0]) == 1
    assert len(ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))[1]) == 0


# ---- RoIAlign


def bilinear_loop(plane: list[list[float]], y: float, x: float) -> float:
    height, width = len(plane), len(plane[0])
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = int(y), int(x)
    if y0 >= height - 1:
        y0, y = height - 1, float(height - 1)
    if x0 >= width - 1:
        x0, x = width - 1, float(width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    top = plane[y0][x0] * (1 - fx) + plane[y0][x1] * fx
    bottom = plane[y1][x0] * (1 - fx) + plane[y1][x1] * fx
    return top * (1 - fy) + bottom * fy


def roi_align_loop(input, rois, pooled, scale, ratio, aligned, mode):
    """Values and, for 'max', positions, one bin at a time, in Python floats."""
    shape = (len(rois), input.shape[1], *pooled)
    values, at_y, at_x = np.zeros(shape), np.full(shape, -1.0), np.full(shape, -1.0)
    for r, c, row, column in np.ndindex(*shape):
        batch, x1, y1, x2, y2 = rois[r].tolist()
        shift = 0.5 if aligned else 0.0
        x1, y1, x2, y2 = (corner * scale - shift for corner in (x1, y1, x2, y2))
        high, wide = y2 - y1, x2 - x1
        if not aligned:
            high, wide = max(high, 1.0), max(wide, 1.0)
        high, wide = high / pooled[0], wide / pooled[1]
        grid_y, grid_x = (ratio, ratio) if ratio else (math.ceil(high), math.ceil(wide))
        samples, plane = [], input[int(batch), c].tolist()
        for iy, ix in itertools.product(range(grid_y), range(grid_x)):
            y = y1 + row * high + (iy + 0.5) * high / grid_y
            x = x1 + column * wide + (ix + 0.5) * wide / grid_x
            samples.append((bilinear_loop(plane, y, x), y, x))
        if mode == "avg":
            values[r, c, row, column] = sum(s[0] for s in samples) / max(len(samples), 1)
        else:
            best = max(samples, key=lambda s: s[0], default=(-10_000.0, -1.0, -1.0))
            values[r, c, row, column], at_y[r, c, row, column], at_x[r, c, row, column] = best
    return tuple(torch.from_numpy(part) for part in (values, at_y, at_x))


# Batch index and pixels of the image; the map is 5 x 6 cells of 4 pixels.
ROIS = torch.tensor(
    [
        [0, 2.0, 3.0, 17.0, 15.0],
        [1, 0.0, 0.0, 24.0, 20.0],  # all of it
        [1, -9.0, -7.0, 11.0, 9.0],  # over the upper left corner
        [0, 15.0, 9.0, 37.0, 41.0],  # over the lower right one
        [1, 90.0, 90.0, 99.0, 97.0],  # outside
        [0, 8.0, 8.0, 8.0, 8.0],  # a point
        [1, 6.0, 10.0, 6.0, 18.0],  # a line
        [0, 10.0, 10.0, 10.5, 10.3],  # within a cell
    ],
    dtype=torch.float64,
)
NEGATIVE = torch.tensor([[0, 17.0, 3.0, 2.0, 15.0]], dtype=torch.float64)


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def run_forward(input, rois, settings, mode):
    """The operator as mmcv calls it: fills output and positions."""
    shape = (len(rois), input.shape[1], *settings.pooled)
    output, at_y, at_x = (input.new_zeros(shape) for _ in range(3))
    (height, width), *rest = settings
    operators.roi_align_forward(
        input, rois, output, at_y, at_x, height, width, *rest[:2], int(mode == "avg"), rest[2]
    )
    return output, at_y, at_x


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_roi_align_equals_the_loop(ratio, mode, aligned):
    input, settings = features(2, 2, 5, 6), RoISettings((2, 3), 0.25, ratio, aligned)
    rois = ROIS if aligned else torch.cat([ROIS, NEGATIVE])
    results = run_forward(input, rois, settings, mode)
    expected = roi_align_loop(input, rois, (2, 3), 0.25, ratio, aligned, mode)
    for result, wanted in zip(results, expected, strict=True):
        if mode == "max" or wanted is expected[0]:
            torch.testing.assert_close(result, wanted)


@pytest.mark.parametrize("pooled", [(1, 1), (2, 2)])
def test_roi_align_of_a_roi_with_more_samples_than_cells(pooled):
    input = features(1, 2, 5, 6)
    rois = torch.tensor([[0, -60.0, -50.0, 90.0, 70.0], [0, 1.0, -90.0, 4.0, 90.0]]).double()
    result, *_ = run_forward(input, rois, RoISettings(pooled, 1.0, 0, True), "avg")
    expected, *_ = roi_align_loop(input, rois, pooled, 1.0, 0, True, "avg")
    torch.testing.assert_close(result, expected)


def test_roi_align_in_chunks_equals_all_at_once(monkeypatch):
    input, settings = features(2, 3, 5, 6), RoISettings((2, 3), 0.25, 0, True)
    whole = roi_align_kernels.roi_align_average(input, ROIS, settings)
    gradient = roi_align_kernels.roi_align_average_backward(whole, ROIS, input.shape, settings)
    monkeypatch.setattr(roi_align_kernels, "BAG_ENTRIES", 1)
    torch.testing.assert_close(roi_align_kernels.roi_align_average(input, ROIS, settings), whole)
    torch.testing.assert_close(
        roi_align_kernels.roi_align_average_backward(whole, ROIS, input.shape, settings), gradient
    )


def test_roi_align_known_answers_through_mmcv(ops):
    ramp = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 1, 1]])
    # Samples at -0.375, -0.125, 0.125, 0.375 along each axis; the first two are clamped to 0.
    output = ops.roi_align(ramp, rois, (2, 2), 1.0, 2, "avg", True)
    torch.testing.assert_close(output, torch.tensor([[[[1.0, 1.25], [1.5, 1.75]]]]))
    output.sum().backward()
    torch.testing.assert_close(ramp.grad, torch.tensor([[[[3.0625, 0.4375], [0.4375, 0.0625]]]]))
    # Without the shift by half a cell samples lie at 0.125, 0.375, 0.625, 0.875.
    output = ops.roi_align(ramp, rois, (2, 2), 1.0, 2, "avg", False)
    torch.testing.assert_close(output, torch.tensor([[[[1.75, 2.25], [2.75, 3.25]]]]))
    output = ops.roi_align(ramp, rois, (2, 2), 1.0, 2, "max", True)
    torch.testing.assert_close(output, torch.tensor([[[[1.0, 1.375], [1.75, 2.125]]]]))


def test_roi_align_of_no_rois(ops):
    input = torch.randn(2, 3, 5, 6, requires_grad=True)
    for mode in ("avg", "max"):
        output = ops.roi_align(input, torch.zeros(0, 5), (7, 7), 0.25, 0, mode, True)
        assert output.shape == (0, 3, 7, 7)
        (gradient,) = torch.autograd.grad(output.sum(), input)
        assert not gradient.any()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["avg", pytest.param("max", marks=pytest.mark.slow)])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_gradient(ops, ratio, mode, aligned):
    # Non-degenerate RoIs at odd places: at a tie between samples a maximum has no gradient.
    rois = torch.cat([ROIS[:1], ROIS[2:5], ROIS[7:]]) + torch.tensor([0, 0.1, 0.2, 0.3, 0.4])
    input = features(2, 2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda maps: ops.roi_align(maps, rois, (2, 3), 0.25, ratio, mode, aligned), (input,)
    )


def test_roi_align_of_a_negative_size_is_an_error_when_aligned():
    for mode in ("avg", "max"):
        with pytest.raises(RuntimeError, match="negative"):
            run_forward(features(1, 1, 5, 6), NEGATIVE, RoISettings((2, 2), 0.25, 2, True), mode)


def test_roi_align_of_undefined_rois_is_zero_without_aligned():
    rois = torch.tensor([[0, float("nan"), 1.0, 3.0, 4.0]])
    for ratio in (0, 2):
        settings = RoISettings((2, 2), 0.25, ratio, False)
        assert not run_forward(features(1, 1, 5, 6).float(), rois, settings, "avg")[0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_in_half_precision_is_the_rounded_float32_result(ops, mode, dtype):
    input = features(2, 2, 5, 6).to(dtype).requires_grad_()
    full = input.detach().float().requires_grad_()
    arguments = ((2, 3), 0.25, 2, mode, True)
    output = ops.roi_align(input, ROIS.to(dtype), *arguments)
    expected = ops.roi_align(full, ROIS.to(dtype).float(), *arguments)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype))
    output.sum().backward()
    expected.sum().backward()
    # The position of a maximum is kept in half precision too, as mmcv does: 0.03 cells.
    torch.testing.assert_close(input.grad.float(), full.grad, rtol=0.02, atol=0.15)


# ---- Focal loss


def focal_formula(logits, target, weight, gamma, alpha):
    """-alpha_t (1 - p_t)^gamma log p_t with autograd, in a stable form."""
    sign = torch.nn.functional.one_hot(target, logits.shape[1] + 1)[:, :-1] * 2 - 1
    log_p = torch.nn.functional.logsigmoid(sign * logits)
    alpha_t = torch.where(sign > 0, alpha, 1 - alpha)
    factor = torch.cat([weight, weight.new_ones(1)])[target][:, None] if len(weight) else 1
    return -alpha_t * (1 - log_p.exp()) ** gamma * log_p * factor


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_loss_equals_the_formula(gamma, weighted):
    logits = (4 * features(12, 5)).requires_grad_()
    target = torch.arange(12) % 6  # 5 is background
    weight = torch.rand(5, dtype=torch.float64) if weighted else logits.new_empty(0)
    expected = focal_formula(logits, target, weight, gamma, 0.25)
    loss, gradient = torch.zeros_like(logits), torch.zeros_like(logits)
    with torch.no_grad():
        arguments = {"gamma": gamma, "alpha": 0.25}
        kernels.sigmoid_focal_loss(logits, target, weight, loss, **arguments)
        kernels.sigmoid_focal_loss_backward(logits, target, weight, gradient, **arguments)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), logits)[0])


def test_focal_loss_in_parts_equals_all_at_once(ops, monkeypatch):
    logits, target = features(12, 5), torch.arange(12) % 6
    whole = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "none")
    monkeypatch.setattr(kernels, "FOCAL_ELEMENTS", 15)
    torch.testing.assert_close(ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "none"), whole)


def test_focal_loss_through_mmcv(ops):
    logits, target = features(12, 5).requires_grad_(), torch.arange(12) % 6
    weight = torch.rand(5, dtype=torch.float64)
    for reduction in ("mean", "sum"):
        assert torch.autograd.gradcheck(
            lambda x, how=reduction: ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, how),
            (logits,),
        )


def test_focal_loss_of_extreme_logits_and_of_nothing(ops):
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0]), 2.0, 0.25, None, "none")
    worst = -math.log(torch.finfo(torch.float32).tiny)
    torch.testing.assert_close(loss, torch.tensor([[0.25 * worst, 0.75 * worst]]))
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()
    empty = ops.sigmoid_focal_loss(
        torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, "none"
    )
    assert empty.shape == (0, 3)


def test_focal_loss_in_half_precision_and_with_a_wrong_target(ops):
    logits, target = features(12, 5).half(), torch.arange(12) % 6
    loss = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "none")
    expected = ops.sigmoid_focal_loss(logits.float(), target, 2.0, 0.25, None, "none")
    torch.testing.assert_close(loss, expected.half())
    with pytest.raises(RuntimeError, match="target 6 of 5"):
        ops.sigmoid_focal_loss(logits, target + 1)


# ---- Installation


def test_without_compiled_operators_mmdetection_imports_after_install():
    if operators.find_backend() == "compiled":
        pytest.skip("mmcv._ext is compiled here")
    program = """
import importlib.util, sys, types
package = types.ModuleType("experiments.detection")  # its __init__ would import MMDetection
package.__path__ = ["experiments/detection"]
sys.modules[package.__name__] = package
from experiments.detection.operators import extension as operators
assert not {"mmdet", "mmcv"} & {name.split(".")[0] for name in sys.modules}, "imported too early"
assert operators.install() == operators.install() == operators.find_backend()
module = sys.modules["mmcv._ext"]
assert importlib.util.find_spec("mmcv._ext") is module.__spec__ is not None
import mmcv._ext, torch
from mmcv.utils import collect_env
from mmengine.utils.dl_utils import mmcv_full_available
assert mmcv_full_available()
assert "msdet" in collect_env()["MMCV Compiler"]
import mmdet.models
from mmdet.registry import MODELS
extractor = MODELS.build(dict(
    type="SingleRoIExtractor", out_channels=2, featmap_strides=[4, 8],
    roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0)))
maps = [torch.ones(1, 2, 32, 32), 2 * torch.ones(1, 2, 16, 16)]
out = extractor(maps, torch.tensor([[0., 8, 8, 40, 40], [0., 0, 0, 127, 127]]))
assert out.shape == (2, 2, 7, 7) and torch.allclose(out[0], torch.tensor(1.)), out
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr


def test_install_leaves_a_loaded_compiled_extension_alone(monkeypatch):
    compiled = types.ModuleType("mmcv._ext")
    monkeypatch.setitem(sys.modules, "mmcv._ext", compiled)
    assert operators.install() == operators.find_backend() == "compiled"
    assert sys.modules["mmcv._ext"] is compiled


def test_install_leaves_a_compiled_extension_on_disk_alone(monkeypatch, tmp_path):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "mmcv" / "_ext.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mmcv", "mmcv._ext"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert operators.install() == operators.find_backend() == "compiled"
    assert "mmcv._ext" not in sys.modules


def test_install_after_mmdetection_warns(monkeypatch):
    if operators.find_backend() == "compiled":
        pytest.skip("mmcv._ext is compiled here")
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    monkeypatch.setitem(sys.modules, "mmdet.structures", types.ModuleType("mmdet.structures"))
    with pytest.warns(RuntimeWarning, match="mmdet.structures"):
        operators.install()
    monkeypatch.delitem(sys.modules, "mmcv._ext")


def test_a_missing_operator_names_itself_and_the_remedy():
    module = operators.FallbackModule("mmcv._ext")
    for name in ("deform_conv_forward", "nms_rotated"):
        with pytest.raises(RuntimeError, match=f"'{name}'.*--no-build-isolation.*onedl-mmcv"):
            getattr(module, name)(1, 2, three=3)
    for name in ("__wrapped__", "__path__", "_private"):
        assert not hasattr(module, name)


# ---- torchvision


class FakeTorchvision:
    """Answers like torchvision's operators and notes what was asked."""

    def __init__(self):
        self.calls = []

    def nms(self, boxes, scores, iou_threshold):
        self.calls.append(("nms", boxes.dtype, scores.dtype, iou_threshold))
        return torch.tensor([7])

    def roi_align(self, input, rois, scale, height, width, ratio, aligned):
        self.calls.append(("roi_align", input.dtype, rois.dtype, scale, ratio, aligned))
        return input.new_full((len(rois), input.shape[1], height, width), 7)

    def _roi_align_backward(
        self, grad, rois, scale, height, width, batch, channels, rows, columns, ratio, aligned
    ):
        self.calls.append(("backward", grad.dtype, rois.dtype, scale, ratio, aligned))
        return grad.new_full((batch, channels, rows, columns), 7)


@pytest.fixture
def torchvision(monkeypatch):
    fake = FakeTorchvision()
    monkeypatch.setattr(operators, "find_torchvision_operators", lambda device_type: fake)
    return fake


def test_torchvision_is_asked_where_it_is_equal(torchvision):
    boxes, scores = random_boxes(3)
    assert operators.nms(boxes.half(), scores.half(), 0.6, 0).tolist() == [7]
    threshold = torch.tensor(0.6, dtype=torch.float32).item()
    assert torchvision.calls == [("nms", torch.float32, torch.float32, threshold)]
    torchvision.calls.clear()
    input, settings = features(2, 2, 5, 6).half(), RoISettings((2, 3), 0.25, 0, True)
    output, at_y, at_x = run_forward(input, ROIS, settings, "avg")
    assert (output == 7).all()
    gradient = torch.zeros_like(input)
    operators.roi_align_backward(output, ROIS, at_y, at_x, gradient, 2, 3, 0.25, 0, 1, True)
    assert (gradient == 7).all()
    half = (torch.float32, torch.float32, 0.25, 0, True)
    assert torchvision.calls == [("roi_align", *half), ("backward", *half)]


def test_deterministic_algorithms_have_a_gradient_that_torchvision_lacks(torchvision):
    input, settings = features(2, 2, 5, 6), RoISettings((2, 3), 0.25, 2, True)
    output, at_y, at_x = run_forward(input, ROIS, settings, "avg")
    gradient = torch.zeros_like(input)
    torch.use_deterministic_algorithms(True)
    try:
        operators.roi_align_backward(output, ROIS, at_y, at_x, gradient, 2, 3, 0.25, 2, 1, True)
    finally:
        torch.use_deterministic_algorithms(False)
    expected = roi_align_kernels.roi_align_average_backward(output, ROIS, input.shape, settings)
    assert torch.equal(gradient, expected)
    assert [call[0] for call in torchvision.calls] == ["roi_align"]


def test_torchvision_is_not_asked_for_what_it_lacks(torchvision):
    boxes, scores = random_boxes(50)
    assert operators.nms(boxes, scores, 0.5, 1).tolist() == nms_loop(boxes, scores, 0.5, 1)
    input, settings = features(2, 2, 5, 6), RoISettings((2, 3), 0.25, 2, True)
    output, at_y, at_x = run_forward(input, ROIS, settings, "max")
    torch.testing.assert_close(output, roi_align_kernels.roi_align_max(input, ROIS, settings)[0])
    gradient = torch.zeros_like(input)
    operators.roi_align_backward(output, ROIS, at_y, at_x, gradient, 2, 3, 0.25, 2, 0, True)
    assert torchvision.calls == []
    with pytest.raises(RuntimeError, match="negative"):
        run_forward(input, NEGATIVE, settings, "avg")


@pytest.mark.parametrize(
    "body",
    [
        "raise ImportError('no such package')",
        "raise RuntimeError('operator torchvision::nms does not exist')",
        "raise AttributeError('partially initialized module')",
        "raise OSError('libcudart.so: cannot open shared object file')",
        "",  # imports, but registers nothing
    ],
)
def test_a_torchvision_that_does_not_work_is_passed_over(monkeypatch, tmp_path, body):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(body)
    (tmp_path / "torchvision" / "ops.py").write_text("")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.ops, "torchvision", types.SimpleNamespace(), raising=False)
    assert operators.find_torchvision_operators.__wrapped__("cpu") is None
    for name in ("torchvision", "torchvision.ops"):
        sys.modules.pop(name, None)


def test_real_torchvision_equals_plain_pytorch():
    if operators.find_torchvision_operators("cpu") is None:
        pytest.skip("no torchvision whose operators work with this torch")
    boxes, scores = random_boxes(500)
    for threshold in (0.3, 0.6):
        assert torch.equal(
            operators.nms(boxes, scores, threshold, 0), kernels.nms(boxes, scores, threshold, 0)
        )
    input = features(2, 2, 5, 6)
    for ratio, aligned in itertools.product((0, 1, 2), (True, False)):
        settings = RoISettings((2, 3), 0.25, ratio, aligned)
        output, at_y, at_x = run_forward(input, ROIS, settings, "avg")
        torch.testing.assert_close(output, roi_align_kernels.roi_align_average(input, ROIS, settings))
        gradient = torch.zeros_like(input)
        operators.roi_align_backward(output, ROIS, at_y, at_x, gradient, 2, 3, 0.25, ratio, 1, aligned)
        expected = roi_align_kernels.roi_align_average_backward(output, ROIS, input.shape, settings)
        torch.testing.assert_close(gradient, expected)
