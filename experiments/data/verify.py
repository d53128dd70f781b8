"""Goes through a whole data set and says what is in it and what is wrong with it.

Unlike `find_dataset`, which stops at the first thing that prevents training, this collects all problems,
reads every image, and counts boxes by class and by the COCO evaluator's size classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.data import shapes
from experiments.data.contents import Box, Findings, Image, read_coco, read_voc
from experiments.data.find import check_place, resolve_root
from experiments.data.image_files import decode_all
from experiments.data.problems import missing_files
from experiments.data.spec import DatasetSpec
from experiments.errors import did_you_mean

SMALL, LARGE = 32**2, 96**2  # pixels of area: small < SMALL <= medium < LARGE <= large
_SLACK = 0.5  # pixels: boxes rounded outwards do not count as outside

Progress = Callable[[int, int], None]


def verify(
    spec: DatasetSpec, root: Path | None = None, read_images: bool = True, progress: Progress | None = None
) -> dict[str, Any]:
    """Counts what the data set holds and collects what is wrong with it.

    Args:
        spec: The data set.
        root: Its folder; None takes `spec.root`.
        read_images: Whether every image is decoded; otherwise only its presence is checked.
        progress: Called with (images read, images to read), for each split.

    Returns:
        What JSON takes: `name`, `format`, `root`, `usable`, and by split `images`, `images_without_boxes`,
        `boxes` (crowd and difficult ones are counted apart), `crowd_boxes`, `difficult_boxes`, `sizes`,
        `classes` (name to boxes), `classes_without_boxes`, `other_classes` (boxes that `spec.classes` leaves
        out) and `problems` (kind to `count`, `prevents_training`, `examples`).

    Raises:
        UserError: The data set's folder or one of its annotation files is not there at all.
    """
    place = resolve_root(spec, root)
    if spec.generate is not None:
        shapes.check_place(place, spec.generate, spec.name, spec.format)
    check_place(spec, place)
    splits: dict[str, Any] = {}
    classes = list(spec.classes)
    for split in ("train", "val"):
        findings = Findings()
        images, there = (read_coco if spec.format == "coco" else read_voc)(spec, place, split, findings)
        if split == "train":
            trained = there
            classes = classes or there
        _check_classes(spec, split, there, trained, findings)
        _check_boxes(images, findings)
        _check_files(images, read_images, findings, progress)
        counts = _count(images, classes)
        if split == "train" and not any(_is_trainable(box) for image in images for box in image.boxes):
            findings.add("no boxes to train on", "none in the training set")
        splits[split] = {**counts, "problems": findings.as_dict()}
    found = [problem for content in splits.values() for problem in content["problems"].values()]
    usable = not any(problem["prevents_training"] for problem in found)
    return {"name": spec.name, "format": spec.format, "root": str(place), "usable": usable, "splits": splits}


def _check_classes(
    spec: DatasetSpec, split: str, there: list[str], trained: list[str], findings: Findings
) -> None:
    """Whether the split has the classes it should have. `there` is empty where nothing could be read."""
    if not there or not trained:
        return

    def wrong(text: str) -> None:
        findings.add("classes wrong", text)

    for name in spec.classes:
        if name not in there and (spec.format == "coco" or split == "train"):
            wrong(f"'{name}' of the data set's classes is missing; {did_you_mean(name, there)}")
    if spec.classes:
        there = [name for name in there if name in spec.classes]
        trained = [name for name in trained if name in spec.classes]
    for name in there:
        if name not in trained:
            wrong(f"'{name}' is not in the training set; {did_you_mean(name, trained)}")
    if spec.format == "coco" and not spec.classes:
        for name in trained:
            if name not in there:
                wrong(f"'{name}' of the training set is missing")
    if spec.format == "coco" and there != trained and sorted(there) == sorted(trained):
        wrong("the categories stand in another order than in the training set")


def _is_trainable(box: Box) -> bool:
    x1, y1, x2, y2 = box.corners
    return not box.role and x2 - x1 >= 1 and y2 - y1 >= 1


def _check_boxes(images: list[Image], findings: Findings) -> None:
    for image in images:
        for box in image.boxes:
            x1, y1, x2, y2 = box.corners
            corners = ", ".join(f"{value:g}" for value in box.corners)
            if x2 <= x1 or y2 <= y1:
                text = f"{box.where}: {box.name} {x2 - x1:g} wide and {y2 - y1:g} high"
                findings.add("empty box", text)
            elif image.size is not None:
                width, height = image.size
                text = f"{box.where}: {box.name} with corners {corners} in {width:g} x {height:g} pixels"
                if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
                    findings.add("box wholly outside", text)
                elif min(x1, y1) < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
                    findings.add("box partly outside", text)


def _check_files(images: list[Image], read: bool, findings: Findings, progress: Progress | None) -> None:
    by_folder: dict[Path, list[str]] = {}
    for image in images:
        by_folder.setdefault(image.path.parent, []).append(image.path.name)
    missing = {folder / name for folder, names in by_folder.items() for name in missing_files(folder, names)}
    for path in sorted(missing):
        findings.add("missing image", str(path))
    there = [image for image in images if image.path not in missing]
    if not read:
        return
    for done, (image, decoded) in enumerate(zip(there, decode_all([i.path for i in there])), start=1):
        if decoded.size is None:
            findings.add("unreadable image", f"{image.path}: {decoded.fault}")
        elif image.size is not None and tuple(image.size) != decoded.size:
            annotated = f"{image.size[0]:g} x {image.size[1]:g}"
            real = f"{decoded.size[0]} x {decoded.size[1]}"
            findings.add("image size differs", f"{image.path}: {real} pixels, annotated as {annotated}")
        if progress is not None:
            progress(done, len(there))


def _count(images: list[Image], classes: list[str]) -> dict[str, Any]:
    used = set(classes)
    boxes = [box for image in images for box in image.boxes if box.name in used]
    counted = [box for box in boxes if not box.role]
    by_class = Counter(box.name for box in counted)
    roles = Counter(box.role for box in boxes)
    others = Counter(box.name for image in images for box in image.boxes if box.name not in used)
    sizes = Counter(size_class(box.area) for box in counted)
    return {
        "images": len(images),
        "images_without_boxes": sum(not any(box.name in used for box in image.boxes) for image in images),
        "boxes": len(counted),
        "crowd_boxes": roles["crowd"],
        "difficult_boxes": roles["difficult"],
        "sizes": {name: sizes[name] for name in ("small", "medium", "large")},
        "classes": {name: by_class[name] for name in classes},
        "classes_without_boxes": [name for name in classes if not by_class[name]],
        "other_classes": dict(sorted(others.items())),
    }


def size_class(area: float) -> str:
    """The COCO evaluator's size class of a box, from its area in pixels."""
    return "small" if area < SMALL else "medium" if area < LARGE else "large"
