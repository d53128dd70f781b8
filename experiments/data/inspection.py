"""Inspect a data set: read its annotations, check its image files, collect all problems.

`find_dataset` stops at the first problem that prevents training, `verify` shows all of them; both use this.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.common.errors import did_you_mean, suggest_name
from experiments.data.image_checks import Progress, SplitFiles, check_between_splits, check_files
from experiments.data.problems import ProblemLog
from experiments.data.readers import Annotations, Box, Image, Split, read_split
from experiments.data.readers.annotations import classify_box
from experiments.data.readers.voc import ANNOTATIONS, IMAGES
from experiments.data.spec import DatasetSpec

SPLITS: tuple[Split, ...] = ("train", "val")
MAX_DETECTIONS = 100  # per image, in COCO's AP
_SLACK_PX = 0.5  # boxes rounded outwards do not count as outside
_STOCK_MIN_SIZE = 32  # pixels; MMDetection leaves smaller images out, and so did earlier versions of msdet
# Kinds that earlier versions of msdet read in another way, so that the same bytes gave other numbers.
_READ_ANEW = ("box marked ignore", "box without area", "unusual id", "image without size")


@dataclass
class Inspection:
    """Content and problems of a data set.

    Attributes:
        classes: Those to train, in the order of their labels.
        annotations, logs: By split.
        files: Split to the image files that exist.
    """

    spec: DatasetSpec
    root: Path
    classes: list[str] = field(default_factory=list)
    annotations: dict[str, Annotations] = field(default_factory=dict)
    logs: dict[str, ProblemLog] = field(default_factory=dict)
    files: dict[str, SplitFiles] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the annotations' bytes and how they are read, not their path."""
        digest = hashlib.sha256()
        for split, read in self.annotations.items():
            for images, raw in read.raw_digests:
                digest.update(raw if images is None else f"{split} {images}\n".encode() + raw)
        digest.update(self._differences_to_earlier_versions().encode())
        return digest.hexdigest()[:16]

    def _differences_to_earlier_versions(self) -> str:
        counts = [log.counts for log in self.logs.values()]
        told = [kind for kind in _READ_ANEW if any(kind in count for count in counts)]
        if self.spec.format == "voc":
            told += ["box wholly outside"] * any("box wholly outside" in count for count in counts)
            told += ["several val lists"] * (len(self.spec.splits["val"]) > 1)
        sides = [min(image.size) for image in self.annotations["train"].images if image.size]
        least = self.spec.min_image_size
        if least != _STOCK_MIN_SIZE and any(side < max(least, _STOCK_MIN_SIZE) for side in sides):
            told.append(f"min_image_size {least}")
        return "\n".join(told)


def inspect(
    spec: DatasetSpec,
    root: Path,
    images: str = "heads",
    progress: Progress | None = None,
    strict: bool = False,
) -> Inspection:
    """Read annotations and image files and collect their problems.

    Args:
        images: "heads" reads each file's first bytes, "whole" decodes it, "names" only checks that it exists.
        progress: Called with (images read, images to read), for each split.
        strict: Whether to raise UserError at the first problem that prevents training.
    """
    found = Inspection(spec, root)
    for split in SPLITS:
        log = found.logs[split] = ProblemLog(strict)
        read = found.annotations[split] = read_split(spec, root, split, log)
        if split == "train":  # their labels follow the order of the file in COCO format, of the page in VOC
            is_chosen = spec.format == "voc" or not spec.classes
            chosen = spec.classes or read.classes
            found.classes = list(chosen) if is_chosen else [n for n in read.classes if n in spec.classes]
        _check_names(found, split)
        _check_classes(found, split)
        found.files[split] = check_files(spec, root, split, read.images, log, images, progress)
        _check_boxes(found, split)
    check_between_splits(found.files["train"], found.files["val"], found.logs["val"])
    return found


# Classes


def _check_names(found: Inspection, split: Split) -> None:
    """Log the names of a split that differ only in case or spaces, from each other or from trained classes."""
    folded: dict[str, str] = {}
    for name in dict.fromkeys([*found.classes, *found.annotations[split].classes]):
        alike = folded.setdefault(" ".join(name.casefold().split()), name)
        if alike != name:
            found.logs[split].add("class names alike", f"'{alike}' and '{name}'")


def _check_classes(found: Inspection, split: Split) -> None:
    """Log the classes that a split lacks or should not have; none where its annotations cannot be read."""
    spec, log, there = found.spec, found.logs[split], found.annotations[split].classes
    trained = found.annotations["train"].classes
    if not there or not trained or (spec.generate is not None and spec.format == "voc"):
        return  # a small built-in set may lack a shape by chance
    if spec.format == "coco" or split == "train":
        path = found.root / spec.splits[split][0].annotations
        where = str(path) if spec.format == "coco" else f"the XML files listed in {path}"
        listed = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        for name in (name for name in spec.classes if name not in there):
            best = suggest_name(name, there)
            close = f"did you mean '{best}'? " if best else ""
            text = f"data set '{spec.name}', classes: '{name}' is not in {where}; {close}there are: {listed}"
            log.add("classes wrong", text)
    if split == "train":
        return
    if spec.classes:
        there, trained = ([n for n in names if n in spec.classes] for names in (there, trained))
    if spec.format == "coco":
        _check_same_order(found, there, trained)
    elif not spec.classes:
        _check_met_in_training(found, there, trained)


def _check_met_in_training(found: Inspection, there: Sequence[str], trained: Sequence[str]) -> None:
    for name in (name for name in there if name not in trained):
        images = found.annotations["val"].images
        image = next(image for image in images if any(box.category == name for box in image.boxes))
        text = f"{image.id}: class '{name}' is not met in the training set; {did_you_mean(name, trained)}"
        found.logs["val"].add("classes wrong", text, _xml_of(image))


def _xml_of(image: Image) -> Path:
    """Return the XML file of a VOC image; its id may contain folders."""
    parts = list(image.path.with_suffix(".xml").parts)
    parts[len(parts) - 1 - parts[::-1].index(IMAGES)] = ANNOTATIONS
    return Path(*parts)


def _check_same_order(found: Inspection, there: list[str], trained: list[str]) -> None:
    """Log categories that differ between both files: labels are numbered by the order in the file."""
    log, path = found.logs["val"], found.root / found.spec.splits["val"][0].annotations
    start = "its categories differ from the training set's"
    for name in there:
        if name not in trained:
            log.add("classes wrong", f"{start}: '{name}' is only here; {did_you_mean(name, trained)}", path)
    for name in trained:
        if name not in there:
            log.add("classes wrong", f"{start}: '{name}' is missing", path)
    if there != trained and sorted(there) == sorted(trained):
        first = next(i for i, (a, b) in enumerate(zip(there, trained)) if a != b)
        pair = f"number {first + 1} is '{there[first]}' here and '{trained[first]}' there"
        log.add("classes wrong", f"{start} in their order: {pair}", path)


# Boxes


def _check_boxes(found: Inspection, split: Split) -> None:
    """Log boxes that are wrong, and a split without any box to train on or to find."""
    spec, log, used = found.spec, found.logs[split], set(found.classes)
    is_train = split == "train"
    fates: Counter[str | None] = Counter()  # why boxes are left out; None: of those that are used
    for image in found.annotations[split].images:
        seen: set[tuple] = set()
        is_small = image.size is not None and min(image.size) < spec.min_image_size
        for box in image.boxes:
            if box.category not in used:
                fates["of another class"] += 1
                continue
            kind = classify_box(box, image.size, spec.min_box_size if is_train else 1)
            why_unused = box.role or kind or ("image under min_image_size" if is_small else None)
            if not is_train and not box.role and kind != "empty box":
                why_unused = None  # what is not trained on is evaluated all the same
            fates[why_unused] += 1
            if kind is None and image.size is not None:
                x1, y1, x2, y2 = box.corners
                far = max(x2 - image.size[0], y2 - image.size[1])
                kind = "box partly outside" if max(-x1, -y1, far) > _SLACK_PX else None
            if kind is not None:
                log.add(kind, _describe(spec, image, box, image.size))
            key = (box.category, box.xywh, box.role)
            if key in seen:
                log.add("same box twice", _describe(spec, image, box, None))
            seen.add(key)
        if spec.format == "coco" and not is_train:
            count = sum(box.category in used and not box.is_ignored for box in image.boxes)
            if count > MAX_DETECTIONS:
                log.add("over 100 objects", f"{image.path}: {count} objects")
    if not fates[None] and (used or is_train):
        problem = "no boxes to train on" if is_train else "no boxes to evaluate"
        what = "holds" if spec.format == "coco" else "its XML files hold"
        why = ": " + ", ".join(f"{count} {why}" for why, count in fates.most_common()) if fates else ""
        source = found.root / spec.splits[split][0].annotations
        log.add(problem, f"{what} {problem}{why}", source)


def _describe(spec: DatasetSpec, image: Image, box: Box, size: tuple[int, int] | None) -> str:
    """Return where a box stands in its file, its class and its corners, with the image's `size` if given.

    An empty box has its width and height instead.
    """
    label = f"annotation {box.number}" if spec.format == "coco" else f"object {box.number} of {image.id}"
    _, _, width, height = box.xywh
    if width <= 0 or height <= 0:
        return f"{label}: {box.category} {width:g} wide and {height:g} high"
    corners = ", ".join(f"{value:g}" for value in box.corners)
    within = "" if size is None else f" in {size[0]} x {size[1]} pixels"
    return f"{label}: {box.category} with corners {corners}{within}"
