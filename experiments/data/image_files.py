"""Reads image files the way training does, a few at a time, to find those it could not use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

_THREADS = 4
_BATCH = 256  # images under way at once, so that a large set does not queue up in memory


class Decoded(NamedTuple):
    """`size` is (width, height) in pixels; None where the file cannot be read, and `fault` says why."""

    size: tuple[int, int] | None
    fault: str = ""


def decode_all(paths: Sequence[Path]) -> Iterator[Decoded]:
    """Decodes every file, in order. OpenCV lets threads run side by side while it decodes."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _BATCH):
            yield from pool.map(decode, paths[start : start + _BATCH])


def decode(path: Path) -> Decoded:
    """Decodes one file as MMDetection does: as a colour image, turned as its EXIF data says."""
    import cv2
    import numpy as np

    try:
        raw = path.read_bytes()
    except OSError as error:
        return Decoded(None, error.strerror or str(error))
    if not raw:
        return Decoded(None, "is empty")
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return Decoded(None, str(error.err))
    if image is None:
        return Decoded(None, "is no image, or a damaged or cut off one")
    return Decoded((int(image.shape[1]), int(image.shape[0])))
