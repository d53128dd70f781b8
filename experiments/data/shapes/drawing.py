"""One image of the built-in `shapes` data: a textured background with filled shapes on it.

Each image has its own random generator, so images do not depend on each other or on their order. The constants
below set the difficulty; a change of any of them changes the data and needs a new GENERATOR_VERSION (`layouts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from experiments.data.shapes.layouts import CLASSES

OBJECTS = (1, 5)  # fewest and most in an image that has any
HUE_SPREAD = 15.0  # degrees, standard deviation around the class's mean hue; the means are 90 apart
SATURATION = (0.65, 1.0)
BRIGHTNESS = (0.6, 1.0)
STRETCH = 1.3  # width to height before rotation lies between 1 / STRETCH and STRETCH
TEXTURE = (6.0, 20.0)  # standard deviation of the background's brightness, of 255
SHADING = 0.18  # how much an object's brightness changes from one side to the other
TINT = 12.0  # standard deviation of the background's colour around grey, of 255
STROKES = (0, 3)  # distracting lines and arcs
BLUR = (0.4, 0.9)  # standard deviation in pixels
NOISE = (2.0, 6.0)  # standard deviation per pixel and channel, of 255

MAX_OVERLAP = 0.3  # of two boxes in an image, as a share of the smaller one; so their IoU is below it, too
MIN_VISIBLE = 0.75  # share of an object that others may not cover
_MAX_TRIES = 60  # places for one object before it is left out
_FINE = 4  # sub-pixels a side, for smooth edges


@dataclass
class Shape:
    """A drawn object.

    Attributes:
        category: Class index.
        box: Tight box of `mask`: (x, y, w, h) in whole pixels. Shapes drawn over this one do not change it.
        mask: (size, size) bool: pixels at least half covered by the shape, hidden ones included.
        cover: (size, size) float32 in [0, 1]: the covered share of each pixel.
        visible: (size, size) bool: the part of `mask` that no later shape hides.
    """

    category: int
    box: tuple[int, int, int, int]
    mask: np.ndarray
    cover: np.ndarray
    visible: np.ndarray

    @property
    def area(self) -> int:
        """Visible pixels, for COCO's size classes."""
        return int(self.visible.sum())


def draw_image(
    rng: np.random.Generator, size: int, sides: tuple[float, float], empty: bool = False
) -> tuple[np.ndarray, list[Shape]]:
    """Draw one image.

    Args:
        size: Side of the square image, pixels.
        sides: Bounds of the log-uniform distribution of a box's longer side, pixels.
        empty: Whether the image has no objects.

    Returns:
        (size, size, 3) uint8 in OpenCV's BGR order, and the objects from back to front.
    """
    image = draw_background(rng, size)
    shapes = [] if empty else place(rng, size, sides)
    for shape in shapes:
        _paint(rng, image, shape)
    blur = rng.uniform(*BLUR)
    if blur > 0:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(*NOISE))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), shapes


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return noise of several octaves around a random tint, with strokes: (size, size, 3) float32, 0 to 255."""
    texture = np.zeros((size, size, 3), np.float32)
    for cells, share in ((3, 1.0), (7, 0.7), (17, 0.5), (41, 0.35)):
        grey = rng.standard_normal((cells, cells, 1), dtype=np.float32)
        colour = rng.standard_normal((cells, cells, 3), dtype=np.float32)
        coarse = grey + np.float32(0.2) * colour
        texture += np.float32(share) * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    texture *= np.float32(rng.uniform(*TEXTURE)) / max(float(texture.std()), 1e-6)
    tint = rng.uniform(60, 190) + rng.normal(0, TINT, 3)
    image = texture + tint.astype(np.float32)
    for _ in range(rng.integers(STROKES[0], STROKES[1] + 1)):
        _stroke(rng, image, size)
    return image


def place(rng: np.random.Generator, size: int, sides: tuple[float, float]) -> list[Shape]:
    """Return placed objects, largest first, so that small ones may overlap the edge of large ones.

    The k-th of n sides is drawn from the k-th n-th of the logarithmic range: all sides together are log-uniform, but
    an image rarely gets two objects that are too large to fit side by side.
    """
    count = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    position = (np.arange(count)[::-1] + rng.random(count)) / count
    lengths = np.exp(np.log(sides[0]) + position * np.log(sides[1] / sides[0]))
    shapes: list[Shape] = []
    for length in lengths:
        category = int(rng.integers(len(CLASSES)))
        outline = _outline(rng, category, float(length))
        for _ in range(_MAX_TRIES):
            corner = rng.random(2) * np.maximum(size - outline.max(0), 0)
            shape = _rasterise(outline + corner, category, size)
            if _fits(shape, shapes):
                for other in shapes:
                    other.visible &= ~shape.mask
                shapes.append(shape)
                break
    return shapes


def _outline(rng: np.random.Generator, category: int, length: float) -> np.ndarray:
    """Return (P, 2) corners in pixels, with the tight box's corner at (0, 0) and its longer side `length`."""
    name = CLASSES[category]
    corners = np.arange({"disc": 72, "square": 4, "triangle": 3, "star": 10}[name])
    angles, radii = corners * 2 * np.pi / len(corners), np.ones(len(corners))
    if name == "star":
        radii[1::2] = 0.42
    turn, stretch = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-1, 1) * np.log(STRETCH))
    points = np.stack([radii * np.cos(angles + np.pi / 4) * stretch, radii * np.sin(angles + np.pi / 4)], 1)
    points = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points -= points.min(0)
    return points * (length / points.max())


def _rasterise(points: np.ndarray, category: int, size: int) -> Shape:
    """Fill an outline with smooth edges, counting coverage on a grid _FINE times as fine."""
    low = np.floor(points.min(0)).astype(int)
    high = np.minimum(np.ceil(points.max(0)).astype(int), size)
    width, height = np.maximum(high - low, 1)
    fine = np.zeros((height * _FINE, width * _FINE), np.uint8)
    # OpenCV fills the pixels whose centres lie at whole numbers; 4 more bits keep the sub-pixel place
    corners = np.rint(((points - low) * _FINE - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [corners], 255, shift=4)
    patch = cv2.resize(fine, (int(width), int(height)), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    cover = np.zeros((size, size), np.float32)
    cover[low[1] : high[1], low[0] : high[0]] = patch
    mask = cover >= 0.5
    return Shape(category, _fit_box(mask), mask, cover, mask.copy())


def _fit_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return `(x, y, w, h)` of the smallest box around the True pixels; all zero where there are none."""
    return cv2.boundingRect(mask.view(np.uint8))


def _fits(shape: Shape, others: list[Shape]) -> bool:
    """Whether the others stay visible enough under `shape`, and keep their tight boxes."""
    for other in others:
        (ax, ay, aw, ah), (bx, by, bw, bh) = shape.box, other.box
        width, height = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
        if width <= 0 or height <= 0:
            continue
        smaller = min(aw * ah, bw * bh)
        left = other.visible & ~shape.mask
        if width * height >= MAX_OVERLAP * smaller or left.sum() < MIN_VISIBLE * other.mask.sum():
            return False
        if _fit_box(left) != other.box:
            return False
    return True


def _paint(rng: np.random.Generator, image: np.ndarray, shape: Shape) -> None:
    """Blend the object into the image in a colour near the class's hue, brighter towards one side."""
    hue = (360 * shape.category / len(CLASSES) + rng.normal(0, HUE_SPREAD)) % 360
    hsv = np.array([[[hue, rng.uniform(*SATURATION), rng.uniform(*BRIGHTNESS)]]], np.float32)
    colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * np.float32(255)
    x, y, w, h = shape.box
    towards = rng.uniform(0, 2 * np.pi)
    columns, rows = np.linspace(-1, 1, w, dtype=np.float32), np.linspace(-1, 1, h, dtype=np.float32)
    slope = columns[None, :] * np.cos(towards) + rows[:, None] * np.sin(towards)
    # one pixel more on each side: edges less than half covered lie outside the box
    light = np.pad(1 + SHADING * slope, 1, mode="edge")[..., None].astype(np.float32)
    top, left = max(y - 1, 0), max(x - 1, 0)
    part = np.s_[top : y + h + 1, left : x + w + 1]
    cover = shape.cover[part][..., None]
    light = light[top - y + 1 :, left - x + 1 :][: cover.shape[0], : cover.shape[1]]
    image[part] += cover * (light * colour - image[part])


def _stroke(rng: np.random.Generator, image: np.ndarray, size: int) -> None:
    colour = rng.uniform(20, 235, 3).tolist()
    thickness = int(rng.integers(1, 3))
    start, end = rng.integers(0, size, 2).tolist(), rng.integers(0, size, 2).tolist()
    if rng.random() < 0.5:
        cv2.line(image, start, end, colour, thickness, cv2.LINE_AA)
    else:
        radius = int(rng.integers(size // 16 + 1, size // 3 + 2))
        turn, sweep = rng.uniform(0, 360), rng.uniform(40, 150)
        cv2.ellipse(image, start, (radius, radius), turn, 0, sweep, colour, thickness, cv2.LINE_AA)
