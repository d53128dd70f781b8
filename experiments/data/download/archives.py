"""The official archives of COCO 2017 and Pascal VOC: URL, size, checksum, content.

The publishers of the data give no checksums. The MD5 sums are those of PaddleDetection's
`ppdet/utils/download.py` (all six) and torchvision's `datasets/voc.py` (VOC). Sizes are those that the servers give.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from experiments.common.errors import UserError
from experiments.data.problems import find_missing_files
from experiments.data.readers import voc


@dataclass(frozen=True)
class Archive:
    """One archive, and what shows that its content is in place.

    Attributes:
        url: The official URL, which ends in the file's name.
        size: Bytes of the archive.
        unpacked: Approximate bytes of its content, for the check of disk space.
        md5: Published checksum, 32 hexadecimal digits.
        publisher: Who publishes the checksum.
        top: The folder in the archive whose content belongs into the data set's root; "" takes all.
        folders: Folder below the root to the minimum number of files in it.
        files: Files that must exist below the root.
        image_lists: VOC lists whose images and XML files must all exist.
    """

    url: str
    size: int
    unpacked: int
    md5: str
    publisher: str
    top: str = ""
    folders: Mapping[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    image_lists: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    def is_there(self, root: Path) -> bool:
        """Whether all of its content is in `root`."""
        return (
            all((root / name).is_file() for name in self.files)
            and all(_count(root / name) >= count for name, count in self.folders.items())
            and all(_has_images(root / name) for name in self.image_lists)
        )


def _count(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(1 for _ in entries)
    except OSError:
        return 0


def _has_images(listing: Path) -> bool:
    """Whether all images and XML files of a list `<year>/ImageSets/Main/<set>.txt` exist."""
    try:
        ids, _ = voc.read_list(listing)
    except UserError:
        return False
    return not find_missing_files(listing.parents[2], voc.list_files(ids))


_COCO = "http://images.cocodataset.org"
_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"


def _coco_images(split: str, count: int, size: int, md5: str) -> Archive:
    return Archive(f"{_COCO}/zips/{split}.zip", size, size, md5, "PaddleDetection", folders={split: count})


def _voc(path: str, size: int, md5: str, listing: str) -> Archive:
    return Archive(f"{_VOC}/{path}", size, size, md5, "torchvision", top="VOCdevkit", image_lists=(listing,))


# The small ones first, so that a full disk or a bad connection shows early.
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "coco": (
        Archive(
            url=f"{_COCO}/annotations/annotations_trainval2017.zip",
            size=252_907_541,
            unpacked=850_000_000,
            md5="f4bbac642086de4f52a3fdda2de5fa2c",
            publisher="PaddleDetection",
            files=("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        ),
        _coco_images("val2017", 5_000, 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
        _coco_images("train2017", 118_287, 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
    ),
    "voc": (
        _voc("voc2007/VOCtest_06-Nov-2007.tar", 451_020_800, "b6e924de25625d8de591ea690078ad9f",
             "VOC2007/ImageSets/Main/test.txt"),
        _voc("voc2007/VOCtrainval_06-Nov-2007.tar", 460_032_000, "c52e279531787c972589f7e41ab4ae64",
             "VOC2007/ImageSets/Main/trainval.txt"),
        _voc("voc2012/VOCtrainval_11-May-2012.tar", 1_999_639_040, "6cd6e144f989b92b3379bac3b3de84fd",
             "VOC2012/ImageSets/Main/trainval.txt"),
    ),
}  # fmt: skip
