"""The one place that reads annotations, for training, evaluation, `verify`, `predict` and `errors`.

Not: judging what was read (`inspection`), or anything that needs torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from experiments.common.errors import UserError
from experiments.data.problems import ProblemLog
from experiments.data.readers.annotations import Annotations, Box, Image
from experiments.data.readers.stored import store_coco
from experiments.data.readers.voc import read_voc
from experiments.data.spec import DatasetSpec

__all__ = ["Annotations", "Box", "Image", "Split", "list_part_files", "read_split"]

Split = Literal["train", "val"]


def list_part_files(spec: DatasetSpec, root: Path, split: Split) -> list[tuple[Path, Path, str]]:
    """Return each part's annotation file, image folder and id prefix.

    Several VOC lists may have the same image id in different folders, so ids in a validation set of several parts
    begin with the part's folder.
    """
    parts = spec.splits[split]
    has_prefix = split == "val" and len({part.images for part in parts}) > 1
    prefixes = [f"{part.images.rstrip('/')}/" if has_prefix and part.images else "" for part in parts]
    return [(root / part.annotations, root / part.images, prefix) for part, prefix in zip(parts, prefixes)]


def read_split(spec: DatasetSpec, root: Path, split: Split, log: ProblemLog) -> Annotations:
    """Return all images of a split, in the order of its parts; the log receives unusable files, too.

    Raises:
        UserError: The log is strict and something prevents training.
    """
    whole, is_coco = Annotations(), spec.format == "coco"
    for path, folder, prefix in list_part_files(spec, root, split):
        try:
            part = store_coco(path, folder, log) if is_coco else read_voc(path, folder, log, prefix)
        except UserError as error:
            log.add("annotation file unusable", error.message)
            continue
        whole.images = [*whole.images, *part.images]
        whole.classes = list(dict.fromkeys([*whole.classes, *part.classes]))
        whole.category_ids |= part.category_ids
        whole.sources += part.sources
        whole.raw_digests += part.raw_digests
    if not is_coco:
        whole.classes.sort()
    seen: set[Path | int | str] = set()
    for image in whole.images if len(spec.splits[split]) > 1 else ():
        if image.path in seen or (split == "val" and image.id in seen):
            lists = ", ".join(str(root / part.annotations) for part in spec.splits[split])
            log.add("duplicate id", f"image id '{image.id}' is listed twice in {lists}")
            break
        seen |= {image.path, image.id}
    return whole
