"""Verify a whole data set: count its content and collect all of its problems.

Unlike `find_dataset`, which stops at the first problem that prevents training, this decodes every image, and
counts boxes by class and by COCO's size classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.common.metric_names import SIZE_RANGES, classify_size
from experiments.data.find import check_place, resolve_root
from experiments.data.inspection import Progress, inspect
from experiments.data.readers import Image
from experiments.data.shapes import generator as shapes
from experiments.data.spec import DatasetSpec


def verify(
    spec: DatasetSpec, root: Path | None = None, read_images: bool = True, progress: Progress | None = None
) -> dict[str, Any]:
    """Return the content of a data set and all of its problems.

    Args:
        root: The data set's folder; None takes `spec.root`.
        read_images: Whether to decode every image; otherwise only its existence is checked.
        progress: Called with (images read, images to read), for each split.

    Returns:
        A JSON mapping: `name`, `format`, `root`, `usable`, and by split `images`, `images_without_boxes`, `boxes`
        (without the next three), `crowd_boxes`, `ignored_boxes`, `difficult_boxes`, `sizes`, `classes` (name to
        boxes), `classes_without_boxes`, `other_classes` (boxes of classes not in `spec.classes`) and `problems`
        (kind to `count`, `prevents_training`, `changes_numbers`, `examples`).

    Raises:
        UserError: The data set's folder or an annotation file does not exist.
    """
    place = resolve_root(spec, root)
    if spec.generate is not None:
        shapes.check_place(place, spec.generate, spec.name, spec.format)
    check_place(spec, place)
    found = inspect(spec, place, "whole" if read_images else "names", progress)
    splits = {
        split: {**_count(read.images, found.classes), "problems": found.logs[split].as_dict()}
        for split, read in found.annotations.items()
    }
    usable = not any(log.error for log in found.logs.values())
    return {"name": spec.name, "format": spec.format, "root": str(place), "usable": usable, "splits": splits}


def _count(images: Sequence[Image], classes: list[str]) -> dict[str, Any]:
    used = set(classes)
    boxes = [box for image in images for box in image.boxes if box.category in used]
    counted = [box for box in boxes if not box.is_ignored]
    by_class = Counter(box.category for box in counted)
    roles = Counter(box.role for box in boxes)
    others = Counter(box.category for image in images for box in image.boxes if box.category not in used)
    sizes = Counter(classify_size(box.area) for box in counted)
    return {
        "images": len(images),
        "images_without_boxes": sum(used.isdisjoint(box.category for box in image.boxes) for image in images),
        "boxes": len(counted),
        "crowd_boxes": roles["crowd"],
        "ignored_boxes": roles["ignore"],
        "difficult_boxes": roles["difficult"],
        "sizes": {name: sizes[name] for name in SIZE_RANGES},
        "classes": {name: by_class[name] for name in classes},
        "classes_without_boxes": [name for name in classes if not by_class[name]],
        "other_classes": dict(sorted(others.items())),
    }
