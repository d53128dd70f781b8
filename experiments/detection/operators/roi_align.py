"""RoIAlign in plain PyTorch, as mmcv's compiled operator computes it, for any device and floating type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from experiments.detection.operators.kernels import promote_to_float32

BAG_ENTRIES = 2**20  # (pixel, weight) pairs held at once, about 30 MB


class RoISettings(NamedTuple):
    """How RoIs are sampled; see `mmcv.ops.RoIAlign`."""

    pooled: tuple[int, int]  # bins per RoI: rows, columns
    spatial_scale: float  # cells of the feature map per pixel of the image
    sampling_ratio: int  # samples per bin and axis; 0: one per started cell of the bin
    aligned: bool  # shift by half a cell; if not, RoIs are at least one cell large


def roi_align_average(input: Tensor, rois: Tensor, settings: RoISettings) -> Tensor:
    """Return RoIAlign (He et al. 2017, arXiv:1703.06870), the samples of a bin averaged.

    A bin's value is a weighted sum of pixels, over which all channels agree: with one row of
    channels per pixel, that is what `embedding_bag` computes, without a copy per sample.

    Args:
        input: (B, C, H, W) features.
        rois: (R, 5) as batch index, x1, y1, x2, y2 in pixels of the image.
        settings: bins and sampling.

    Returns:
        (R, C, rows, columns), in float32 or `input`'s wider type.

    Raises:
        RuntimeError: a RoI of negative size, with `aligned`, on the CPU.
    """
    table = _pixel_rows(promote_to_float32(input))
    output = table.new_zeros(len(rois), input.shape[1], *settings.pooled)
    for chosen, pixel, weight in _bags(rois, table.dtype, input.shape, settings):
        bins = embedding_bag(pixel, table, per_sample_weights=weight, mode="sum")
        output[chosen] = bins.view(len(chosen), *settings.pooled, -1).permute(0, 3, 1, 2)
    return output


def roi_align_average_backward(
    grad_output: Tensor, rois: Tensor, shape: torch.Size, settings: RoISettings
) -> Tensor:
    """Return the gradient of `roi_align_average` with respect to an input of `shape` (B, C, H, W).

    The transposed sum: sorted by pixel, each pixel is a bag of bins. No atomic additions, so the
    result is the same every time.
    """
    batch, channels, height, width = shape
    grad_output = promote_to_float32(grad_output)
    table = grad_output.new_zeros(batch * height * width, channels)
    for chosen, pixel, weight in _bags(rois, table.dtype, shape, settings):
        pixels, order = pixel.flatten().sort(stable=True)
        touched, times = pixels.unique_consecutive(return_counts=True)
        table[touched] += embedding_bag(
            order // pixel.shape[1],
            _pixel_rows(grad_output[chosen]),
            times.cumsum(0) - times,
            per_sample_weights=weight.flatten()[order],
            mode="sum",
        )
    return table.view(batch, height, width, channels).permute(0, 3, 1, 2)


def roi_align_max(input: Tensor, rois: Tensor, settings: RoISettings) -> tuple[Tensor, Tensor, Tensor]:
    """RoIAlign that keeps the largest sample of a bin; arguments as in `roi_align_average`.

    Returns:
        Values, and y and x of the sample they come from in cells of the feature map, each
        (R, C, rows, columns). A bin without samples has mmcv's initial values: -1 for y and x, and
        -10,000 (CPU) or the least float32 (CUDA), which no smaller sample replaces either.
    """
    table = _pixel_rows(promote_to_float32(input))
    shape = (len(rois), input.shape[1], *settings.pooled)
    least = torch.finfo(torch.float32).min if input.is_cuda else -10_000
    values, at_y, at_x = (table.new_full(shape, fill) for fill in (least, -1, -1))
    for chosen, y, x in _sample_positions(rois, table.dtype, settings):
        best, best_y, best_x = (part[chosen] for part in (values, at_y, at_x))
        # One pass per sample of the bin: first come first kept among equals, and little memory.
        for sample_y in y.unbind(-1):
            for sample_x in x.unbind(-1):
                pixel, weight = _corners(
                    rois[chosen, 0].long(), sample_y[..., None], sample_x[..., None], input.shape
                )
                value = embedding_bag(pixel, table, per_sample_weights=weight, mode="sum")
                value = value.view(len(chosen), *settings.pooled, -1).permute(0, 3, 1, 2)
                better = value > best
                best = torch.where(better, value, best)
                best_y = torch.where(better, sample_y[:, None, :, None], best_y)
                best_x = torch.where(better, sample_x[:, None, None, :], best_x)
        values[chosen], at_y[chosen], at_x[chosen] = best, best_y, best_x
    return values, at_y, at_x


def roi_align_max_backward(
    grad_output: Tensor, rois: Tensor, at_y: Tensor, at_x: Tensor, shape: torch.Size
) -> Tensor:
    """Gradient of `roi_align_max` with respect to an input of `shape` (B, C, H, W)."""
    batch, channels, height, width = shape
    grad_output = promote_to_float32(grad_output)
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    y, wy = _neighbours(at_y[..., None].to(grad_output), height)
    x, wx = _neighbours(at_x[..., None].to(grad_output), width)
    # y = -1 is how an empty bin is marked; a true sample there loses its gradient, as in mmcv.
    grad = torch.where(at_y == -1, 0, grad_output)[..., None, None]
    line = plane[:, :, None, None, None, None] * height + y[..., :, None]
    pixel = line * width + x[..., None, :]
    flat = grad_output.new_zeros(batch * channels * height * width)
    flat.scatter_add_(0, pixel.flatten(), (grad * wy[..., :, None] * wx[..., None, :]).flatten())
    return flat.view(shape)


def _pixel_rows(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B * H * W, C): the channels of a pixel side by side."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _sample_positions(
    rois: Tensor, dtype: torch.dtype, settings: RoISettings
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Group RoIs by samples per bin: yields RoIs (n,), y (n, rows, sy) and x (n, columns, sx).

    Positions are in cells of the feature map. RoIs whose bins have no samples are left out.
    """
    start, size = compute_extent(rois, dtype, settings)
    bins = size / size.new_tensor(settings.pooled)
    if settings.sampling_ratio > 0:
        samples = torch.full_like(bins, settings.sampling_ratio, dtype=torch.long)
    else:
        samples = bins.float().ceil().nan_to_num(nan=0).clamp(min=0).long()
    groups, member = samples.unique(dim=0, return_inverse=True)
    for group, (sy, sx) in enumerate(groups.tolist()):
        if sy > 0 and sx > 0:
            chosen = (member == group).nonzero()[:, 0]
            y, x = (
                _axis_positions(start[chosen, k], bins[chosen, k], settings.pooled[k], (sy, sx)[k])
                for k in (0, 1)
            )
            yield chosen, y, x


def compute_extent(rois: Tensor, dtype: torch.dtype, settings: RoISettings) -> tuple[Tensor, Tensor]:
    """Start and size of RoIs in cells of the feature map, both (R, 2) as y, x.

    Raises:
        RuntimeError: a RoI of negative size, with `aligned`, on the CPU; CUDA goes unchecked, as in
            mmcv, for the sake of speed.
    """
    corners = rois[:, 1:].to(dtype) * settings.spatial_scale - (0.5 if settings.aligned else 0.0)
    start = corners[:, [1, 0]]
    size = corners[:, [3, 2]] - start
    if not settings.aligned:
        return start, size.clamp(min=1)
    if rois.device.type == "cpu" and not (size >= 0).all():
        raise RuntimeError("RoIAlign with aligned=True: a RoI has negative or undefined size")
    return start, size


def _axis_positions(start: Tensor, size: Tensor, bins: int, samples: int) -> Tensor:
    """Start and bin size, (n,) each -> positions along one axis, (n, bins, samples)."""
    start, size = start[:, None, None], size[:, None, None]
    bin_index = torch.arange(bins, device=start.device)[:, None]
    sample_index = torch.arange(samples, device=start.device)
    return start + bin_index * size + (sample_index + 0.5) * size / samples


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Positions (..., s) along an axis -> indices and linear weights of both cells, (..., 2 s).

    Weights are 0 beyond one cell outside the map; nearer, the edge cell counts in full.
    """
    inside = (position >= -1) & (position <= size)
    position = torch.where(inside, position, 0).clamp(0, size - 1)
    low = position.floor()
    high = (low + 1).clamp(max=size - 1)
    fraction = position - low
    weight = torch.cat([(1 - fraction) * inside, fraction * inside], -1)
    return torch.cat([low, high], -1).long(), weight


def _corners(batch: Tensor, y: Tensor, x: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Batch index (n,), y (n, rows, sy), x (n, columns, sx) -> bags of pixels and their weights.

    Both (n * rows * columns, entries); a pixel is a row of `_pixel_rows` of a map of `shape`.
    """
    height, width = shape[2:]
    y, wy = _merge(*_neighbours(y, height), height)
    x, wx = _merge(*_neighbours(x, width), width)
    line = batch[:, None, None] * height + y
    pixel = line[:, :, None, :, None] * width + x[:, None, :, None, :]
    weight = wy[:, :, None, :, None] * wx[:, None, :, None, :]
    entries = y.shape[2] * x.shape[2]
    return pixel.reshape(-1, entries), weight.reshape(-1, entries)


def _merge(index: Tensor, weight: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """List each cell once where a bin has more entries than the axis has cells.

    So a bin never has more entries than the map has pixels, however large the RoI.
    """
    if index.shape[2] <= size:
        return index, weight
    merged = weight.new_zeros(*weight.shape[:2], size).scatter_add_(2, index, weight)
    return torch.arange(size, device=index.device).expand_as(merged), merged


def _bags(
    rois: Tensor, dtype: torch.dtype, shape: torch.Size, settings: RoISettings
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield RoIs (n,), and for their bins pixels and weights of the average, in bounded chunks."""
    height, width = shape[2:]
    for chosen, y, x in _sample_positions(rois, dtype, settings):
        samples = y.shape[2] * x.shape[2]
        entries = min(2 * y.shape[2], height) * min(2 * x.shape[2], width)
        chunk = max(1, BAG_ENTRIES // (settings.pooled[0] * settings.pooled[1] * entries))
        for part, part_y, part_x in zip(chosen.split(chunk), y.split(chunk), x.split(chunk), strict=True):
            pixel, weight = _corners(rois[part, 0].long(), part_y, part_x, shape)
            yield part, pixel, weight / samples
