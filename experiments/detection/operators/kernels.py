"""Operators of mmcv's compiled extension in plain PyTorch, for CPU and CUDA tensors alike.

The reference is the C++ and CUDA source that onedl-mmcv ships in ``mmcv/ops/csrc``. Half-precision
inputs are computed in float32. `experiments.detection.operators` says when these are used.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

NMS_BLOCK = 256  # boxes whose overlaps are held at once: a block x N matrix, 20 MB at N = 20,000
FOCAL_ELEMENTS = 2**22  # logits of the focal loss treated at once, 16 MB per temporary


def promote_to_float32(tensor: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32; wider types stay."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the boxes that greedy non-maximum suppression keeps (Girshick et al. 2014; ``csrc/pytorch/cpu/nms.cpp``).

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,). Among equal scores the lower index goes first; mmcv leaves that order open.
        iou_threshold: a box goes if its IoU with a kept, better one is greater than this.
        offset: 0 or 1, added to widths and heights (1: coordinates are whole, inclusive pixels).

    Returns:
        (M,) int64 indices of the kept boxes, best first.
    """
    order = scores.sort(stable=True, dim=0, descending=True).indices
    boxes = promote_to_float32(boxes)
    kept = []
    while len(order):
        block, order = order[:NMS_BLOCK], order[NMS_BLOCK:]
        overlapping = _overlapping(boxes[block], boxes[block], iou_threshold, offset)
        block = block[_greedy(overlapping)]
        kept.append(block)
        if len(order):
            # Boxes that a kept one covers leave at once: each later block compares fewer.
            overlapping = _overlapping(boxes[block], boxes[order], iou_threshold, offset)
            # As bytes, because `any` over the first dimension is ten times slower on a CPU.
            order = order[~overlapping.view(torch.uint8).amax(0).bool()]
    return torch.cat(kept) if kept else order


def _overlapping(first: Tensor, second: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return for (n, 4) and (m, 4) boxes whether their IoU is greater than the threshold, (n, m) bool."""
    x1, y1, x2, y2 = first.t()[:, :, None]
    u1, v1, u2, v2 = second.t()[:, None, :]
    inter = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).add_(offset).clamp_(min=0)
    inter *= (torch.minimum(y2, v2) - torch.maximum(y1, v1)).add_(offset).clamp_(min=0)
    union = (x2 - x1 + offset) * (y2 - y1 + offset) + (u2 - u1 + offset) * (v2 - v1 + offset)
    union -= inter
    # Each form is the one that mmcv compiles for the device: they round differently at the
    # threshold, and differ for boxes of negative area. 0 / 0, two empty boxes, is never greater.
    if first.is_cuda:
        return inter > union.mul_(iou_threshold)
    return inter.div_(union) > iou_threshold


def _greedy(overlapping: Tensor) -> np.ndarray:
    """Return the positions that no kept, better box overlaps, from (n, n) bool with the best box first."""
    matrix = overlapping.cpu().numpy()
    alive = np.ones(len(matrix), dtype=bool)
    for i in range(len(matrix)):
        if alive[i]:
            alive[i + 1 :] &= ~matrix[i, i + 1 :]
    return np.flatnonzero(alive)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Decay scores by Soft-NMS (Bodla et al. 2017, arXiv:1704.04503; ``csrc/pytorch/cpu/nms.cpp``), on the CPU.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        dets: (N, 5), filled in place: rows 0..M-1 become box and decayed score, best first.
        iou_threshold: methods 0 and 1 decay a score where the IoU is at least this.
        sigma: of method 2.
        min_score: a box whose decayed score is less than this is dropped.
        method: 0 sets to zero, 1 multiplies by 1 - IoU, 2 by exp(-IoU^2 / sigma).
        offset: 0 or 1, added to widths and heights.

    Returns:
        (M,) int64 indices of the boxes in the rows of `dets`.
    """
    x1, y1, x2, y2 = promote_to_float32(boxes).t()
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    table = torch.stack([x1, y1, x2, y2, promote_to_float32(scores), area]).numpy()
    index, count, i = np.arange(len(boxes)), len(boxes), 0
    while i < count:
        rest = table[4, i:count]
        # An undefined score (0 / 0 overlap in method 2) never wins and, once first, never loses.
        best = i if np.isnan(rest[0]) else i + int(np.nanargmax(rest))
        table[:, [i, best]] = table[:, [best, i]]
        index[[i, best]] = index[[best, i]]
        table[4, i + 1 : count] *= _decay(table, i, count, iou_threshold, sigma, method, offset)
        count = _drop(table, index, i + 1, count, min_score)
        i += 1
    dets[:count] = torch.from_numpy(table[:5, :count].T.copy()).to(dets)
    return torch.from_numpy(index[:count])


def _decay(
    table: np.ndarray, i: int, count: int, iou_threshold: float, sigma: float, method: int, offset: int
) -> np.ndarray:
    """Return factors for the scores in columns i + 1 .. count - 1, from their IoU with column i."""
    x1, y1, x2, y2, _, area = table[:, i + 1 : count]
    u1, v1, u2, v2, _, own_area = table[:, i]
    inter = np.maximum(np.minimum(x2, u2) - np.maximum(x1, u1) + offset, 0)
    inter *= np.maximum(np.minimum(y2, v2) - np.maximum(y1, v1) + offset, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = inter / (own_area + area - inter)
    if method == 2:
        return np.exp(-(iou * iou) / sigma)
    return np.where(iou >= iou_threshold, 1 - iou if method == 1 else 0, 1)


def _drop(table: np.ndarray, index: np.ndarray, first: int, count: int, min_score: float) -> int:
    """Close the gaps of boxes under `min_score` with boxes from the end; return how many stay.

    The order left behind decides ties later, so it is mmcv's: first gap, last box.
    """
    dropped = table[4, first:count] < min_score
    left = count - int(dropped.sum())
    gaps = first + np.flatnonzero(dropped[: left - first])
    movers = (left + np.flatnonzero(~dropped[left - first :]))[::-1]
    table[:, gaps] = table[:, movers]
    index[gaps] = index[movers]
    return left


def sigmoid_focal_loss(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the focal loss per logit (Lin et al. 2017, arXiv:1708.02002, eq. 5) to `output`.

    Args:
        input: (N, classes) logits.
        target: (N,) int64 class; `classes` is background.
        weight: (classes,) factor by the row's class (background: 1), or empty.
        output: (N, classes), overwritten.
        gamma: focusing exponent.
        alpha: weight of the positives; negatives have 1 - alpha.

    Raises:
        RuntimeError: a target beyond `classes`.
    """
    if target.numel() and int(target.max()) > input.shape[1]:
        raise RuntimeError(f"focal loss: target {int(target.max())} of {input.shape[1]} classes")
    for p, positive, factor, part in _focal_parts(input, target, weight, output):
        loss_positive = -alpha * (1 - p) ** gamma * _log(p)
        loss_negative = (alpha - 1) * p**gamma * _log(1 - p)
        part.copy_(torch.where(positive, loss_positive, loss_negative) * factor)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of `sigmoid_focal_loss` by the logits to `grad_input` (N, classes)."""
    for p, positive, factor, part in _focal_parts(input, target, weight, grad_input):
        grad_positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * _log(p))
        grad_negative = (alpha - 1) * p**gamma * (gamma * (1 - p) * _log(1 - p) - p)
        part.copy_(torch.where(positive, grad_positive, grad_negative) * factor)


def _log(p: Tensor) -> Tensor:
    """Return the logarithm, finite at 0: at most 87.3 below zero, as in mmcv."""
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()


def _focal_parts(
    input: Tensor, target: Tensor, weight: Tensor, result: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor | float, Tensor]]:
    """Yield, some rows at a time: probability, is positive, factor, and the view to fill."""
    classes = input.shape[1]
    rows = max(1, FOCAL_ELEMENTS // max(1, classes))
    if weight.numel():
        # mmcv reads past the end of `weight` for background; here it weighs 1.
        weight = torch.cat([promote_to_float32(weight), weight.new_ones(1)])
    for x, t, part in zip(input.split(rows), target.split(rows), result.split(rows), strict=True):
        p = 1 / (1 + promote_to_float32(-x).exp())
        positive = t[:, None] == torch.arange(classes, device=t.device)
        factor = weight[t][:, None] if weight.numel() else 1.0
        yield p, positive, factor, part
