"""Finds a data set on disk and checks all that training rests on, before anything slow starts."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.data import cache, coco, shapes, voc
from experiments.data.archives import ARCHIVES
from experiments.data.problems import missing_files
from experiments.data.spec import DatasetSpec
from experiments.errors import UserError, did_you_mean, nearest

_SLOW_MB = 50


@dataclass(frozen=True)
class FoundDataset:
    """A data set that is there and can be trained on.

    `classes` stand in the order in which MMDetection numbers them. `images` counts what the annotations list,
    by split. `fingerprint` (16 hexadecimal digits) changes with the annotations' bytes, not with their place.
    """

    spec: DatasetSpec
    root: Path
    classes: list[str]
    images: dict[str, int]
    fingerprint: str


def find_dataset(spec: DatasetSpec, root: Path | None = None, generate: bool = True) -> FoundDataset:
    """Looks for the data set, makes it where it is a built-in one, reads its classes, counts its images.

    Args:
        spec: What to look for.
        root: Its folder; None takes `spec.root`, relative to the working directory.
        generate: Whether missing built-in data may be made. If not, the answer follows from its parameters.

    Raises:
        UserError: Something is missing, damaged or does not fit together; names the first such thing.
    """
    place = resolve_root(spec, root)
    made: dict[str, Any] = {}
    if spec.generate is not None:  # what follows from its parameters, whether the files are there or not
        made["classes"] = _chosen(spec, list(shapes.CLASSES), "the shapes")
        made["fingerprint"] = shapes.fingerprint(spec.generate, spec.format)
        if not _provide(spec, place, generate):
            return FoundDataset(spec, place, images=shapes.image_counts(spec.generate), **made)
    check_place(spec, place)
    key = [str(place), spec.format, spec.classes, spec.model_dump()["splits"]]
    answer = cache.recall(key)
    if answer is None:
        answer, rests_on = (_read_coco if spec.format == "coco" else _read_voc)(spec, place)
        cache.remember(key, answer, rests_on)
    return FoundDataset(spec, place, **{**answer, **made})


def resolve_root(spec: DatasetSpec, root: Path | None = None) -> Path:
    """The absolute path of the data set's folder, whether it exists or not."""
    place = Path(spec.root if root is None else root)
    with contextlib.suppress(RuntimeError):  # `~someone` who is not there
        place = place.expanduser()
    return place.absolute()


def _provide(spec: DatasetSpec, place: Path, generate: bool) -> bool:
    """Sees to built-in data. Returns whether it is there; UserError where it cannot be made."""
    assert spec.generate is not None
    if shapes.is_current(place, spec.generate, spec.format):
        return True
    shapes.check_place(place, spec.generate, spec.name, spec.format)
    if not generate:
        return False
    make(spec, place)
    return True


def make(spec: DatasetSpec, place: Path, force: bool = False) -> None:
    """Makes built-in data at `place` and shows progress on standard error; raises as `shapes.generate`."""
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
    """Raises UserError where the folder or an annotation file is missing."""
    expected = [part.annotations for parts in spec.splits.values() for part in parts]
    images = [part.images + "/" if part.images else "" for parts in spec.splits.values() for part in parts]
    if spec.format == "voc":
        images = [f"{folder}{kind}/" for folder in images for kind in (voc.IMAGES, voc.ANNOTATIONS)]
    elsewhere = "--data-root PATH if it is elsewhere; without data: -p tiny, which makes its own"
    if spec.name in ARCHIVES:
        elsewhere = f"msdet data download {spec.name}, or {elsewhere}"
    if spec.generate is not None:
        elsewhere = f"msdet data make {spec.name}" + _data_root(spec, place)
    if not place.is_dir():
        content = ", ".join(dict.fromkeys([*expected, *filter(None, images)]))
        what = "is not a folder" if place.exists() else "no such folder"
        raise UserError(f"data set '{spec.name}': {what}: {place}; it should hold {content}", elsewhere)
    for name in expected:
        if not (place / name).is_file():
            raise UserError(f"data set '{spec.name}': no such file: {place / name}", elsewhere)
    for name in filter(None, images):
        if not (place / name).is_dir():
            raise UserError(f"data set '{spec.name}': no such folder: {place / name}", elsewhere)


def _read_coco(spec: DatasetSpec, place: Path) -> tuple[dict[str, Any], dict[str, cache.Stamp | None]]:
    digest, counts, rests_on = hashlib.sha256(), {}, {}
    names: dict[str, list[str]] = {}
    for split in ("train", "val"):
        part = spec.splits[split][0]
        path, folder = place / part.annotations, place / part.images
        rests_on.update(cache.stamps([path]))
        _say_if_slow(path)
        content, raw = coco.read(path)
        for problem in coco.problems(content):
            raise UserError(f"{path}: {problem.text}", _all_problems(spec, place))
        names[split] = _chosen(spec, coco.class_names(content), str(path))
        files = [image["file_name"] for image in content["images"]]
        rests_on.update(_check_images(spec, place, folder, files, path))
        if split == "train" and not coco.has_boxes(content, names[split]):
            raise UserError(f"{path}: holds no boxes to train on", _all_problems(spec, place))
        counts[split] = len(files)
        _add(digest, split, len(files), raw)
    if names["train"] != names["val"]:
        raise UserError(_disagreement(spec, place, names["train"], names["val"]), _all_problems(spec, place))
    answer = {"classes": names["train"], "images": counts, "fingerprint": digest.hexdigest()[:16]}
    return answer, rests_on


def _read_voc(spec: DatasetSpec, place: Path) -> tuple[dict[str, Any], dict[str, cache.Stamp | None]]:
    digest, counts, rests_on = hashlib.sha256(), {}, {}
    met: dict[str, dict[str, Path]] = {"train": {}, "val": {}}  # class to the first file that names it
    trainable = False
    for split in ("train", "val"):
        counts[split] = 0
        for part in spec.splits[split]:
            path, folder = place / part.annotations, place / part.images
            rests_on.update(cache.stamps([path]))
            ids, raw = voc.read_list(path)
            _add(digest, split, len(ids), raw)
            images = folder / voc.IMAGES
            rests_on.update(_check_images(spec, place, images, [f"{i}.jpg" for i in ids], path))
            for xml in (folder / voc.ANNOTATIONS / f"{i}.xml" for i in ids):
                rests_on.update(cache.stamps([xml]))
                image, raw = voc.read_xml(xml)
                digest.update(hashlib.sha256(raw).digest())
                for thing in image.objects:
                    met[split].setdefault(thing.name, xml)
                    trainable |= split == "train" and not thing.difficult and min(thing.size) >= 1
            counts[split] += len(ids)
    train = place / spec.splits["train"][0].annotations
    if not trainable:
        raise UserError(f"{train}: its XML files hold no boxes to train on", _all_problems(spec, place))
    if spec.generate is None:  # a small built-in set may lack a shape by chance
        _check_voc_classes(spec, met, train)
    answer = {
        "classes": list(spec.classes) or sorted(met["train"]),
        "images": counts,
        "fingerprint": digest.hexdigest()[:16],
    }
    return answer, rests_on


def _check_voc_classes(spec: DatasetSpec, met: dict[str, dict[str, Path]], train: Path) -> None:
    if spec.classes:
        _chosen(spec, sorted(met["train"]), f"the XML files listed in {train}")
        return
    for name, xml in sorted(met["val"].items()):
        if name not in met["train"]:
            known = did_you_mean(name, met["train"])
            raise UserError(
                f"{xml}: class '{name}' is not met in the training set; {known}",
                f"correct it, or list the classes to use under `classes:` of data set '{spec.name}'",
            )


def _check_images(
    spec: DatasetSpec, place: Path, folder: Path, files: list[str], source: Path
) -> dict[str, cache.Stamp | None]:
    """Raises UserError unless all images that `source` names exist; returns stamps of their folders."""
    if not files:
        raise UserError(f"{source}: holds no images")
    before = cache.stamps({folder / file.rpartition("/")[0] for file in files})
    missing = missing_files(folder, files)
    if missing:
        why = "; VOC images must be .jpg, MMDetection looks for no other" if spec.format == "voc" else ""
        raise UserError(
            f"{len(missing)} of the {len(files)} images that {source} names are missing,"
            f" the first is {folder / missing[0]}{why}",
            _all_problems(spec, place),
        )
    return before


def _chosen(spec: DatasetSpec, there: list[str], where: str) -> list[str]:
    """The classes to use, in the order of the annotations; UserError where they lack one."""
    for name in spec.classes:
        if name not in there:
            best = nearest(name, there)
            close = f"did you mean '{best}'? " if best else ""
            listed = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
            raise UserError(
                f"data set '{spec.name}', classes: '{name}' is not in {where}; {close}there are: {listed}"
            )
    return [name for name in there if not spec.classes or name in spec.classes]


def _disagreement(spec: DatasetSpec, place: Path, train: list[str], val: list[str]) -> str:
    """Where two lists of categories differ first: classes are numbered by their order, so that counts too."""
    start = f"{place / spec.splits['val'][0].annotations}: its categories differ from the training set's"
    for name in val:
        if name not in train:
            return f"{start}: '{name}' is only here; {did_you_mean(name, train)}"
    for name in train:
        if name not in val:
            return f"{start}: '{name}' is missing"
    first = next(i for i, (a, b) in enumerate(zip(train, val)) if a != b)
    return f"{start} in their order: number {first + 1} is '{val[first]}' here and '{train[first]}' there"


def _say_if_slow(path: Path) -> None:
    """A line on standard error before a pause of many seconds, so that it does not look like a standstill."""
    with contextlib.suppress(OSError):
        megabytes = path.stat().st_size / 1e6
        if megabytes > _SLOW_MB:
            print(f"reading {path} ({megabytes:.0f} MB; remembered for next time)", file=sys.stderr)


def _add(digest: Any, split: str, images: int, raw: bytes) -> None:
    digest.update(f"{split} {images}\n".encode())
    digest.update(hashlib.sha256(raw).digest())


def _all_problems(spec: DatasetSpec, place: Path) -> str:
    return f"msdet data verify {spec.name}" + _data_root(spec, place)


def _data_root(spec: DatasetSpec, place: Path) -> str:
    return "" if place == resolve_root(spec) else f" --data-root {place}"
