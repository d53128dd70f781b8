"""The compiled operators of mmcv, where onedl-mmcv was installed without them.

``pip install onedl-mmcv`` yields pure Python: importing ``mmcv.ops``, and with it MMDetection,
fails for want of ``mmcv._ext``. Call `install` before MMDetection is imported, and the operators
that this project's detectors need are there, from torchvision if it works, else in plain PyTorch.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from experiments.detection.operators import kernels
from experiments.detection.operators import roi_align as roi_align_kernels
from experiments.detection.operators.kernels import promote_to_float32
from experiments.detection.operators.roi_align import RoISettings

EXTENSION = "mmcv._ext"
OUTSIDE = 1e6  # pixels: no image is there


def install() -> str:
    """Provide ``mmcv._ext`` unless a compiled one exists; again and again is harmless.

    Returns:
        'compiled' (nothing was done), 'torchvision' or 'pytorch', see `find_backend`.

    Warns:
        RuntimeWarning: parts of MMDetection that were imported before go without operators.
    """
    if _is_compiled():
        return "compiled"
    if EXTENSION not in sys.modules:
        # These import mmcv.ops under `except ImportError`, and would keep a None.
        early = [name for name in ("mmdet.structures", "mmdet.models") if name in sys.modules]
        if early:
            warnings.warn(
                f"{' and '.join(early)} was imported before operators.install(): the operators "
                "it looked for stay missing there. Call install() first.",
                RuntimeWarning,
                stacklevel=2,
            )
        module = FallbackModule(EXTENSION, "Operators of experiments.detection.operators.")
        # mmcv and mmengine look for a spec with a loader.
        module.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, importlib.abc.Loader(), origin=__file__)
        vars(module).update(OPERATORS)
        sys.modules[EXTENSION] = module
    return find_backend()


def find_backend(device_type: str = "cpu") -> str:
    """Return where operators come from on a kind of device, installed or not; import no mmcv.

    Returns:
        'compiled' (mmcv's own), 'torchvision' (NMS and averaging RoIAlign; the rest is plain
        PyTorch) or 'pytorch'.
    """
    if _is_compiled():
        return "compiled"
    return "pytorch" if find_torchvision_operators(device_type) is None else "torchvision"


def _is_compiled() -> bool:
    if EXTENSION in sys.modules:
        return not isinstance(sys.modules[EXTENSION], FallbackModule)
    # Asking for the sub-module directly would import all of mmcv, OpenCV included.
    package = importlib.util.find_spec("mmcv")
    if package is None:
        return False
    finder = importlib.machinery.PathFinder
    return finder.find_spec(EXTENSION, package.submodule_search_locations) is not None


@functools.cache
def find_torchvision_operators(device_type: str) -> Any | None:
    """Return the namespace of torchvision's operators if they run on this kind of device, else None.

    A torchvision built for another torch, or for the CPU alone, imports or fails in many ways;
    what counts is whether the operators answer, so each is tried once on one box.
    """
    try:
        import torchvision.ops  # noqa: F401  (registers the operators)

        operators = torch.ops.torchvision
        image = torch.zeros(1, 1, 2, 2, device=device_type)
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device_type)
        roi = torch.nn.functional.pad(box, (1, 0))
        operators.nms(box, box[:, 0], 0.5)
        operators.roi_align(image, roi, 1.0, 1, 1, 1, True)
        operators._roi_align_backward(image[..., :1, :1], roi, 1.0, 1, 1, 1, 1, 2, 2, 1, True)
    except (ImportError, OSError, AttributeError, RuntimeError):
        # In this order: absent, a library it links to is absent, an operator or half of the
        # package is missing, or "operator torchvision::nms does not exist" / not on this device.
        return None
    return operators


# ---- The operators, with the names and arguments of mmcv/ops/csrc/pytorch/pybind.cpp


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the kept boxes of non-maximum suppression: see `kernels.nms`."""
    torchvision = find_torchvision_operators(boxes.device.type)
    if torchvision is None or offset != 0:  # torchvision's boxes have no offset
        return kernels.nms(boxes, scores, iou_threshold, offset)
    if boxes.dtype != torch.float64:
        # mmcv compares in float32, torchvision in float64: 0.6 is not the same in both.
        iou_threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    boxes = promote_to_float32(boxes)
    return torchvision.nms(boxes, scores.to(boxes), iou_threshold)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write RoIAlign to `output` (R, C, height, width), and for maxima to `argmax_y`, `argmax_x`.

    `pool_mode` is 0 for the maximum and 1 for the average; the rest as in
    `roi_align_kernels.roi_align_average`.
    """
    settings = RoISettings((aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    if pool_mode == 0:
        results = roi_align_kernels.roi_align_max(input, rois, settings)
        for target, result in zip((output, argmax_y, argmax_x), results, strict=True):
            target.copy_(result)
        return
    torchvision = find_torchvision_operators(input.device.type)
    if torchvision is None:
        output.copy_(roi_align_kernels.roi_align_average(input, rois, settings))
        return
    input = promote_to_float32(input)
    roi_align_kernels.compute_extent(rois, input.dtype, settings)  # raises for negative sizes, as mmcv does
    bins = (spatial_scale, aligned_height, aligned_width)
    output.copy_(torchvision.roi_align(input, _readable(rois.to(input)), *bins, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of `roi_align_forward` to `grad_input` (B, C, H, W)."""
    settings = RoISettings((aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    shape = grad_input.shape
    torchvision = find_torchvision_operators(grad_output.device.type)
    if pool_mode == 0:
        grad = roi_align_kernels.roi_align_max_backward(grad_output, rois, argmax_y, argmax_x, shape)
    elif torchvision is None or torch.are_deterministic_algorithms_enabled():
        # On a GPU torchvision adds in an order that changes, and then refuses to.
        grad = roi_align_kernels.roi_align_average_backward(grad_output, rois, shape, settings)
    else:
        grad_output = promote_to_float32(grad_output)
        bins = (spatial_scale, aligned_height, aligned_width)
        grad = torchvision._roi_align_backward(
            grad_output, _readable(rois.to(grad_output)), *bins, *shape, sampling_ratio, aligned
        )
    grad_input += grad.to(grad_input)


def _readable(rois: Tensor) -> Tensor:
    """Return RoIs (R, 5) with NaN and infinite ones moved outside of every image, where features are zero.

    On a CPU torchvision takes an address from their corners, and the process ends with a segmentation fault.
    """
    if rois.device.type != "cpu":
        return rois
    outside = rois.new_tensor([0, *[-OUTSIDE] * 4])
    return torch.where(rois.isfinite().all(1, keepdim=True), rois, outside)


# ---- The module in the place of mmcv._ext. It must have that very name: mmcv finds its operators by
# `importlib.import_module('mmcv._ext')` only, and asks for each by name when it is imported.


def _no_compiler() -> str:
    """Return what mmcv's environment report prints instead of a compiler's name."""
    return "none (operators of msdet)"


OPERATORS: dict[str, Callable] = {
    "nms": nms,
    "softnms": kernels.softnms,
    "roi_align_forward": roi_align_forward,
    "roi_align_backward": roi_align_backward,
    "sigmoid_focal_loss_forward": kernels.sigmoid_focal_loss,
    "sigmoid_focal_loss_backward": kernels.sigmoid_focal_loss_backward,
    "get_compiler_version": _no_compiler,
    "get_compiling_cuda_version": _no_compiler,
}


class FallbackModule(types.ModuleType):
    """Has every operator by name, because mmcv checks for them on import; see `__getattr__`."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Return an operator that is not provided: when called it raises RuntimeError, with what to do.

        Private names stay unknown: Python and its tools ask modules for many of them.
        """
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise RuntimeError(
                f"mmcv operator {name!r} is compiled only, and torchvision does not offer it. "
                "With torch, setuptools and a C++ compiler installed, compile mmcv's operators "
                "(about half an hour): pip install --no-build-isolation --no-cache-dir "
                "--force-reinstall --no-deps onedl-mmcv"
            )

        return missing
