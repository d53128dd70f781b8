"""The time of single calls: of a weighting rule, and of the operators in place of mmcv's compiled ones."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from benchmarks.ratios import measure_seconds
from experiments.detection.operators import kernels
from experiments.detection.operators import roi_align as roi_align_kernels
from experiments.detection.operators.extension import find_torchvision_operators
from experiments.detection.operators.roi_align import RoISettings
from experiments.weighting import build_weighting

SEED = 0
IOU_THRESHOLD = 0.5
REPEATS = 20  # timed calls of each operator
STEPS, STEP_REPEATS = 2000, 15  # calls of a rule that are timed together, and how often


def measure_rules() -> dict[str, Any]:
    """Return microseconds of `observe`, on the CPU and on a GPU where there is one.

    Medians over repeats of the mean over steps. `inside` never ends an interval; `alpha 100` has one end in every
    hundred calls.
    """
    found: dict[str, Any] = {}
    intervals = {"inside us": 2 * STEPS * (STEP_REPEATS + 1), "alpha 100 us": 100}
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        losses = itertools.cycle([torch.rand(5, device=device) for _ in range(100)])
        for rule in ("uniform", "avw", "rlo"):
            figures = found[f"{rule} on {device}"] = {}
            for name, alpha in intervals.items():
                built = build_weighting(rule, num_levels=5, alpha=alpha)
                timer = Timer("rule.observe(next(losses))", globals={"rule": built, "losses": losses})
                means = [timer.timeit(STEPS).median for _ in range(STEP_REPEATS + 1)]
                figures[name] = 1e6 * statistics.median(means[1:])  # the first one warms up
    return found


def measure_operators() -> dict[str, Any]:
    """Time NMS and RoIAlign in plain PyTorch, and in torchvision where it works, on one CPU thread.

    The boxes resemble a detector's candidates on a 1333 x 800 image, all of one class: the worst case, as few cover
    each other. The RoIs are read from a map of stride 8 with 256 channels.

    Returns:
        `{"threads": 1, "repeats": ..., "torch": version, "pytorch": {case: times}}` and, with a
        working torchvision, the same cases under "torchvision"; times are `median_ms`, `min_ms`
        and `max_ms`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        report = {"threads": 1, "repeats": REPEATS, "torch": torch.__version__}
        for library, cases in _cases().items():
            report[library] = {name: _time(case) for name, case in cases.items()}
    finally:
        torch.set_num_threads(threads)
    return report


def _time(case: Callable[[], object]) -> dict[str, float]:
    times_ms = [1000 * measure_seconds(case) for _ in range(REPEATS + 1)][1:]  # the first one warms up
    summary = {"median_ms": statistics.median(times_ms), "min_ms": min(times_ms), "max_ms": max(times_ms)}
    return {name: round(value, 3) for name, value in summary.items()}


def _boxes(count: int) -> tuple[Tensor, Tensor]:
    """Return `count` boxes on a 1333 x 800 image, sides around 55 pixels, with their scores."""
    generator = torch.Generator().manual_seed(SEED)
    image = torch.tensor([1333.0, 800.0])
    centre = torch.rand(count, 2, generator=generator) * image
    half = (0.8 * torch.randn(count, 2, generator=generator) + 4).exp() / 2
    boxes = torch.cat([(centre - half).clamp(min=0), (centre + half).minimum(image)], 1)
    return boxes, torch.rand(count, generator=generator)


def _cases() -> dict[str, dict[str, Callable[[], object]]]:
    """Return the calls to be timed by library; 512 RoIs on the 800 x 800 pixels of a map of 100 x 100 cells."""
    few, many = _boxes(1_000), _boxes(10_000)
    features = torch.randn(1, 256, 100, 100, generator=torch.Generator().manual_seed(SEED))
    rois = torch.nn.functional.pad(_boxes(512)[0].clamp(max=800), (1, 0))
    bins = torch.ones(512, 256, 7, 7)
    settings = RoISettings((7, 7), spatial_scale=1 / 8, sampling_ratio=0, aligned=True)
    cases: dict[str, dict[str, Callable[[], object]]] = {
        "pytorch": {
            "nms_1000_boxes": lambda: kernels.nms(*few, IOU_THRESHOLD, 0),
            "nms_10000_boxes": lambda: kernels.nms(*many, IOU_THRESHOLD, 0),
            "roi_align_512_rois": lambda: roi_align_kernels.roi_align_average(features, rois, settings),
            "roi_align_512_rois_backward": lambda: roi_align_kernels.roi_align_average_backward(
                bins, rois, features.shape, settings
            ),
        }
    }
    library = find_torchvision_operators("cpu")
    if library is not None:
        cases["torchvision"] = {
            "nms_1000_boxes": lambda: library.nms(*few, IOU_THRESHOLD),
            "nms_10000_boxes": lambda: library.nms(*many, IOU_THRESHOLD),
            "roi_align_512_rois": lambda: library.roi_align(features, rois, 1 / 8, 7, 7, 0, True),
            "roi_align_512_rois_backward": lambda: library._roi_align_backward(
                bins, rois, 1 / 8, 7, 7, *features.shape, 0, True
            ),
        }
    return cases
