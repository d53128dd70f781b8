"""Operators in place of the compiled operators of mmcv: nms, softnms, roi_align and sigmoid focal loss.

`install()` must run before MMDetection is imported. Nothing here knows of levels or weights.
"""

from experiments.detection.operators.extension import find_backend, install

__all__ = ["find_backend", "install"]
