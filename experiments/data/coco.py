"""Reads and checks a COCO instances JSON, as MMDetection's CocoDataset and the COCO evaluators need it."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from experiments.data.problems import Problem, shown_value
from experiments.errors import UserError

_KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}
_AGAIN = "download or copy it again"


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON's content and its bytes.

    Raises:
        UserError: Not there, not readable, not JSON (with the position), or not in COCO's instances format.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not raw.strip():
        raise UserError(f"{path}: is empty", _AGAIN)
    try:
        content = _parse(raw.decode())
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        cut = " (the file looks cut off)" if at_end else ""
        place = f"line {error.lineno}, column {error.colno}, character {error.pos} of {len(error.doc)}"
        raise UserError(f"{path}: not valid JSON{cut}: {error.msg} at {place}", _AGAIN) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}", _AGAIN) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not in COCO format: it holds a {type(content).__name__}, not a mapping")
    for key in _KEYS:
        if not isinstance(content.get(key), list):
            what = "is not a list" if key in content else "is missing"
            needed = ", ".join(_KEYS)
            raise UserError(f"{path}: not in COCO's instances format: '{key}' {what}; needed: {needed}")
    return content, raw


def _parse(text: str) -> Any:
    """`json.loads` without the garbage collector, which would walk millions of new objects over and over."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text)
    finally:
        if collecting:
            gc.enable()


def problems(content: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the entries, in the order of the file; empty boxes and the like are `verify`'s."""
    sound: dict[str, list[dict[str, Any]]] = {}
    for section in _KEYS:
        sound[section], seen = [], set()
        for index, entry in enumerate(content[section]):
            lack = _lack(entry, section)
            if lack is not None:
                yield Problem("annotation entry wrong", f"{section}[{index}]: {lack}")
                continue
            sound[section].append(entry)
            if entry["id"] in seen:
                yield Problem("duplicate id", f"{section}: id {entry['id']} is given to two entries")
            seen.add(entry["id"])
    images = {e["id"] for e in sound["images"]}
    categories = {e["id"] for e in sound["categories"]}
    for entry in sound["annotations"]:
        if entry["image_id"] not in images:
            text = f"annotation {entry['id']}: image_id {entry['image_id']} is not among the images"
            yield Problem("unknown image id", text)
        if entry["category_id"] not in categories:
            text = f"annotation {entry['id']}: category_id {entry['category_id']} is not among the categories"
            yield Problem("unknown category id", text)
    yield from _name_problems(sound["categories"])


def sound_entries(content: dict[str, Any], section: str) -> list[dict[str, Any]]:
    """The entries of `images`, `annotations` or `categories` that have all they need."""
    return [entry for entry in content[section] if _lack(entry, section) is None]


def class_names(content: dict[str, Any]) -> list[str]:
    """Categories in the order of the file: MMDetection and the evaluators number classes by that order."""
    return [entry["name"] for entry in sound_entries(content, "categories")]


def _lack(entry: Any, section: str) -> str | None:
    """What an entry needs and does not have; None where it is sound."""
    if not isinstance(entry, dict):
        return f"{shown_value(entry)} is not a mapping"
    for key in _KEYS[section]:
        if key not in entry:
            return f"'{key}' is missing"
        if key.endswith("id") and type(entry[key]) is not int:  # the evaluators take no other
            return f"{key} {shown_value(entry[key])} is not a whole number"
    if section == "images":
        return _image_lack(entry)
    if section == "annotations":
        return _annotation_lack(entry)
    if not isinstance(entry["name"], str):
        return f"name {shown_value(entry['name'])} is not text; put it in quotes"
    return None


def _image_lack(entry: dict[str, Any]) -> str | None:
    if not isinstance(entry["file_name"], str) or not entry["file_name"]:
        return f"file_name {shown_value(entry['file_name'])} is not a file name"
    for key in ("width", "height"):
        if not _is_number(entry[key]) or entry[key] <= 0:
            return f"{key} {shown_value(entry[key])} is not a number of pixels"
    return None


def _annotation_lack(entry: dict[str, Any]) -> str | None:
    box = entry["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox {shown_value(box)} is not [x, y, width, height]"
    if not _is_number(entry["area"]):
        return f"area {shown_value(entry['area'])} is not a number"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def has_boxes(content: dict[str, Any], names: Collection[str]) -> bool:
    """Whether MMDetection would find a box of one of the classes to train on (crowd regions do not count)."""
    chosen = {entry["id"] for entry in content["categories"] if entry["name"] in names}
    return any(
        entry["category_id"] in chosen and min(entry["bbox"][2:]) >= 1 and not entry.get("iscrowd")
        for entry in content["annotations"]
    )


def _name_problems(categories: list[dict[str, Any]]) -> Iterator[Problem]:
    names = [entry["name"] for entry in categories]
    if not names:
        yield Problem("classes wrong", "categories: there are none")
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield Problem("classes wrong", f"categories: '{name}' is the name of two")
