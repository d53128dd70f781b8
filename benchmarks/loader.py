"""Loading: images a second of a core, MMDetection's data set against msdet's, and how long annotations take to read."""

from __future__ import annotations

import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation import CLASSES, HEIGHT, WIDTH
from benchmarks.ratios import Progress, estimate_ratio, take_turns

PAPER_SIZE = (1333, 800)  # pixels
FILES = 24
BOXES_PER_IMAGE = 7.27  # of COCO's train2017


def measure(images: int, size: tuple[int, int], rounds: int, progress: Progress) -> dict[str, Any]:
    """Return how fast images are loaded, and seconds and memory of annotations that are read first and again.

    Args:
        images: Of the annotations; COCO's train2017 has 118,287.
        size: (width, height) in pixels that images are fitted into.
        rounds: Turns of either data set, each with all image files.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        progress("made-up images")
        return {
            "images": _measure_images(folder, size, rounds),
            "annotations": _measure_annotations(folder, images, progress),
        }


def _measure_images(folder: Path, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    import cv2

    from experiments.detection import operators  # noqa: F401  (importing it installs them)
    from experiments.training.datasets import AnnotatedCocoDataset

    from mmdet.datasets import CocoDataset  # isort: skip
    from mmdet.utils import register_all_modules  # isort: skip

    register_all_modules(init_default_scope=True)
    random = np.random.default_rng(0)
    for number in range(FILES):  # blurred noise compresses about as photographs do
        noise = random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), 3 * cv2.GaussianBlur(noise, (0, 0), 2))
    write_annotations(folder / "images.json", FILES)
    pipeline = [
        dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True),
        dict(type="Resize", scale=size, keep_ratio=True), dict(type="RandomFlip", prob=0.5), dict(type="PackDetInputs"),
    ]  # fmt: skip
    classes = tuple(f"class {number}" for number in range(CLASSES))
    options = dict(data_root=str(folder), ann_file="images.json", data_prefix=dict(img=""), pipeline=pipeline,
                   metainfo=dict(classes=classes))  # fmt: skip
    loaders = {"stock": CocoDataset(**options), "msdet": AnnotatedCocoDataset(**options)}
    (stock, _), (msdet, _) = (_load(loader) for loader in loaders.values())
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for _, name in take_turns(loaders, rounds):
        seconds[name].append(_load(loaders[name])[1])
    return {
        "size": list(size),
        "a second and core": {name: FILES / float(np.median(took)) for name, took in seconds.items()},
        "time, msdet / stock": estimate_ratio(seconds["msdet"], seconds["stock"]),
        "equal": all(a["inputs"].equal(b["inputs"]) for a, b in zip(stock, msdet)),
    }


def _load(dataset: Any) -> tuple[list[Any], float]:
    """Return all images, flipped alike by whatever loads them, and the seconds of processor time."""
    np.random.seed(0)
    began = time.process_time()
    return [dataset[index] for index in range(len(dataset))], time.process_time() - began


def _measure_annotations(folder: Path, images: int, progress: Progress) -> dict[str, Any]:
    path = folder / "annotations.json"
    write_annotations(path, images)
    os.utime(path, (0, 0))  # what changed just now is not cached
    found: dict[str, Any] = {"images": images, "MB": path.stat().st_size / 1e6}
    for start in ("first", "second"):
        progress(f"{start} start with {images} images")
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found[f"{start} start"] = pool.submit(_start, path, folder / "cache").result()
    return found


def _start(path: Path, cache: Path) -> dict[str, float]:
    """Return the processor time that this new process takes for annotations, and how much its memory grows.

    The process imports this module, so heavy packages are imported by the functions that need them.
    """
    from experiments.data.readers.image_table import ImageTable
    from experiments.data.readers.stored import recall_coco

    os.environ["XDG_CACHE_HOME"] = str(cache)
    before, began = _peak_mib(), time.process_time()
    ImageTable.of(recall_coco(path, path.parent)).have_boxes_of(["class 0"])
    return {"s": time.process_time() - began, "MiB": _peak_mib() - before}


def _peak_mib() -> float:
    """Return the highest memory of this process; `getrusage` would begin with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def write_annotations(path: Path, images: int) -> None:
    """Write an instances JSON with as many boxes an image as COCO has, and polygons as long, all made up."""
    random = np.random.default_rng(0)
    sizes = {"width": WIDTH, "height": HEIGHT}
    listed = [{"id": number, "file_name": f"{number}.jpg", **sizes} for number in range(images)]
    categories = [{"id": number, "name": f"class {number}"} for number in range(CLASSES)]
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(
            f'{{"images": {json.dumps(listed)}, "categories": {json.dumps(categories)}, "annotations": ['
        )
        for number in range(round(images * BOXES_PER_IMAGE)):
            _, _, width, height = box = random.uniform(10, 200, 4).round(2).tolist()
            polygon = random.uniform(0, 400, random.integers(20, 84)).round(2).tolist()
            place = {"id": number, "image_id": int(random.integers(images)), "category_id": number % CLASSES}
            entry = {**place, "bbox": box, "area": width * height, "iscrowd": 0, "segmentation": [polygon]}
            stream.write((", " if number else "") + json.dumps(entry))
        stream.write("]}")
