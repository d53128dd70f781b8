"""Checks of a split's image files: they exist, are readable, have the annotated size, and occur once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.data.image_files import decode, find_same_files, map_files, read_image_facts
from experiments.data.problems import ProblemLog
from experiments.data.readers import Image, Split
from experiments.data.spec import DatasetSpec

Progress = Callable[[int, int], None]
Identity = tuple[int, int] | str  # device and inode, which all paths of a file share, or its resolved path


@dataclass
class SplitFiles:
    """The image files of a split.

    Attributes:
        found: The first path of each file, and its `ImageFacts.content`; "" where it is not read, or not readable.
        thinnest: The image with the largest ratio of sides: path, width and height in pixels.
    """

    found: dict[Identity, tuple[Path, str]] = field(default_factory=dict)
    thinnest: list[Any] = field(default_factory=list)


def check_files(
    spec: DatasetSpec,
    root: Path,
    split: Split,
    images: Sequence[Image],
    log: ProblemLog,
    mode: str,
    progress: Progress | None = None,
) -> SplitFiles:
    """Check each image's file, and set the size of images without an annotated one.

    Args:
        mode: "heads" reads a file's first bytes, "whole" decodes it, "names" only checks that it exists.
        progress: Called with (images read, images to read).
    """
    source = root / spec.splits[split][0].annotations
    if not images and not log.counts:
        log.add("annotation file unusable", "holds no images", source)
    files, missing = SplitFiles(), list[Path]()
    there: list[tuple[Identity, Image]] = []
    for image in images:
        identity = _identity(image.path)
        if identity is None:
            missing.append(image.path)
            continue
        there.append((identity, image))
        first, _ = files.found.setdefault(identity, (image.path, ""))
        if first is not image.path:
            log.add("same image twice", str(first) if first == image.path else f"{first} and {image.path}")
    why = "; VOC images must be JPEGImages/<id>.jpg" if spec.format == "voc" else ""
    for path in missing:
        what = f"{len(missing)} of the {len(images)} images that {source} names are missing"
        log.add("missing image", str(path), error=f"{what}, the first is {path}{why}")
    if mode != "names":
        _read(there, files, log, mode == "whole", progress)
        for image in images if split == "train" else ():
            if image.size is not None and min(image.size) < spec.min_image_size:
                log.add(
                    "image under min_image_size", f"{image.path}: {image.size[0]} x {image.size[1]} pixels"
                )
    for same in find_same_files(files.found.values()):
        for other in same[1:]:
            log.add("same image twice", f"{same[0]} and {other}: the same bytes")
    return files


def _identity(path: Path) -> Identity | None:
    """Return what identifies a file under all of its paths; None where there is no such file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _read(
    there: Sequence[tuple[Identity, Image]],
    files: SplitFiles,
    log: ProblemLog,
    is_whole: bool,
    progress: Progress | None,
) -> None:
    paths = [image.path for _, image in there]
    decoded = map_files(decode, paths) if is_whole else iter(())
    for done, ((identity, image), facts) in enumerate(
        zip(there, map_files(read_image_facts, paths)), start=1
    ):
        whole = next(decoded, facts)
        if whole.size is None:
            log.add("unreadable image", f"{image.path}: {whole.fault}")
        else:
            _check_size(image, whole.size, files, log)
            files.found[identity] = files.found[identity][0], facts.content
        if facts.is_turned:
            log.add("image turned by EXIF", str(image.path))
        if facts.is_deep:
            log.add("16-bit image", str(image.path))
        if progress is not None:
            progress(done, len(there))


def _check_size(image: Image, size: tuple[int, int], files: SplitFiles, log: ProblemLog) -> None:
    if image.size is None:
        image.size = size
    elif image.size != size:
        annotated = f"{image.size[0]} x {image.size[1]}"
        log.add("image size differs", f"{image.path}: {size[0]} x {size[1]} pixels, annotated as {annotated}")
    _, *thinnest = files.thinnest or ("", 1, 1)
    if max(size) * min(thinnest) > min(size) * max(thinnest):
        files.thinnest = [str(image.path), *size]


def check_between_splits(train: SplitFiles, val: SplitFiles, log: ProblemLog) -> None:
    """Log the images that are both trained on and evaluated, as the same file or the same bytes."""
    for identity, (path, _) in val.found.items():
        if identity in train.found:
            log.add("image in both splits", str(path))
    evaluated = dict(file for identity, file in val.found.items() if identity not in train.found)
    trained = dict(train.found.values())
    for same in find_same_files([*trained.items(), *evaluated.items()]):
        first = next((path for path in same if path in trained), None)
        for path in same if first is not None else ():
            if path in evaluated:
                log.add("image in both splits", f"{path}: the same bytes as {first}")
