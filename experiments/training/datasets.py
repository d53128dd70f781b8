"""Data sets that MMEngine trains and evaluates on, read by msdet's own reader.

MMDetection's CocoDataset and VOCDataset read the same files by rules of their own: they drop boxes and images
without a word, and take the 20 VOC classes from a path with `VOC2007` in it. Here one reader serves training,
evaluation and `msdet data verify`, so that all of them mean the same boxes.
"""

from __future__ import annotations

import copy
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments import detection  # noqa: F401  (first: installs operators before MMDetection is imported)

from mmdet.datasets import CocoDataset, VOCDataset  # isort: skip
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import DATASETS
from mmengine.dataset import force_full_init

from experiments.common.errors import UserError
from experiments.data.image_files import decode, read_image_facts
from experiments.data.problems import ProblemLog
from experiments.data.readers import Annotations
from experiments.data.readers.annotations import classify_box
from experiments.data.readers.image_table import ImageTable
from experiments.data.readers.stored import recall_coco
from experiments.data.readers.voc import read_voc


class ImageError(UserError):
    """An image that cannot be used; its message survives the way out of a data worker process."""

    def __init__(self, message: str) -> None:
        # torch raises it anew with the worker's traceback as its text, where one line begins with the class's name
        name = re.escape(f"{type(self).__module__}.{type(self).__qualname__}: ")
        own = re.split(f"^{name}", message, maxsplit=1, flags=re.MULTILINE)[-1]
        super().__init__(own, "msdet data verify NAME   (shows all such images; repair or remove them)")


class DataInfos(Sequence[dict]):
    """MMDetection's data infos of the images that are used, each made from the table when it is asked for.

    Args:
        table: All images.
        classes: In the order of their labels.
        rules: `filter_cfg` of a training set; None uses all images and boxes.
    """

    def __init__(self, table: ImageTable, classes: Sequence[str], rules: Mapping[str, Any] | None) -> None:
        self.table, self.rules = table, rules
        self.labels = {name: label for label, name in enumerate(classes)}
        self.sizes = table.columns["size"].copy()
        for index in np.flatnonzero(self.sizes.min(1) == 0).tolist():
            self.sizes[index] = read_image_facts(Path(table.path(index))).size or (0, 0)
        is_used = np.ones(len(table), bool)
        if rules is not None:
            is_used &= self.sizes.min(1) >= rules.get("min_size", 0)
            if rules.get("filter_empty_gt", False):
                is_used &= table.have_boxes_of(self.labels)
        self.indices = np.flatnonzero(is_used)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            part = copy.copy(self)
            part.indices = self.indices[place]
            return part
        index = self.indices.item(place)
        size = width, height = self.sizes[index].tolist()
        min_box_size = None if self.rules is None else self.rules.get("bbox_min_size") or 1
        instances = []
        for box in self.table.boxes(index):
            label = self.labels.get(box.category)
            if label is None:
                continue
            reason = None if min_box_size is None else classify_box(box, size, min_box_size)
            if reason in (None, "box under min_box_size"):
                is_ignored = box.is_ignored or reason is not None
                instance = dict(bbox=list(box.corners), bbox_label=label, ignore_flag=int(is_ignored))
                instances.append({**instance, "mask": box.segmentation} if box.segmentation else instance)
        return dict(
            img_path=self.table.path(index), img_id=self.table.columns["id"].item(index), width=width,
            height=height, instances=instances,
        )  # fmt: skip

    def __deepcopy__(self, memo: Any) -> DataInfos:
        return self  # nothing in it changes


class AnnotatedDataset(BaseDetDataset):
    """One annotation file and its images.

    `filter_cfg` takes, for training: `filter_empty_gt` (leave out images without any box of the classes), `min_size`
    and `bbox_min_size` (pixels; shorter images are left out, smaller boxes are not learnt).

    Raises:
        UserError: The annotations are broken; names the file and the entry.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["serialize_data"] = False  # the table is compact, and shared, already
        super().__init__(*args, **kwargs)
        steps = self.pipeline.transforms
        if steps and type(steps[-1]) is PackDetInputs:
            steps.insert(-1, split_planes)

    @abstractmethod
    def read_annotations(self) -> Annotations:
        """Return the images of `ann_file` in its order."""

    def load_data_list(self) -> Sequence[dict]:
        """Return MMDetection's data infos, after all that is left out."""
        infos = DataInfos(
            ImageTable.of(self.read_annotations()),
            self.metainfo["classes"],
            None if self.test_mode else self.filter_cfg or {},
        )
        return infos if self.proposal_file is None else list(infos)  # MMDetection writes proposals into them

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return MMDetection's data info of an image, with its place as `sample_idx`."""
        if isinstance(self.data_list, DataInfos):
            return {**self.data_list[idx], "sample_idx": range(len(self))[idx]}
        return super().get_data_info(idx)

    def filter_data(self) -> Sequence[dict]:
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


def split_planes(results: dict[str, Any]) -> dict[str, Any]:
    """Lay an image out in memory as PackDetInputs wants it: one plane after the other, and not mirrored by a view.

    Its values and its shape stay. PackDetInputs then copies nothing; OpenCV copies in a third of its time.
    """
    image = results.get("img")
    if image is not None and image.ndim == 3 and image.dtype in (np.uint8, np.float32):
        for axis in (0, 1):
            if image.strides[axis] < 0:
                image = cv2.flip(np.flip(image, axis), axis)
        planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
        for number, plane in enumerate(planes):
            cv2.extractChannel(image, number, plane)
        results["img"] = planes.transpose(1, 2, 0)
    return results


@DATASETS.register_module()
class AnnotatedCocoDataset(AnnotatedDataset):
    """An instances JSON (`ann_file`) and its images (`data_prefix.img`)."""

    METAINFO = CocoDataset.METAINFO

    def read_annotations(self) -> Annotations:
        has_masks = any(getattr(step, "with_mask", False) for step in self.pipeline.transforms)
        return recall_coco(Path(self.ann_file), Path(self.data_prefix.get("img") or ""), has_masks)


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

    def read_annotations(self) -> Annotations:
        folder = Path(self.data_prefix.get("sub_data_root") or self.data_root)
        return read_voc(Path(self.ann_file), folder, ProblemLog(strict=True), self.id_prefix)
