"""Image files: what their first bytes tell, and whether they decode as training reads them."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

_THREADS = 4
_BATCH = 256  # images under way at once, so that a large set does not queue up in memory
_HEAD_BYTES = 4096  # two files that agree in these and in their size are compared as a whole
_EXIF_ORIENTATION, _TIFF_BITS = 274, 258
_TURNING = range(2, 9)  # values of the orientation that turn or mirror
_EIGHT_BITS = ("JPEG", "MPO", "WEBP", "BMP", "GIF")

Result = TypeVar("Result")


class Decoded(NamedTuple):
    """`size` is (width, height) in pixels; None where the file cannot be read, and `fault` says why."""

    size: tuple[int, int] | None
    fault: str = ""


class ImageFacts(NamedTuple):
    """What an image file is.

    Attributes:
        size: (width, height) in pixels as training reads it, turned as its EXIF data says; None: not readable.
        fault: Why not.
        is_turned: Whether its EXIF data turn or mirror it.
        is_deep: Whether it has 16 bits a channel, of which training keeps the upper 8.
        content: Tells two files apart, unless they are the same or nearly so.
    """

    size: tuple[int, int] | None
    fault: str = ""
    is_turned: bool = False
    is_deep: bool = False
    content: str = ""


def decode_all(paths: Sequence[Path]) -> Iterator[Decoded]:
    """Decode every file, in order. OpenCV lets threads run side by side while it decodes."""
    return _in_threads(decode, paths)


def facts_of_all(paths: Sequence[Path]) -> Iterator[ImageFacts]:
    """Return what every file is, in order, from its first bytes where they tell."""
    return _in_threads(image_facts, paths)


def _in_threads(work: Callable[[Path], Result], paths: Sequence[Path]) -> Iterator[Result]:
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _BATCH):
            yield from pool.map(work, paths[start : start + _BATCH])


def decode(path: Path) -> Decoded:
    """Decode one file as MMDetection does: as a colour image, turned as its EXIF data says."""
    import cv2
    import numpy as np

    fault, _ = _stat(path)
    if fault:
        return Decoded(None, fault)
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


def image_facts(path: Path) -> ImageFacts:
    """Return what a file is; it is decoded only where its first bytes do not tell its size."""
    from PIL import Image

    fault, length = _stat(path)
    if fault:
        return ImageFacts(None, fault)
    if not length:
        return ImageFacts(None, "is empty")
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
            content = f"{length} {hashlib.sha256(head).hexdigest()}"
            stream.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of large images, which are no attack here
                with Image.open(stream) as image:
                    size, is_turned, is_deep = image.size, _is_turned(image), _is_deep(image, path, head)
    except OSError as error:
        if error.errno is not None:
            return ImageFacts(None, error.strerror or str(error))
        return ImageFacts(*decode(path), content=content)  # nothing that Pillow knows
    except Exception:  # Pillow's readers raise all sorts on damaged files; OpenCV decides, as in training
        return ImageFacts(*decode(path), content=content)
    if is_turned:  # which kinds of files OpenCV turns is its own affair
        return ImageFacts(*decode(path), is_turned=True, is_deep=is_deep, content=content)
    return ImageFacts(size, "", False, is_deep, content)


def _stat(path: Path) -> tuple[str, int]:
    """Return why there is no such file to read ("" where there is), and its length in bytes."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error), 0
    return ("" if stat.S_ISREG(status.st_mode) else "is not a regular file"), status.st_size


def _is_turned(image: Any) -> bool:
    if (
        "exif" in image.info
    ):  # asked first: without them, Pillow decodes a whole PNG to look behind its pixels
        return image.getexif().get(_EXIF_ORIENTATION) in _TURNING
    return getattr(image, "tag_v2", {}).get(_EXIF_ORIENTATION) in _TURNING


def _is_deep(image: Any, path: Path, head: bytes) -> bool:
    if image.format == "PNG":
        return head[24] == 16  # the bit depth in a PNG's first chunk
    if image.format == "TIFF":
        bits = image.tag_v2.get(_TIFF_BITS, ())
        return any(count > 8 for count in (bits if isinstance(bits, tuple) else (bits,)))
    return image.format not in _EIGHT_BITS and _decodes_deep(path)


def _decodes_deep(path: Path) -> bool:
    """Whether OpenCV finds more than 8 bits a channel: for JPEG 2000, PNM and others of which Pillow does not tell."""
    import cv2
    import numpy as np

    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    return image is not None and image.dtype != np.uint8


def same_files(contents: Iterable[tuple[Path, str]]) -> Iterator[list[Path]]:
    """Yield groups of different files with the same bytes.

    Args:
        contents: Each file with its `ImageFacts.content`; only those that agree in it are read.
    """
    by_content: dict[str, list[Path]] = {}
    for path, content in contents:
        if content:
            by_content.setdefault(content, []).append(path)
    for paths in by_content.values():
        if len(paths) < 2:
            continue
        by_digest: dict[str, list[Path]] = {}
        for path in paths:
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError:
                continue
            by_digest.setdefault(digest, []).append(path)
        yield from (same for same in by_digest.values() if len(same) > 1)
