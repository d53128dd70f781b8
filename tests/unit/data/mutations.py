"""Damage small data sets at random: what a fuzz test feeds to the readers. Every case follows from its seed."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import yaml

CLASSES = ("cat", "dog", "red [bold]cell[/]")
IDS = {"train": ("a", "b", "c", "d"), "val": ("e", "f", "g")}
WIDTH, HEIGHT = 40, 30

LONG = "very long " * 500
NASTY: tuple[Any, ...] = (
    None, True, False, "", " ", " x ", "0", "1", "1e3", -1, 0, 1, 1.0, 1.5, 1e300, -0.0, float("nan"), float("inf"),
    10**18, 2**53, 2**63, -(2**63), 10**400, 10**4299, [], {}, [1], {"a": {"b": [None]}}, [[[]]], [10**4299],
    "\ud800", "a\0b", "\x1b[31mred\x1b[0m\x07", "line\nbreak\r\u2028end", "a\tb", LONG, "x" * 6000, "..", "../..", "/",
    ".", "~", "~nobody", "/dev/zero", "/proc/self/mem", "a\\b", "x/", "[bold]x[/bold]", "[/]", "🦆é", "\u202egnp",
)  # fmt: skip
NAMES = ("../train/a.png", "/a.png", "a\\b.png", "a.png/", ".", "./a.png", "b.png", "x" * 300, "dir", "loop", "pipe",
         "link.png", "text", "a.png\0", " a.png ", "A.PNG", "..", "/dev/zero", "sub/../a.png", "€.png")  # fmt: skip
NUMBERS = (
    -1e9,
    -50,
    -5,
    -1,
    -0.4,
    -0.0,
    0,
    1e-9,
    0.3,
    0.999,
    1,
    1.5,
    7,
    9.75,
    20,
    30,
    39,
    40,
    41,
    300,
    1e5,
    1e9,
)
ENCODINGS = ("utf-16", "utf-32", "latin-1", "utf-8-sig", "euc-kr", "gb2312", "shift_jis", "utf-7", "cp037")


def images() -> dict[str, np.ndarray]:
    """Return noise for every image id: no two alike."""
    rng = np.random.default_rng(0)
    return {i: rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for ids in IDS.values() for i in ids}


PIXELS = images()


def encoded(name: str, suffix: str, turned: bool = False) -> bytes:
    pixels = PIXELS[name]
    return cv2.imencode(suffix, np.rot90(pixels) if turned else pixels)[1].tobytes()


def chance(rng: Random, probability: float) -> bool:
    return rng.random() < probability


# Values in a tree


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key or index) below a tree of mappings and lists."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    own = [(tree, key) for key in keys]
    return own + [place for key in keys for place in places(tree[key])]


def damage_tree(rng: Random, tree: Any, pool: tuple[Any, ...] = NASTY) -> None:
    """Delete, repeat, swap or replace one entry somewhere in the tree."""
    found = places(tree)
    if not found:
        return
    parent, key = rng.choice(found)
    action = rng.choice(("replace", "replace", "replace", "delete", "repeat", "swap", "rename"))
    if action == "replace":
        parent[key] = copy.deepcopy(rng.choice(pool))
    elif action == "delete":
        del parent[key]
    elif action == "repeat" and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    elif action == "swap":
        other, place = rng.choice(found)
        parent[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(parent[key])
    elif isinstance(parent, dict):
        name = rng.choice([text for text in pool if isinstance(text, str)])
        parent[name] = parent.pop(key)


def damage_bytes(rng: Random, raw: bytes) -> bytes:
    """Cut, flip, insert, repeat or encode anew."""
    at = rng.randrange(len(raw) + 1)
    action = rng.choice(("cut", "flip", "insert", "repeat", "encode", "bom", "drop"))
    if action == "cut":
        return raw[:at]
    if action == "flip" and at < len(raw):
        return raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]
    if action == "insert":
        odd = (
            b"\0",
            b"\xff",
            b"\x85",
            "\u2028".encode(),
            b"\xed\xa0\x80",
            b"&",
            b"<",
            b'"',
            b"{",
            b"]]>",
            b"9" * 5000,
        )
        return raw[:at] + rng.choice(odd) + raw[at:]
    if action == "repeat":
        return raw + raw[at:]
    if action == "bom":
        return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf\xef\xbb\xbf")) + raw
    if action == "drop":
        return raw[:at] + raw[at + rng.randrange(1, 40) :]
    return raw.decode("utf-8", "replace").encode(rng.choice(ENCODINGS), "replace")


# A COCO set


_BOXES: list[list[float]] = [[1, 2, 10, 20], [5.5, 3, 30, 25], [20, 10, 9.5, 9]]


def coco_content(split: str) -> dict[str, Any]:
    """Return an instances mapping with three boxes an image, one of them a crowd."""
    entries: list[dict[str, Any]] = [
        {"id": 3 + n, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
        for n, name in enumerate(IDS[split])
    ]
    boxes = []
    for n, image in enumerate(entries):
        for k, box in enumerate(_BOXES):
            flags = {"iscrowd": int(k == 2 and n == 0)}
            boxes.append({"id": 10 * n + k + 1, "image_id": image["id"], "category_id": 7 * ((n + k) % 3 + 1),
                          "bbox": list(box), "area": box[2] * box[3], **flags})  # fmt: skip
    categories = [{"id": 7 * (n + 1), "name": name} for n, name in enumerate(CLASSES)]
    return {"images": entries, "annotations": boxes, "categories": categories}


def oddity_in_coco(rng: Random, content: dict[str, Any]) -> None:
    """Make one change after which the file may still be used."""
    image, box = rng.choice(content["images"]), rng.choice(content["annotations"])
    action = rng.randrange(12)
    if action < 3:
        box["bbox"][rng.randrange(4)] = rng.choice(NUMBERS)
    elif action == 3:
        box[rng.choice(("iscrowd", "ignore"))] = rng.choice((0, 1, True, False, 1.0, None))
    elif action == 4:
        box["area"] = rng.choice((0, None, -3, 1e18, 5, 1024, 9216, True, 0.5))
    elif action == 5:
        image[rng.choice(("width", "height"))] = rng.choice((0, None, 30, 40, 12, 10**9, 40.0))
    elif action == 6:
        image["file_name"] = rng.choice(NAMES)
    elif action == 7:
        content["annotations"] = [b for b in content["annotations"] if b["image_id"] != image["id"]] or [box]
    elif action == 8:
        content["annotations"].append(
            {**copy.deepcopy(box), "id": rng.choice((0, -7, 2**53, 2**63, 10**300))}
        )
    elif action == 9:
        entry = rng.choice(content["categories"])
        names = (" cat ", "Cat", "DOG", "x" * 400, "\x1b[31mred", "[/bold]", "ca\nt", "é", "\u3000dog")
        entry["name"] = rng.choice(names)
    else:
        shift = rng.choice((-3, -1, -100, 1, 2**31, 2**53, 2**63, 10**30, 10**400))
        section, key = rng.choice(
            (("images", "image_id"), ("categories", "category_id"), ("annotations", ""))
        )
        for entry in content[section]:
            entry["id"] += shift
        for entry in content["annotations"] if key else ():
            entry[key] += shift


def coco_files(rng: Random) -> dict[str, bytes]:
    contents = {split: coco_content(split) for split in IDS}
    pick = rng.choice(list(IDS))
    for _ in range(rng.randrange(4)):
        oddity_in_coco(rng, contents[pick])
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        damage_tree(rng, contents[pick])
    files = {f"{split}.json": json.dumps(content).encode() for split, content in contents.items()}
    if chance(rng, 0.15):
        files[f"{pick}.json"] = damage_bytes(rng, files[f"{pick}.json"])
    if chance(rng, 0.04):
        deep = rng.choice((b"[", b'{"a":')) * rng.choice((500, 100_000))
        files[f"{pick}.json"] = deep if chance(rng, 0.5) else files[f"{pick}.json"].replace(b"[", deep, 1)
    return files


# A VOC set

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TEXTS = ("", " ", "0", "1", "-1", "2", "1.5", "+3", "1_0", "1e300", "nan", "inf", "-inf", "0x10", "９", "9" * 5000,
          "1e-9", " 12 ", "<b/>", "<![CDATA[5]]>", "<!-- c -->7", "&#0;", "&x;", "true", "Unspecified", "\x1b[31m",
          "40", "30", "41", " cat ", "CAT", "[/bold]", "x" * 6000, "&#xD800;", "&lt;", "1,5", "\u3000dog")  # fmt: skip


def voc_objects(name: str) -> list[dict[str, str]]:
    shift = ord(name) % 3
    corners = (("1", "2", "11", "22"), ("5", "5", "40", "30"), ("20", "3", "29", "12"))
    return [
        {"name": CLASSES[(shift + k) % 3], "difficult": str(int(k == shift == 2)), **dict(zip(_CORNERS, box))}
        for k, box in enumerate(corners)
    ]


def voc_xml(rng: Random, name: str, damages: int) -> bytes:
    """Return an image's XML, with as many damages as asked for."""
    objects, size = voc_objects(name), {"width": str(WIDTH), "height": str(HEIGHT)}
    for _ in range(damages):
        target = rng.choice((*objects, *objects, size))
        key = rng.choice(list(target) or ["name"])
        action = rng.randrange(6)
        if action < 3:
            target[key] = rng.choice(_TEXTS)
        elif action == 3 and key in _CORNERS:
            target[key] = str(rng.choice(NUMBERS))
        elif action == 4:
            target.pop(key, None)
        elif objects:
            rng.choice((objects.pop, lambda: objects.append(dict(objects[0])), objects.reverse))()
    lines = ["<annotation>", "<size>" + "".join(f"<{k}>{v}</{k}>" for k, v in size.items()) + "</size>"]
    for thing in objects:
        bare = "".join(f"<{key}>{text}</{key}>" for key, text in thing.items() if key not in _CORNERS)
        box = "".join(f"<{key}>{thing[key]}</{key}>" for key in _CORNERS if key in thing)
        lines.append(f"<object>{bare}<bndbox>{box}</bndbox></object>")
    return "\n".join([*lines, "</annotation>"]).encode()


def wrap_xml(rng: Random, raw: bytes) -> bytes:
    """Add what XML allows, or nearly allows, around or within the elements."""
    names = (
        "euc-kr",
        "gb2312",
        "utf-16",
        "bogus",
        "latin-1",
        "ascii",
        "utf-8",
        "cp1252",
        "base64",
        "rot13",
        "",
    )
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    return rng.choice((
        lambda: f'<?xml version="1.0" encoding="{rng.choice(names)}"?>'.encode() + raw,
        lambda: b'<!DOCTYPE a [<!ENTITY e0 "cat">]>' + raw.replace(b"cat", b"&e0;"),
        lambda: f'<!DOCTYPE a [<!ENTITY e0 "cat">{entities}]>'.encode() + raw.replace(b"cat", b"&e12;"),
        lambda: b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///dev/zero">]>' + raw.replace(b"cat", b"&x;"),
        lambda: raw.replace(b"<annotation>", b'<annotation xmlns="http://x">'),
        lambda: raw.replace(b"<object>", b"<o:object>"),
        lambda: raw.replace(b"<annotation>", b"<annotation " + b" ".join(b'a%d=""' % n for n in range(5000)) + b">"),
        lambda: raw.replace(b"<name>", b"<name><![CDATA[x]]>"),
        lambda: raw.replace(b"<object>", b"<!-- <object> --><?p i?><object>"),
        lambda: raw.replace(b"<object>", b"<a>" * 20_000 + b"</a>" * 20_000 + b"<object>", 1),
        lambda: b"<a>" * 20_000 + raw,
        lambda: b"",
        lambda: b"\n" + b'<?xml version="1.0"?>' + raw,
        lambda: raw.replace(b"bndbox", b"polygon", 2),
        lambda: raw.replace(b"annotation>", b"object>"),
        lambda: raw.replace(b"<difficult>", b"<name>cat</name><bndbox/><difficult>"),
    ))()  # fmt: skip


def voc_files(rng: Random, damaged: str = "xml") -> dict[str, bytes]:
    """Return lists and XML files; `damaged` says which are damaged, "xml" or "list"."""
    files = {f"{split}.txt": "".join(f"{name}\n" for name in ids).encode() for split, ids in IDS.items()}
    for split, ids in IDS.items():
        bad = rng.sample(ids, rng.randrange(3)) if damaged == "xml" else []
        for name in ids:
            raw = voc_xml(rng, name, rng.randrange(3) if name in bad else 0)
            raw = wrap_xml(rng, raw) if name in bad and chance(rng, 0.3) else raw
            raw = damage_bytes(rng, raw) if name in bad and chance(rng, 0.15) else raw
            files[f"Annotations/{name}.xml"] = raw
        if damaged == "list":
            files[f"{split}.txt"] = damaged_list(rng, list(ids))
    return files


def damaged_list(rng: Random, lines: list[str]) -> bytes:
    odd = ("", "a", "e", " b ", "a\x85", "\u2028b", "b\tc", "a\0", "../JPEGImages/a", "/a", "x" * 300,
           "y" * 6000, "./a", "sub/a", "a.jpg", "#a", "\ufeffc", "\x0cd", "dir", "loop", "pipe", "text", "..",
           "\x1b[31mx", "é", "a\\b", "0" * 200)  # fmt: skip
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(odd))
    if chance(rng, 0.3):
        del lines[rng.randrange(len(lines))]
    raw = rng.choice(("\n", "\n", "\r\n", "\r", "\x85", "\u2028", "\n\n", " \n", "\x0b")).join(lines).encode()
    return damage_bytes(rng, raw) if chance(rng, 0.3) else raw


# Image files and what stands in their place


def damaged_image(rng: Random, name: str, suffix: str) -> bytes:
    kind = rng.randrange(10)
    if kind == 0:
        other = rng.choice((".png", ".jpg", ".bmp", ".tiff", ".webp", ".pgm", ".ppm", ".hdr"))
        pixels = PIXELS[name].astype(np.float32) if other == ".hdr" else PIXELS[name]
        return damage_bytes(
            rng, cv2.imencode(other, pixels[..., 0] if other == ".pgm" else pixels)[1].tobytes()
        )
    if kind == 1:
        deep = PIXELS[name].astype(np.uint16) * 256
        return cv2.imencode(rng.choice((".png", ".tiff")), deep)[1].tobytes()
    if kind == 2:
        starts = (
            b"GIF89a",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            b"<svg/>",
            b"BM",
            b"P6 9 9 255\n",
            b"II*\0",
            b"",
        )
        return rng.choice(starts)
    if kind == 3:
        return encoded(rng.choice("abcdefg"), suffix)
    if kind == 4:
        return encoded(name, suffix, turned=True)
    if kind == 5 and suffix == ".jpg":
        exif = (
            b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"
            + bytes([rng.randrange(10)])
            + b"\0\0\0\0\0\0"
        )
        raw = encoded(name, ".jpg")
        return raw[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + raw[2:]
    raw = encoded(name, suffix)
    for _ in range(rng.randrange(1, 4)):
        raw = damage_bytes(rng, raw)
    return raw


def special_file(rng: Random, path: Path) -> None:
    """Put something else than a plain file in a file's place."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        return
    rng.choice((
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("nowhere"),
        lambda: path.symlink_to("/proc/self/mem"),
        lambda: path.write_bytes(b""),
        lambda: path.parent.chmod(0o755),  # nothing: the file is missing
    ))()  # fmt: skip


def place_odd_files(folder: Path, suffix: str) -> None:
    """Lay what NAMES and the lists may point to beside the images."""
    (folder / f"dir{suffix}").mkdir()
    (folder / f"text{suffix}").write_text("no image")
    (folder / f"loop{suffix}").symlink_to(f"loop{suffix}")
    os.mkfifo(folder / f"pipe{suffix}")


# Pages


def page_text(
    rng: Random, page: dict[str, Any], damage: Callable[[Random, Any], None] = damage_tree
) -> bytes:
    """Return a data set page, damaged as a tree, as text, as bytes, or not at all."""
    page = copy.deepcopy(page)
    for _ in range(rng.randrange(3)):
        damage(rng, page)
    text = yaml.safe_dump(page, allow_unicode=chance(rng, 0.5), width=rng.choice((20, 10**6)))
    if chance(rng, 0.4):
        odd = ("&a [*a]", "*b", "!!python/object:os.system x", "!!binary x", "0x" + "f" * 6000, "1:1:1", "<<: 3",
               "[" * 600, "{" * 600, "\t", "%YAML 9.9\n---", "---\n---", "? [a]\n: b", "'\0'",
               '"\\ud800"', '"\\x1b[31m"', "9" * 5000, "0b" + "1" * 20_000, ".nan", "~", "2020-01-01", "!!set {a}",
               "!!float x", '"\\u2028"')  # fmt: skip
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        lines[at] = f"{key}{colon} {rng.choice(odd)}" if chance(rng, 0.7) else rng.choice(odd)
        text = "\n".join(lines)
    raw = text.encode("utf-8", "replace")
    return damage_bytes(rng, raw) if chance(rng, 0.2) else raw
