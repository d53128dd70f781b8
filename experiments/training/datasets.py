"""Data sets that MMEngine trains and evaluates on, read by msdet's own reader.

MMDetection's CocoDataset and VOCDataset read the same files by rules of their own: they drop boxes and images
without a word, and take the 20 VOC classes from a path with `VOC2007` in it. Here one reader serves training,
evaluation and `msdet data verify`, so that all of them mean the same boxes.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from experiments import detection  # noqa: F401  (first: installs operators before MMDetection is imported)

from mmdet.datasets import CocoDataset, VOCDataset  # isort: skip
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.registry import DATASETS

from experiments.common.errors import UserError
from experiments.data.image_files import decode, image_facts
from experiments.data.problems import ProblemLog
from experiments.data.readers import Image
from experiments.data.readers.coco import read_coco
from experiments.data.readers.voc import read_voc
from experiments.data.selection import has_training_boxes, why_not_trained


class ImageError(UserError):
    """An image that cannot be used; its message survives the way out of a data worker process."""

    def __init__(self, message: str) -> None:
        # torch raises it anew with the worker's traceback as its text, where one line begins with the class's name
        name = re.escape(f"{type(self).__module__}.{type(self).__qualname__}: ")
        own = re.split(f"^{name}", message, maxsplit=1, flags=re.MULTILINE)[-1]
        super().__init__(own, "msdet data verify NAME   (shows all such images; repair or remove them)")


class AnnotatedDataset(BaseDetDataset):
    """One annotation file and its images.

    `filter_cfg` takes, for training: `filter_empty_gt` (leave out images without any box of the classes), `min_size`
    and `bbox_min_size` (pixels; shorter images are left out, smaller boxes are not learnt).

    Raises:
        UserError: The annotations are broken; names the file and the entry.
    """

    @abstractmethod
    def read_images(self) -> list[Image]:
        """Return the images of `ann_file` in its order."""

    def load_data_list(self) -> list[dict]:
        """Return MMDetection's data infos, after all that is left out."""
        labels = {name: label for label, name in enumerate(self.metainfo["classes"])}
        rules: Mapping[str, Any] = {} if self.test_mode else self.filter_cfg or {}
        infos = []
        for image in self.read_images():
            if image.size is None:
                image.size = image_facts(image.path).size or (0, 0)
            is_empty = rules.get("filter_empty_gt", False) and not has_training_boxes(image, labels)
            if not is_empty and min(image.size) >= rules.get("min_size", 0):
                infos.append(self._info(image, labels, rules.get("bbox_min_size") or 1))
        return infos

    def _info(self, image: Image, labels: Mapping[str, int], min_box_size: int) -> dict:
        assert image.size is not None
        instances = []
        for box in (box for box in image.boxes if box.category in labels):
            reason = None if self.test_mode else why_not_trained(box, image.size, min_box_size)
            if reason in (None, "box under min_box_size"):
                instances.append(
                    {
                        "bbox": list(box.corners),
                        "bbox_label": labels[box.category],
                        "ignore_flag": int(box.is_ignored or reason is not None),
                        **({"mask": box.segmentation} if box.segmentation else {}),
                    }
                )
        width, height = image.size
        return dict(
            img_path=str(image.path), img_id=image.id, width=width, height=height, instances=instances
        )

    def filter_data(self) -> list[dict]:
        """Return all: `load_data_list` has left out what is not trained on."""
        return self.data_list

    def prepare_data(self, idx: int) -> Any:
        """Pass an image through the pipeline.

        Raises:
            ImageError: It cannot be decoded, or not be processed; names the file.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = Path(self.get_data_info(idx)["img_path"])
            decoded = decode(path)
            if decoded.size is None:
                raise ImageError(f"image {path}: {decoded.fault}") from error
            if isinstance(error, cv2.error):
                width, height = decoded.size
                raise ImageError(f"image {path}: {width} x {height} pixels: {error.err}") from error
            raise


@DATASETS.register_module()
class AnnotatedCocoDataset(AnnotatedDataset):
    """An instances JSON (`ann_file`) and its images (`data_prefix.img`)."""

    METAINFO = CocoDataset.METAINFO

    def read_images(self) -> list[Image]:
        has_masks = any(getattr(step, "with_mask", False) for step in self.pipeline.transforms)
        log = ProblemLog(strict=True)
        return read_coco(Path(self.ann_file), Path(self.data_prefix.get("img") or ""), log, has_masks).images


@DATASETS.register_module()
class AnnotatedVocDataset(AnnotatedDataset):
    """A list of image ids (`ann_file`) over a folder with JPEGImages and Annotations (`data_prefix.sub_data_root`).

    Args:
        id_prefix: Stands before each id, where several lists are evaluated together.
    """

    METAINFO = VOCDataset.METAINFO

    def __init__(self, *args: Any, id_prefix: str = "", **kwargs: Any) -> None:
        self.id_prefix = id_prefix
        super().__init__(*args, **kwargs)

    def read_images(self) -> list[Image]:
        folder = Path(self.data_prefix.get("sub_data_root") or self.data_root)
        return read_voc(Path(self.ann_file), folder, ProblemLog(strict=True), self.id_prefix).images
