"""Read a COCO instances JSON and give every field its type.

Any whole number is a valid id. Text is stripped. A field of a wrong type is a problem that names the file, the
entry and the field; nothing is guessed.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.common.checking import format_value
from experiments.common.errors import UserError
from experiments.common.files import read_bytes
from experiments.data.problems import MAX_PIXELS, ProblemLog, has_control_characters, is_pixels
from experiments.data.readers.annotations import Annotations, Box, Image

_AGAIN = "download or copy it again"
_MAX_EXACT_ID = 2**53  # COCO's evaluators keep ids as double-precision numbers
_NUMBERS = (int, float)  # compared with `type`, since True is an int, too


def _is_text(value: object) -> bool:
    """Whether a value is text with more than spaces in it that can be encoded."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


_WHOLE = (lambda v: type(v) is int, "a whole number")
_FILE_NAME = (lambda v: _is_text(v) and "\0" not in v, "a file name")
_NAME = (lambda v: _is_text(v) and not has_control_characters(v.strip()), "printable text in quotes")
_SIDE = (lambda v: is_pixels(v) and v >= 0 and v == int(v), "a whole number of pixels")
_BOX = (lambda v: type(v) is list and len(v) == 4 and all(map(is_pixels, v)), "[x, y, width, height]")
_AREA = (lambda v: type(v) in _NUMBERS and -MAX_PIXELS <= v <= MAX_PIXELS**2, "a number of square pixels")
_FLAG = (lambda v: type(v) in (*_NUMBERS, bool) and v in (0, 1), "0 or 1")
# Section to field to what it must be, as a test and as messages call it.
_FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {"id": _WHOLE, "file_name": _FILE_NAME, "width": _SIDE, "height": _SIDE},
    "annotations": {
        **dict.fromkeys(("id", "image_id", "category_id"), _WHOLE),
        **{"bbox": _BOX, "area": _AREA, "iscrowd": _FLAG, "ignore": _FLAG},
    },
    "categories": {"id": _WHOLE, "name": _NAME},
}
_OPTIONAL = ("width", "height", "area", "iscrowd", "ignore")  # null stands for none, too


def read_coco(path: Path, folder: Path, log: ProblemLog, masks: bool = False) -> Annotations:
    """Return the images of an instances JSON with their boxes, in the order of the file.

    Args:
        folder: The folder that the file's names start from.
        log: Receives the problems of single entries, which are left out.
        masks: Whether to keep the annotations' segmentations, which are most of the file.

    Raises:
        UserError: The file is missing, not readable, not JSON, or not in COCO's instances format; or the log is
            strict and an entry is wrong.
    """
    content, digest = _parse(path, masks)
    images: dict[int, Image] = {}
    for entry in _entries(content, "images", path, log):
        if entry["id"] not in images:
            images[entry["id"]] = image = Image(entry["id"], folder / entry["file_name"], _size(entry))
            if image.size is None:
                log.add("image without size", str(image.path))
    names = {e["id"]: e["name"].strip() for e in _entries(content, "categories", path, log)}
    _check_names(list(names.values()), path, log)
    for entry in _entries(content, "annotations", path, log):
        owner, name = images.get(entry["image_id"]), names.get(entry["category_id"])
        if owner is None:
            text = f"{_label(entry)}: image_id {format_value(entry['image_id'])} is not among the images"
            log.add("unknown image id", text, path)
        if name is None:
            text = f"{_label(entry)}: category_id {format_value(entry['category_id'])} is not among the categories"
            log.add("unknown category id", text, path)
        if owner is not None and name is not None:
            owner.boxes.append(_box(entry, name, log))
    return Annotations(
        list(images.values()),
        list(dict.fromkeys(names.values())),
        {name: number for number, name in reversed(names.items())},
        [path],
        [(len(content["images"]), digest)],
    )


def _parse(path: Path, masks: bool) -> tuple[dict[str, Any], bytes]:
    """Return the mapping that a JSON holds, and the SHA-256 of its bytes."""
    raw = read_bytes(path)
    if not raw.strip():
        raise UserError(f"{path}: is empty", _AGAIN)
    digest = hashlib.sha256(raw).digest()
    try:
        text = raw.decode(json.detect_encoding(raw))
        del raw  # as large as the text
        content = _loads(text, masks)
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        cut = " (the file looks cut off)" if at_end else ""
        place = f"line {error.lineno}, column {error.colno}, character {error.pos} of {len(error.doc)}"
        raise UserError(f"{path}: not valid JSON{cut}: {error.msg} at {place}", _AGAIN) from None
    except (ValueError, RecursionError) as error:  # an encoding, thousands of digits, deep nesting
        raise UserError(f"{path}: not valid JSON: {error}", _AGAIN) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not in COCO format: it holds a {type(content).__name__}, not a mapping")
    for key in _FIELDS:
        if not isinstance(content.get(key), list):
            what = "is not a list" if key in content else "is missing"
            needed = ", ".join(_FIELDS)
            raise UserError(f"{path}: not in COCO's instances format: '{key}' {what}; needed: {needed}")
    return content, digest


def _loads(text: str, masks: bool) -> Any:
    """Parse JSON without the garbage collector, which would scan millions of new objects again and again.

    Segmentations that are not wanted are dropped as each entry is parsed: they are most of the memory.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text, object_hook=None if masks else _without_mask)
    finally:
        if collecting:
            gc.enable()


def _without_mask(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _entries(content: dict[str, Any], section: str, path: Path, log: ProblemLog) -> Iterator[dict[str, Any]]:
    """Yield the valid entries of a section, and log the others."""
    seen: set[int] = set()
    for index, entry in enumerate(content[section]):
        fault = _fault(entry, section)
        if fault is not None:
            log.add("annotation entry wrong", f"{section}[{index}]: {fault}", path)
            continue
        number = entry["id"]
        if number in seen:
            log.add("duplicate id", f"{section}: id {format_value(number)} is given to two entries", path)
        seen.add(number)
        least = 1 if section == "annotations" else 0
        if section != "categories" and not least <= number < _MAX_EXACT_ID:
            log.add("unusual id", f"{section}[{index}]: id {format_value(number)}")
        yield entry


def _fault(entry: Any, section: str) -> str | None:
    """Return what an entry lacks or has of a wrong type; None for a valid one."""
    if not isinstance(entry, dict):
        return f"{format_value(entry)} is not a mapping"
    for key, (is_valid, expected) in _FIELDS[section].items():
        value = entry.get(key)
        if value is None and key in _OPTIONAL:
            continue
        if key not in entry:
            return f"'{key}' is missing"
        if not is_valid(value):
            return f"{key} {format_value(value)} is not {expected}"
    return None


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    width, height = int(entry.get("width") or 0), int(entry.get("height") or 0)
    return (width, height) if width and height else None


def _box(entry: dict[str, Any], name: str, log: ProblemLog) -> Box:
    x, y, width, height = entry["bbox"]
    role, area = "", entry.get("area")
    if entry.get("iscrowd"):
        role = "crowd"
    elif entry.get("ignore"):
        role = "ignore"
        log.add("box marked ignore", _label(entry))
    if area is None or area <= 0:
        area = max(width, 0) * max(height, 0)
        if area > 0:
            log.add("box without area", _label(entry))
    return Box(name, (x, y, width, height), area, role, entry["id"], entry.get("segmentation"))


def _label(entry: dict[str, Any]) -> str:
    return f"annotation {format_value(entry['id'])}"


def _check_names(names: list[str], path: Path, log: ProblemLog) -> None:
    if not names:
        log.add("classes wrong", "categories: there are none", path)
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            log.add("classes wrong", f"categories: '{name}' is the name of two", path)
