"""The built-in data set `shapes`: generated from a few parameters, on disk in COCO or VOC format.

ROOT/shapes.json, the manifest, has the parameters and the generator's version. `layouts.py` has the other files,
`drawing.py` the images. A set is complete or absent: it is built in a folder beside the root and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from experiments.common.checking import check_keys, validate
from experiments.common.errors import UserError
from experiments.common.files import refusing
from experiments.data.problems import find_missing_files
from experiments.data.readers import Box
from experiments.data.shapes.layouts import CLASSES, GENERATOR_VERSION, CocoLayout, VocLayout

MANIFEST = "shapes.json"
SPLITS = ("train", "val")
LAYOUTS: dict[str, CocoLayout | VocLayout] = {"coco": CocoLayout(), "voc": VocLayout()}
JPEG_QUALITY = 95  # of 100
_EMPTY_EVERY = 50  # every 50th training image shows no object

Progress = Callable[[int, int], None]


class Parameters(BaseModel, extra="forbid"):
    """Parameters of a shapes data set."""

    seed: Annotated[int, Field(ge=0)] = 0
    train_images: Annotated[int, Field(ge=1, le=1_000_000)] = 400
    val_images: Annotated[int, Field(ge=1, le=1_000_000)] = 150
    size: Annotated[int, Field(ge=32, le=4096, description="side of the square images, pixels")] = 160
    min_side: Annotated[float, Field(ge=4, description="shortest longer side of a box, pixels")] = 12.0
    max_side: Annotated[float, Field(description="longest longer side of a box, pixels")] = 130.0

    @model_validator(mode="after")
    def _ordered(self) -> Parameters:
        if not self.min_side < self.max_side <= self.size:
            raise ValueError(
                f"min_side {self.min_side:g} and max_side {self.max_side:g} must satisfy"
                f" min_side < max_side <= size ({self.size})"
            )
        return self


def check_parameters(params: Mapping[str, Any]) -> Parameters:
    """Return all parameters; raise UserError where one is unknown or not allowed."""
    check_keys(dict(params), Parameters, "data set, generate")
    return validate(Parameters, dict(params), "data set, generate")


def count_images(params: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of images by split."""
    checked = check_parameters(params)
    return {"train": checked.train_images, "val": checked.val_images}


def compute_fingerprint(params: Mapping[str, Any], layout: str = "coco") -> str:
    """Return 16 hexadecimal digits from the parameters, layout and generator version; needs no files."""
    return hashlib.sha256(json.dumps(_manifest(params, layout), sort_keys=True).encode()).hexdigest()[:16]


def is_current(root: Path, params: Mapping[str, Any], layout: str = "coco") -> bool:
    """Whether `root` holds the complete set of these parameters and layout, by this generator version."""
    if _read_manifest(root) != _manifest(params, layout):
        return False
    counts = count_images(params).items()
    expected = [path for split, count in counts for path in LAYOUTS[layout].files(split, count)]
    return not find_missing_files(root, expected)


def check_place(root: Path, params: Mapping[str, Any], name: str, layout: str) -> None:
    """Raise UserError where generating a set at `root` would delete files."""
    if not root.exists() or is_current(root, params, layout):
        return
    if not root.is_dir():
        raise UserError(f"{root}: is a file; the data set '{name}' needs a folder", "--data-root PATH")
    if _read_manifest(root) is not None:
        text = f"{root}: holds shapes of other parameters, another format or version, or not all of them"
        raise UserError(text, f"msdet data make {name} --force --data-root {root}   (deletes the old set)")
    if any(root.iterdir()):
        text = f"{root}: is not empty and holds no {MANIFEST}, so the data set '{name}' is not made there"
        raise UserError(text, f"msdet data make {name} --data-root ANOTHER_FOLDER")


def generate(
    root: Path,
    params: Mapping[str, Any],
    progress: Progress | None = None,
    *,
    force: bool = False,
    name: str = "shapes",
    layout: str = "coco",
) -> None:
    """Generate the set at `root`, unless it exists.

    Args:
        params: Those of the data set's `generate`.
        progress: Called with (images done, images in all).
        force: Whether to replace an existing set, even one of the same parameters; never a folder without a shapes
            manifest, or one with other files.
        layout: A key of LAYOUTS.

    Raises:
        UserError: A parameter is wrong, `root` has other content, or it cannot be written.
    """
    checked = check_parameters(params)
    root = root.resolve()
    if force:
        _check_removable(root)
    elif is_current(root, params, layout):
        return
    else:
        check_place(root, params, name, layout)
    building = root.parent / f".{root.name}.{secrets.token_hex(4)}.tmp"
    try:
        failure = f"{root}: the data set cannot be written there"
        with refusing(failure, "--data-root PATH to put it elsewhere"):
            building.mkdir(parents=True)
            _build(building, checked, layout, progress)
            _move_into_place(building, root, params, layout, force)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def make_image_rng(seed: int, split: str, index: int) -> Any:
    """Return the random generator of one image."""
    import numpy as np

    return np.random.default_rng(np.random.SeedSequence((seed, SPLITS.index(split), index)))


def _build(folder: Path, params: Parameters, layout: str, progress: Progress | None) -> None:
    counts, done, on_disk = count_images(params.model_dump()), 0, LAYOUTS[layout]
    for below in on_disk.folders:
        (folder / below).mkdir(parents=True)
    for split, count in counts.items():
        scenes = []
        for index in range(count):
            scenes.append(_make_image(folder / on_disk.image(split, index), params, split, index))
            done += 1
            if progress is not None:
                progress(done, sum(counts.values()))
        on_disk.write(folder, split, scenes, params.size)
    manifest = json.dumps(_manifest(params.model_dump(), layout), indent=2) + "\n"
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")


def _make_image(path: Path, params: Parameters, split: str, index: int) -> list[Box]:
    """Write one image and return its objects."""
    import cv2

    from experiments.data.shapes.drawing import draw_image

    empty = split == "train" and index % _EMPTY_EVERY == _EMPTY_EVERY - 1
    rng = make_image_rng(params.seed, split, index)
    image, shapes = draw_image(rng, params.size, (params.min_side, params.max_side), empty)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    path.write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())
    return [Box(CLASSES[shape.category], shape.box, shape.area) for shape in shapes]


def _move_into_place(building: Path, root: Path, params: Mapping[str, Any], layout: str, force: bool) -> None:
    """Rename the finished folder to `root`; an old set is deleted after that."""
    if force and root.exists():
        old = building.with_suffix(".old")
        root.rename(old)
        building.rename(root)
        shutil.rmtree(old, ignore_errors=True)
        return
    try:
        building.rename(root)
    except OSError:
        if not is_current(root, params, layout):  # else another process has generated the same set
            raise


def _check_removable(root: Path) -> None:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if _read_manifest(root) is None:
        raise UserError(f"{root}: holds no {MANIFEST}, so it is not deleted", "--data-root ANOTHER_FOLDER")
    folders = {Path(folder).parts[0] for layout in LAYOUTS.values() for folder in layout.folders}
    others = sorted({path.name for path in root.iterdir()} - folders - {MANIFEST})
    if others:
        also = ", ".join(others[:3])
        raise UserError(f"{root}: also holds {also}, so it is not deleted", f"move {others[0]} elsewhere")


def _manifest(params: Mapping[str, Any], layout: str) -> dict[str, Any]:
    content = {"generator_version": GENERATOR_VERSION, "parameters": check_parameters(params).model_dump()}
    if layout != "coco":  # so that fingerprints from before VOC stay
        content["format"] = layout
    return content


def _read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest; {} for a damaged one, None where there is none."""
    try:
        content = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
