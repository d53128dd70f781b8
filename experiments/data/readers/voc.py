"""Read Pascal VOC lists and XML files and give every field its type.

An image is `JPEGImages/<id>.jpg`, whatever the XML says. Coordinates become those that MMDetection trains on:
cut to whole pixels, counted from 0, and a box as wide as the difference of its corners.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from experiments.common.checking import format_value
from experiments.common.errors import UserError
from experiments.common.files import explain_unreadable, read_bytes
from experiments.data.problems import ProblemLog, has_control_characters, is_pixels
from experiments.data.readers.annotations import Annotations, Box, Image

IMAGES, ANNOTATIONS = "JPEGImages", "Annotations"


def list_files(ids: Sequence[str]) -> list[str]:
    """Return the images and XML files of ids, as paths below the folder that holds both."""
    return [*(f"{IMAGES}/{name}.jpg" for name in ids), *(f"{ANNOTATIONS}/{name}.xml" for name in ids)]


def read_voc(path: Path, folder: Path, log: ProblemLog, prefix: str = "") -> Annotations:
    """Return the images of a list file with their boxes, in the order of the list.

    Args:
        folder: Holds `JPEGImages/` and `Annotations/`.
        log: Receives the XML files that cannot be used.
        prefix: Is put before each id, where lists of several folders may share ids.

    Raises:
        UserError: The list cannot be used; or the log is strict and an XML file cannot be used.
    """
    ids, raw = read_list(path)
    images: list[Image] = []
    read = Annotations(images, [], {}, [path], [(len(ids), hashlib.sha256(raw).digest())])
    for name in ids:
        xml = folder / ANNOTATIONS / f"{name}.xml"
        image = Image(prefix + name, folder / IMAGES / f"{name}.jpg", None)
        images.append(image)
        read.sources.append(xml)
        try:
            image.size, image.boxes, raw = read_xml(xml)
        except UserError as error:
            log.add("annotation file unusable", error.message)
            continue
        if image.size is None:
            log.add("image without size", str(xml))
        read.raw_digests.append((None, hashlib.sha256(raw).digest()))
    read.classes = sorted({box.category for image in images for box in image.boxes})
    return read


def read_list(path: Path) -> tuple[list[str], bytes]:
    """Return the image ids of a list file, one a line, and the file's bytes; blank lines are skipped.

    Raises:
        UserError: It is missing, not text or empty, a line is no single id, or an id occurs twice.
    """
    raw = read_bytes(path)
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8; it must hold one image id a line") from None
    ids: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if len(name.split()) > 1 or "\0" in name:
            raise UserError(f"{path}, line {number}: {format_value(line)} is not one image id without spaces")
        if name in ids:
            raise UserError(f"{path}, line {number}: image id '{name}' is listed twice")
        if name:
            ids[name] = None
    if not ids:
        raise UserError(f"{path}: is empty; it must hold one image id a line")
    return list(ids), raw


def read_xml(path: Path) -> tuple[tuple[int, int] | None, list[Box], bytes]:
    """Return the annotated (width, height) in pixels, the boxes and the bytes of an XML file.

    The size is None where the file has none, or 0, as labelImg writes.

    Raises:
        UserError: It is missing or not XML (names the position), or an element is missing or of a wrong type.
    """
    if explain_unreadable(path) == "no such file":
        raise UserError(f"{path}: no such file, but its image is listed")
    raw = read_bytes(path)
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: an unknown encoding
        raise UserError(f"{path}: not valid XML: {error}") from None
    if root.tag != "annotation":  # a namespace, or another format: no object would be found in it
        raise UserError(
            f"{path}: not in VOC format: its root element is {format_value(root.tag)}, not 'annotation'"
        )
    size = None
    if root.find("size") is not None:
        width, height = (_whole(root, f"size/{side}", str(path)) for side in ("width", "height"))
        if min(width, height) < 0:
            raise UserError(f"{path}: 'size' is {width} x {height}, not a number of pixels")
        size = (width, height) if width and height else None
    boxes = [_box(node, path, number) for number, node in enumerate(root.findall("object"), start=1)]
    return size, boxes, raw


def _box(node: ElementTree.Element, path: Path, number: int) -> Box:
    where = f"{path}: object {number}"
    name = (node.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{where}: 'name' is missing")
    if has_control_characters(name):
        raise UserError(f"{where}: 'name' is {format_value(name)}, which holds control characters")
    x1, y1, x2, y2 = (int(_number(node, f"bndbox/{k}", where)) for k in ("xmin", "ymin", "xmax", "ymax"))
    is_difficult = node.find("difficult") is not None and _whole(node, "difficult", where) != 0
    width, height = x2 - x1, y2 - y1
    role = "difficult" if is_difficult else ""
    return Box(name, (x1 - 1, y1 - 1, width, height), max(width, 0) * max(height, 0), role, number)


def _number(node: ElementTree.Element, tag: str, where: str) -> float:
    text = node.findtext(tag)
    if text is None:
        raise UserError(f"{where}: '{tag}' is missing")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not is_pixels(value):
        raise UserError(f"{where}: '{tag}' is {format_value(text)}, not a number")
    return value


def _whole(node: ElementTree.Element, tag: str, where: str) -> int:
    value = _number(node, tag, where)
    text = str(node.findtext(tag)).strip()
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise UserError(f"{where}: '{tag}' is {format_value(text)}, not a whole number")
    return int(value)
