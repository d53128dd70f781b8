"""AugFPN's neck and soft RoI selection against MMDetection's FPN and hand-written computations."""

import math

import pytest
import torch
import torch.nn.functional as F

from experiments import detection  # noqa: F401  (operators come before MMDetection)

from mmcv.ops import roi_align  # isort: skip
from mmdet.models.necks import FPN  # isort: skip
from experiments.detection.models.augfpn import (  # isort: skip
    AugFPN,
    ResidualFeatureAugmentation,
    SoftRoIExtractor,
)

CHANNELS = [4, 6, 8, 10]
FORMS = {
    "RetinaNet": dict(start_level=1, add_extra_convs="on_input", num_outs=5),
    "Faster R-CNN": dict(num_outs=5),
}
SIZES = {  # of the backbone's maps, finest first
    "even": [(32, 40), (16, 20), (8, 10), (4, 5)],
    "odd": [(75, 51), (38, 26), (19, 13), (10, 7)],
    "top of one place": [(7, 5), (4, 3), (2, 2), (1, 1)],
}


def maps(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, c, *hw, generator=generator) for c, hw in zip(CHANNELS, SIZES[size])]


def neck(form, **options):
    torch.manual_seed(0)
    return AugFPN(CHANNELS, 6, **FORMS[form], **options)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_without_augmentation_it_is_fpn(form, size):
    ours, fpn = neck(form), FPN(CHANNELS, 6, **FORMS[form])
    missing, unexpected = ours.load_state_dict(fpn.state_dict(), strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"augmentation"}
    inputs = maps(size)
    expected = fpn(inputs)
    augmented = ours(inputs)
    assert [x.shape for x in augmented] == [x.shape for x in expected]
    assert not torch.allclose(augmented[0], expected[0], atol=1e-3)
    for conv in ours.augmentation.reduce:
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    for one, other in zip(ours(inputs), expected, strict=True):
        torch.testing.assert_close(one, other)


def adaptive_pool(x, height, width):
    """Each place of the small map is the mean over the places of the large one that it touches."""
    out = torch.empty(*x.shape[:2], height, width)
    for i in range(height):
        for j in range(width):
            rows = slice(i * x.shape[2] // height, math.ceil((i + 1) * x.shape[2] / height))
            columns = slice(j * x.shape[3] // width, math.ceil((j + 1) * x.shape[3] / width))
            out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def enlarged(x, height, width):
    """Bilinear, corners on corners."""
    out = torch.empty(*x.shape[:2], height, width)
    for i in range(height):
        for j in range(width):
            y = i * (x.shape[2] - 1) / max(height - 1, 1)
            z = j * (x.shape[3] - 1) / max(width - 1, 1)
            top, left = int(y), int(z)
            bottom, right = min(top + 1, x.shape[2] - 1), min(left + 1, x.shape[3] - 1)
            upper = x[:, :, top, left] * (1 - z + left) + x[:, :, top, right] * (z - left)
            lower = x[:, :, bottom, left] * (1 - z + left) + x[:, :, bottom, right] * (z - left)
            out[:, :, i, j] = upper * (1 - y + top) + lower * (y - top)
    return out


@pytest.mark.parametrize(
    ("size", "pooled"),
    [((7, 11), [(1, 1), (1, 2), (2, 3)]), ((25, 42), [(2, 4), (5, 8), (7, 12)]), ((1, 3), [(1, 1)] * 3)],
)
def test_residual_feature_augmentation_by_hand(size, pooled):
    torch.manual_seed(1)
    module = ResidualFeatureAugmentation(8, 6, (0.1, 0.2, 0.3))
    top = torch.randn(2, 8, *size)
    contexts = []
    for conv, small in zip(module.reduce, pooled, strict=True):
        assert conv.weight.shape == (6, 8, 1, 1) and conv.bias is not None
        reduced = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], adaptive_pool(top, *small))
        contexts.append(enlarged(reduced + conv.bias[:, None, None], *size))
    first, _, second = module.fuse
    assert first.weight.shape == (6, 18, 1, 1) and second.weight.shape == (3, 6, 3, 3)
    hidden = F.relu(F.conv2d(torch.cat(contexts, 1), first.weight, first.bias))
    shares = 1 / (1 + torch.exp(-F.conv2d(hidden, second.weight, second.bias, padding=1)))
    by_hand = sum(shares[:, j : j + 1] * context for j, context in enumerate(contexts))
    torch.testing.assert_close(module(top), by_hand, rtol=1e-4, atol=1e-5)


def test_where_the_context_goes_in_retinanets_form():
    ours = neck("RetinaNet")
    inputs = maps("odd")
    top = inputs[-1]
    context = ours.augmentation(top)
    m3, m4, m5 = (conv(x) for conv, x in zip(ours.lateral_convs, inputs[1:]))
    m5 = m5 + context
    m4 = m4 + F.interpolate(m5, (19, 13))
    m3 = m3 + F.interpolate(m4, (38, 26))
    p6 = ours.fpn_convs[3](top) + context.mean((2, 3))[:, :, None, None]
    expected = [*(conv(m) for conv, m in zip(ours.fpn_convs, (m3, m4, m5))), p6, ours.fpn_convs[4](p6)]
    assert (p6 < 0).any()  # or a ReLU before P7 would go unseen
    for one, other in zip(ours(inputs), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_of_the_neck_learns(form):
    ours = neck(form)
    sum(x.square().sum() for x in ours(maps("even"))).backward()
    assert [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("options", "named"),
    [(dict(add_extra_convs="on_output"), "on_output"), (dict(ratios=[0.1, 1.5]), "1.5"), (dict(ratios=[]), "ratios")],
)  # fmt: skip
def test_options_that_are_not_allowed(options, named):
    with pytest.raises(ValueError, match=named):
        AugFPN(CHANNELS, 6, num_outs=6, **options)


STRIDES = [4, 8, 16, 32]


def soft_extractor():
    torch.manual_seed(2)
    layer = dict(type="RoIAlign", output_size=7, sampling_ratio=2)
    return SoftRoIExtractor(layer, out_channels=5, featmap_strides=STRIDES)


def test_soft_roi_selection_by_hand():
    extractor = soft_extractor()
    generator = torch.Generator().manual_seed(0)
    feats = [torch.randn(2, 5, 64 // s * 2, 64 // s * 3, generator=generator) for s in STRIDES]
    rois = torch.tensor([[0, 3.0, 5.0, 40.0, 33.0], [1, 0.0, 0.0, 190.0, 120.0], [1, 50.0, 60.0, 58.0, 66.0]])
    pooled = [roi_align(x, rois, 7, 1 / s, 2, "avg", True) for x, s in zip(feats, STRIDES)]
    first, _, second = extractor.selection
    assert first.weight.shape == (5, 20, 1, 1) and second.weight.shape == (4, 5, 3, 3)
    expected = torch.zeros(3, 5, 7, 7)
    for n in range(3):
        together = torch.cat([x[n] for x in pooled])
        hidden = torch.einsum("oi,ihw->ohw", first.weight[:, :, 0, 0], together) + first.bias[:, None, None]
        hidden = F.pad(hidden.clamp(min=0), (1, 1, 1, 1))
        for y in range(7):
            for x in range(7):
                around = hidden[:, y : y + 3, x : x + 3]
                for level in range(4):
                    logit = (second.weight[level] * around).sum() + second.bias[level]
                    expected[n, :, y, x] += pooled[level][n, :, y, x] / (1 + torch.exp(-logit))
    result = extractor(feats, rois)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    result.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in extractor.parameters())


def test_soft_roi_selection_of_nothing_and_without_levels():
    extractor = soft_extractor()
    feats = [torch.randn(1, 5, 8, 8) for _ in STRIDES]
    result = extractor(feats, torch.zeros(0, 5))
    assert result.shape == (0, 5, 7, 7)
    result.sum().backward()  # on several GPUs every rank must have a gradient, be it zero
    assert all(p.grad is not None for p in extractor.parameters())
    assert not hasattr(extractor, "map_roi_levels")  # what makes `where: roi` an error
