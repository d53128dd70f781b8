"""Find a data set on disk and check all that training depends on, before anything slow starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.common import cache
from experiments.common.errors import UserError
from experiments.common.files import explain_unreadable, is_folder
from experiments.data.download.archives import ARCHIVES
from experiments.data.inspection import SPLITS, inspect
from experiments.data.problems import KINDS, count_in_words
from experiments.data.readers.voc import ANNOTATIONS, IMAGES
from experiments.data.shapes import generator as shapes
from experiments.data.spec import DatasetSpec

_SLOW_BYTES = 50_000_000  # of a file that takes seconds to read
_MMDET_SCALE = (1333, 800)  # pixels; what MMDetection's configs fit images into


@dataclass(frozen=True)
class FoundDataset:
    """A data set that exists and can be trained on.

    Attributes:
        classes: In the order of their labels in MMDetection.
        images: Split to number of annotated images.
        fingerprint: 16 hexadecimal digits that change with the annotations' bytes, not with their path.
        problems: Split to kind of problem (`problems.KINDS`) to count.
        thinnest: Split to the image with the largest ratio of sides: path, width and height in pixels.
    """

    spec: DatasetSpec
    root: Path
    classes: list[str]
    images: dict[str, int]
    fingerprint: str
    problems: dict[str, dict[str, int]] = field(default_factory=dict)
    thinnest: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def warning_text(self) -> str:
        """What changes numbers, as `train: 3 empty boxes; val: 1 image ...`; "" where nothing does."""
        parts = []
        for split, counts in self.problems.items():
            texts = [count_in_words(n, things) for kind, n in counts.items() if (things := KINDS[kind])]
            parts += [f"{split}: {', '.join(texts)}"] if texts else []
        return "; ".join(parts)

    def warning(self) -> str | None:
        """Return one line that says what changes numbers in this data set, with the command that shows all."""
        text = self.warning_text
        see = _verify_command(self.spec, self.root)
        return f"data set '{self.spec.name}': {text}; see: {see}" if text else None

    def check_resizable(self, scale: Sequence[int] | None) -> None:
        """Raise UserError where an image is so thin that fitting it into `scale` leaves it without pixels."""
        for path, *size in self.thinnest.values():
            check_resizable(Path(path), size, scale)


def check_resizable(path: Path, size: Sequence[int], scale: Sequence[int] | None) -> None:
    """Raise UserError where an image of `size`, fitted into `scale`, gets a side of 0 pixels.

    Both are (width, height) in pixels; scale None is MMDetection's (1333, 800). It assumes MMDetection's default
    `keep_ratio=True`: without it no side can become 0.
    """
    fit_into = scale or _MMDET_SCALE
    factor = min(max(fit_into) / max(size), min(fit_into) / min(size))
    if int(min(size) * factor + 0.5) < 1:  # as mmcv rounds
        width, height = fit_into
        raise UserError(
            f"image {path}: {size[0]} x {size[1]} pixels is too thin:"
            f" fitted into {width} x {height} it has no pixels left",
            "remove the image from the data set, or pad it",
        )


def find_dataset(spec: DatasetSpec, root: Path | None = None, generate: bool = True) -> FoundDataset:
    """Return a data set that can be trained on; generate it where it is built-in and missing.

    Args:
        root: The data set's folder; None takes `spec.root`, relative to the working directory.
        generate: Whether to generate missing built-in data. If not, the result follows from its parameters.

    Raises:
        UserError: Something is missing, damaged or inconsistent; names the first such thing.
    """
    place = resolve_root(spec, root)
    made: dict[str, Any] = {}
    if spec.generate is not None:  # these follow from its parameters, whether the files exist or not
        made["classes"] = [name for name in shapes.CLASSES if not spec.classes or name in spec.classes]
        made["fingerprint"] = shapes.compute_fingerprint(spec.generate, spec.format)
        if not shapes.is_current(place, spec.generate, spec.format):
            shapes.check_place(place, spec.generate, spec.name, spec.format)
            if not generate:
                return FoundDataset(spec, place, images=shapes.count_images(spec.generate), **made)
            make(spec, place)
    check_place(spec, place)
    key = [str(place), spec.model_dump(exclude={"name", "root", "generate", "repeat"})]
    answer = cache.recall(key)
    if answer is None:
        answer, files = _inspect(spec, place)
        cache.remember(key, answer, files)
    return FoundDataset(spec, place, **{**answer, **made})


def resolve_root(spec: DatasetSpec, root: Path | None = None) -> Path:
    """Return the absolute path of the data set's folder, whether it exists or not."""
    place = Path(spec.root if root is None else root)
    return Path(os.path.expanduser(place)).absolute()  # noqa: PTH111 - Path's own raises where a `~user` has no home


def make(spec: DatasetSpec, place: Path, force: bool = False) -> None:
    """Generate built-in data at `place`, with a progress bar on standard error; raise as `shapes.generate`."""
    from rich.console import Console
    from rich.progress import Progress

    assert spec.generate is not None
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"making data set '{spec.name}' in {place}", soft_wrap=True, highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"making data set '{spec.name}'", total=None)
        shapes.generate(
            place,
            spec.generate,
            lambda done, total: progress.update(task, completed=done, total=total),
            force=force,
            name=spec.name,
            layout=spec.format,
        )


def check_place(spec: DatasetSpec, place: Path) -> None:
    """Raise UserError where the data set's folder, an annotation file or a folder of images is missing."""
    parts = [part for parts in spec.splits.values() for part in parts]
    expected = [part.annotations for part in parts]
    images = [part.images + "/" for part in parts if part.images]
    if spec.format == "voc":
        folders = [part.images + "/" if part.images else "" for part in parts]
        images = [f"{folder}{kind}/" for folder in folders for kind in (IMAGES, ANNOTATIONS)]
    elsewhere = "--data-root PATH if it is elsewhere; without data: -p tiny, which makes its own"
    if spec.name in ARCHIVES:
        elsewhere = f"msdet data download {spec.name}, or {elsewhere}"
    if spec.generate is not None:
        elsewhere = f"msdet data make {spec.name}" + _data_root(spec, place)
    if not is_folder(place):
        content = ", ".join(dict.fromkeys([*expected, *images]))
        what = "no such folder" if explain_unreadable(place) == "no such file" else "is not a folder"
        raise UserError(f"data set '{spec.name}': {what}: {place}; it should hold {content}", elsewhere)
    for name in expected:
        fault = explain_unreadable(place / name)
        if fault == "no such file":
            raise UserError(f"data set '{spec.name}': no such file: {place / name}", elsewhere)
        if fault is not None:
            raise UserError(f"data set '{spec.name}': {place / name}: {fault}")
    for name in images:
        if not is_folder(place / name):
            raise UserError(f"data set '{spec.name}': no such folder: {place / name}", elsewhere)


def _inspect(spec: DatasetSpec, place: Path) -> tuple[dict[str, Any], dict[str, cache.Stamp | None]]:
    """Return the attributes of `FoundDataset`, and the stamps of all files from before they were read."""
    lists = [place / part.annotations for split in SPLITS for part in spec.splits[split]]
    before = cache.read_stamps(lists)
    for path, stamp in before.items():
        if stamp is not None and stamp[2] > _SLOW_BYTES:
            megabytes = f"{stamp[2] / 1e6:.0f} MB"
            print(f"reading {path} ({megabytes}; remembered for next time)", file=sys.stderr)
    try:
        found = inspect(spec, place, strict=True)
    except UserError as error:
        raise UserError(error.message, _verify_command(spec, place)) from None
    files = {path for read in found.annotations.values() for path in read.sources}
    files |= {image.path for read in found.annotations.values() for image in read.images}
    answer = {
        "classes": found.classes,
        "images": {split: len(read.images) for split, read in found.annotations.items()},
        "fingerprint": found.fingerprint,
        "problems": {
            split: {kind: problem["count"] for kind, problem in log.as_dict().items()}
            for split, log in found.logs.items()
            if log.counts
        },
        "thinnest": {split: read.thinnest for split, read in found.files.items() if read.thinnest},
    }
    return answer, cache.read_stamps(files) | before


def _verify_command(spec: DatasetSpec, place: Path) -> str:
    page = Path(f"{spec.name}.yaml")  # a user's own page is named by its file
    return f"msdet data verify {page if page.is_file() else spec.name}" + _data_root(spec, place)


def _data_root(spec: DatasetSpec, place: Path) -> str:
    return "" if place == resolve_root(spec) else f" --data-root {place}"
