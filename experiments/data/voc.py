"""Reads Pascal VOC lists and XML files, as MMDetection's XMLDataset needs them.

An image is `JPEGImages/<id>.jpg`: XMLDataset asks for this suffix, whatever the XML says.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from experiments.data.problems import shown_value
from experiments.errors import UserError

IMAGES, ANNOTATIONS = "JPEGImages", "Annotations"


@dataclass(frozen=True)
class VocObject:
    """`box` is (xmin, ymin, xmax, ymax) as written: pixels, counted from 1, in VOC's own sense inclusive."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as MMDetection computes them: differences of the corners cut to whole pixels."""
        x1, y1, x2, y2 = (int(value) for value in self.box)
        return x2 - x1, y2 - y1


@dataclass(frozen=True)
class VocImage:
    """`size` is (width, height) in pixels; None where the XML does not say."""

    size: tuple[int, int] | None
    objects: list[VocObject]


def read_list(path: Path) -> tuple[list[str], bytes]:
    """The image ids of a list file, one a line, and the file's bytes.

    Raises:
        UserError: Missing, not text, empty, a line that is no single id, or an id given twice.
    """
    try:
        raw = path.read_bytes()
        lines = raw.decode().split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8; it must hold one image id a line") from None
    # MMDetection takes every line as it is, so a blank one in the middle or a second column would fail there
    lines = [line.rstrip("\r") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{path}: is empty; it must hold one image id a line")
    seen = set()
    for number, line in enumerate(lines, start=1):
        if not line or line != line.strip() or len(line.split()) > 1:
            raise UserError(f"{path}, line {number}: {shown_value(line)} is not one image id without spaces")
        if line in seen:
            raise UserError(f"{path}, line {number}: image id '{line}' is listed twice")
        seen.add(line)
    return lines, raw


def read_xml(path: Path) -> tuple[VocImage, bytes]:
    """What one XML file says, and its bytes.

    Raises:
        UserError: Missing, not XML (with the position), or an element that MMDetection needs is missing or
            wrong.
    """
    try:
        raw = path.read_bytes()
        root = ElementTree.fromstring(raw)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, but its image is listed") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: not valid XML: {error}") from None
    size = None
    if root.find("size") is not None:
        size = (_whole(root, "size/width", path), _whole(root, "size/height", path))
    objects = [_read_object(node, path, i) for i, node in enumerate(root.findall("object"), start=1)]
    return VocImage(size, objects), raw


def _read_object(node: ElementTree.Element, path: Path, number: int) -> VocObject:
    where = f"object {number}"
    name = node.findtext("name")
    if not name:
        raise UserError(f"{path}: {where}: 'name' is missing")
    corners = [_number(node, f"bndbox/{key}", path, where) for key in ("xmin", "ymin", "xmax", "ymax")]
    difficult = node.find("difficult") is not None and _whole(node, "difficult", path, where) != 0
    return VocObject(name, (corners[0], corners[1], corners[2], corners[3]), difficult)


def _number(node: ElementTree.Element, tag: str, path: Path, where: str = "") -> float:
    text = node.findtext(tag)
    before = f"{path}: {where}: " if where else f"{path}: "
    if text is None:
        raise UserError(f"{before}'{tag}' is missing")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{before}'{tag}' is {shown_value(text)}, not a number")
    return value


def _whole(node: ElementTree.Element, tag: str, path: Path, where: str = "") -> int:
    value = _number(node, tag, path, where)
    text = str(node.findtext(tag)).strip()
    if not text.lstrip("+-").isdigit():  # MMDetection reads these with int()
        raise UserError(f"{path}: {where + ': ' if where else ''}'{tag}' is {text}, not a whole number")
    return int(value)
