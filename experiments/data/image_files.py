"""Image files: their size and depth from the first bytes, and decoding as in training."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common.files import explain_unreadable, hash_file

_THREADS = 4
_BATCH = 256  # images queued at once, to bound the memory
_HEAD_BYTES = 4096  # files that agree in these and in size are compared as a whole
_EXIF_ORIENTATION, _TIFF_BITS = 274, 258
_TURNING = range(2, 9)  # orientations that rotate or mirror
_EIGHT_BITS = ("JPEG", "MPO", "WEBP", "BMP", "GIF")


class ImageFacts(NamedTuple):
    """Properties of an image file.

    Attributes:
        size: (width, height) in pixels as in training, rotated as its EXIF data says; None: not readable.
        fault: Why it is not readable.
        is_turned: Whether its EXIF data rotate or mirror it.
        is_deep: Whether it has 16 bits a channel, of which training keeps the upper 8.
        content: Length and hash of the first bytes: files that differ in it differ.
    """

    size: tuple[int, int] | None
    fault: str = ""
    is_turned: bool = False
    is_deep: bool = False
    content: str = ""


def map_files(work: Callable[[Path], ImageFacts], paths: Sequence[Path]) -> Iterator[ImageFacts]:
    """Do `decode` or `read_image_facts` for every file in several threads, and yield the results in order."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _BATCH):
            yield from pool.map(work, paths[start : start + _BATCH])


def decode(path: Path) -> ImageFacts:
    """Decode one file as MMDetection does: as a colour image, rotated as its EXIF data says."""
    try:
        height, width = read_pixels(path).shape[:2]
    except ValueError as error:
        return ImageFacts(None, str(error))
    return ImageFacts((int(width), int(height)))


def read_pixels(path: Path) -> Any:
    """Return an image as (height, width, 3) uint8 BGR, rotated by its EXIF data as in MMDetection.

    Raises:
        ValueError: Why it cannot be read.
    """
    import cv2
    import numpy as np

    if fault := explain_unreadable(path):
        raise ValueError(fault)
    try:
        raw = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR) if raw else None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except cv2.error as error:
        raise ValueError(str(error.err)) from None
    if image is None:
        raise ValueError("is not an image, or is damaged or cut off" if raw else "is empty")
    return image


def read_image_facts(path: Path) -> ImageFacts:
    """Return the properties of a file, decoding it only where its first bytes do not have the size."""
    from PIL import Image

    fault = explain_unreadable(path)
    if fault is not None:
        return ImageFacts(None, fault)
    size, is_turned, is_deep, content = None, False, False, ""
    try:
        with open(path, "rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images, which are no attack here
            head = stream.read(_HEAD_BYTES)
            content = f"{os.fstat(stream.fileno()).st_size} {hashlib.sha256(head).hexdigest()}"
            stream.seek(0)
            with Image.open(stream) as image:
                size, is_turned, is_deep = image.size, _is_turned(image), _is_deep(image, path, head)
    except Exception as error:  # Pillow raises many types on damaged files; OpenCV decides, as in training
        if isinstance(error, OSError) and error.errno is not None:
            return ImageFacts(None, error.strerror or str(error))
    # OpenCV reads formats that Pillow does not know, and rotates some formats only
    facts = ImageFacts(size) if size and not is_turned else decode(path)
    return facts._replace(is_turned=is_turned, is_deep=is_deep, content=content)


def _is_turned(image: Any) -> bool:
    if "exif" in image.info:  # else Pillow decodes a whole PNG to look for it behind the pixels
        return image.getexif().get(_EXIF_ORIENTATION) in _TURNING
    return getattr(image, "tag_v2", {}).get(_EXIF_ORIENTATION) in _TURNING


def _is_deep(image: Any, path: Path, head: bytes) -> bool:
    """Whether an image that Pillow has opened, of these first bytes, has more than 8 bits a channel."""
    if image.format == "PNG":
        return head[24] == 16  # the bit depth in a PNG's first chunk
    if image.format == "TIFF":
        bits = image.tag_v2.get(_TIFF_BITS, ())
        return any(count > 8 for count in (bits if isinstance(bits, tuple) else (bits,)))
    if image.format in _EIGHT_BITS:
        return False
    import cv2  # for JPEG 2000, PNM and others where Pillow cannot say
    import numpy as np

    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded is not None and decoded.dtype != np.uint8


def find_same_files(contents: Iterable[tuple[Path, str]]) -> Iterator[list[Path]]:
    """Yield groups of different files with the same bytes; only those that agree in `ImageFacts.content` are read."""
    by_content = defaultdict[str, list[Path]](list)
    for path, content in contents:
        by_content[content].append(path)
    for content, paths in by_content.items():
        if not content or len(paths) < 2:
            continue
        by_digest = defaultdict[str, list[Path]](list)
        for path in paths:
            with contextlib.suppress(OSError):
                by_digest[hash_file(path)].append(path)
        yield from (same for same in by_digest.values() if len(same) > 1)
