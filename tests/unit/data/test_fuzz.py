"""Damaged data sets by the hundred: an error is one line, and no box is left out without a word.

Every case follows from its kind and number: `run_case("coco", 17, folder)` makes one anew.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from mmcv.transforms import LoadImageFromFile
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

from experiments.common.errors import BAD_INPUT, UserError
from experiments.data.find import FoundDataset, find_dataset
from experiments.data.ground_truth import read_coco_truth
from experiments.data.spec import DatasetSpec
from experiments.data.verify import verify
from experiments.recipes.catalogue import load_dataset
from experiments.training.datasets import AnnotatedCocoDataset, AnnotatedVocDataset
from experiments.training.metrics import COCO_METRICS, compute_coco_aps
from msdet_cli.commands.data import app
from tests.unit.data import mutations
from tests.unit.data.hand_counts import coco_boxes, is_learnt, voc_boxes
from tests.unit.data.mutations import IDS, chance, encoded
from tests.unit.fuzzing import Cases, numbers

CASES = {"coco": 160, "xml": 130, "list": 60, "image": 70, "page": 100}
LONGEST_MESSAGE = 500  # characters
_PICKS: tuple[list[str], ...] = ([], [], [], ["cat"], ["dog", "cat"], list(reversed(mutations.CLASSES)))


# Making a case


def write_set(kind: str, rng: Random, root: Path) -> DatasetSpec:
    """Write a data set below `root`, damaged as `kind` says."""
    is_coco = kind in ("coco", "page") or (kind == "image" and chance(rng, 0.5))
    suffix = ".png" if is_coco else ".jpg"
    files: dict[str, bytes] = {}
    if kind in ("image", "page") and is_coco:
        files = {f"{s}.json": json.dumps(mutations.coco_content(s)).encode() for s in IDS}
    else:
        files = mutations.coco_files(rng) if is_coco else mutations.voc_files(rng, kind)
    for split, ids in IDS.items():
        for name in ids:
            files[f"{split if is_coco else 'JPEGImages'}/{name}{suffix}"] = encoded(name, suffix)
    pictures = [name for name in files if name.endswith(suffix)]
    for name in rng.sample(pictures, rng.randrange(1, 4)) if kind == "image" else ():
        files[name] = mutations.damaged_image(rng, Path(name).stem, suffix)
    for name, raw in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(raw)
    for folder in {(root / name).parent for name in pictures}:
        mutations.place_odd_files(folder, "" if is_coco else suffix)
    if kind == "image" and chance(rng, 0.3):
        mutations.special_file(rng, root / rng.choice(list(files)))
    elif chance(rng, 0.02):
        mutations.special_file(rng, root / rng.choice([name for name in files if name not in pictures]))
    parts: Any = {s: {"annotations": f"{s}.json" if is_coco else f"{s}.txt"} for s in IDS}
    for split, part in parts.items() if is_coco else ():
        part["images"] = split
    classes = rng.choice(_PICKS)
    return DatasetSpec(
        name="mine", format="coco" if is_coco else "voc", root=str(root), splits=parts, classes=classes
    )


def run_case(kind: str, number: int, folder: Path) -> str:
    """Make one case, read it in every way, and check what comes; returns "accepted" or the error's message."""
    rng = Random(f"{kind} {number}")
    root = folder / f"{kind}-{number}"
    root.mkdir()
    try:
        spec = write_set(kind, rng, root)
        return check_page(rng, spec, root) if kind == "page" else check_set(spec)
    finally:
        shutil.rmtree(root)


# Checking what comes


def error_of(call: Callable[[], Any], place: str) -> UserError | None:
    """Return what `call` raises, once it is seen to be a line that one can read and that names `place`."""
    try:
        call()
    except UserError as error:
        assert error.exit_code == BAD_INPUT
        assert len(error.message) <= LONGEST_MESSAGE, error.message
        assert error.message.isprintable(), repr(error.message)
        is_elsewhere = re.match("(image )?/(a|dev|proc|[.])", error.message)  # names that begin with a slash
        assert place in error.message or is_elsewhere, error.message
        return error
    return None


def check_set(spec: DatasetSpec) -> str:
    root = Path(spec.root)
    found: list[FoundDataset] = []
    error = error_of(lambda: found.append(find_dataset(spec)), str(root))
    seen: list[dict[str, Any]] = []
    fault = error_of(lambda: seen.append(verify(spec)), str(root))
    assert fault is None or error is not None, fault
    if not found:
        return error.message if error else "generated"
    for split in IDS:
        problems = seen[0]["splits"][split]["problems"]
        preventing = {kind for kind, problem in problems.items() if problem["prevents_training"]}
        assert preventing <= {"unreadable image"}, problems  # found only where the whole file is decoded
        dropped = check_boxes(found[0], split, damaged="unreadable image" in preventing)
        assert seen[0]["splits"][split]["boxes"] >= dropped
    if spec.format == "coco":
        check_average_precision(found[0])
    return "accepted"


def check_boxes(found: FoundDataset, split: str, damaged: bool) -> int:
    """Compare the boxes that are read with a count from the rules, and how many are dropped with the warning."""
    spec, root, part = found.spec, found.root, found.spec.splits[split][0]  # type: ignore[index]
    by_image = {"coco": coco_boxes, "voc": voc_boxes}[spec.format](root, split)
    classes = found.classes
    assert found.images[split] == len(by_image)
    settings: dict[str, Any] = dict(
        data_root=str(root), ann_file=part.annotations, metainfo=dict(classes=tuple(classes))
    )
    settings |= dict(pipeline=[LoadImageFromFile()], serialize_data=False)
    if split == "train":
        settings["filter_cfg"] = dict(filter_empty_gt=True, min_size=0, bbox_min_size=1)
    else:
        settings["test_mode"] = True
    if spec.format == "coco":
        data = AnnotatedCocoDataset(data_prefix=dict(img=f"{split}/"), **settings)
    else:
        data = AnnotatedVocDataset(data_prefix=dict(sub_data_root=""), **settings)
    got = []
    for number, info in enumerate(map(data.get_data_info, range(len(data)))):
        boxes = [
            (classes[i["bbox_label"]], tuple(i["bbox"]), bool(i["ignore_flag"])) for i in info["instances"]
        ]
        got.append((Path(info["img_path"]), boxes))
        fault = error_of(lambda number=number: data[number], str(root))
        assert fault is None or damaged, fault
    wanted, dropped = [], 0
    for path, size, boxes in by_image:
        boxes = [box for box in boxes if box[0] in classes]
        keep = [box for box in boxes if split == "val" or is_learnt(box, size)]
        if boxes or split == "val":
            wanted.append((path, keep))
        dropped += sum(not ignored for *_, ignored in boxes) - sum(not ignored for *_, ignored in keep)
    assert got == wanted
    if dropped:
        warning = found.warning()
        assert warning is not None and warning.isprintable()
        told = re.findall(
            r"(\d+) (?:empty box|box(?:es)? under 1|box(?:es)? wholly outside)", warning.partition("; val")[0]
        )
        assert sum(map(int, told)) >= dropped, (warning, dropped)
    return dropped


def check_average_precision(found: FoundDataset) -> None:
    """Evaluate the boxes themselves, every third one shifted, against pycocotools with ids counted from 1."""
    path = found.root / "val.json"
    raw = path.read_bytes()
    content = json.loads(raw.decode(json.detect_encoding(raw)))
    names = {c["id"]: c["name"].strip() for c in content["categories"]}
    used = sorted(number for number, name in names.items() if name in found.classes)
    images = sorted(image["id"] for image in content["images"])
    boxes: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for entry in content["annotations"]:
        if entry["category_id"] not in used:
            continue
        x, y, w, h = entry["bbox"]
        area = entry.get("area")
        boxes.append({
            "id": len(boxes) + 1, "image_id": images.index(entry["image_id"]) + 1,
            "category_id": used.index(entry["category_id"]) + 1, "bbox": [x, y, w, h],
            "area": area if area and area > 0 else max(w, 0) * max(h, 0),
            "iscrowd": int(bool(entry.get("iscrowd") or entry.get("ignore"))),
        })  # fmt: skip
        shift = 3.0 if len(boxes) % 3 == 0 else 0.0
        detections.append({"image_id": entry["image_id"], "category_id": entry["category_id"],
                           "bbox": [x + shift, y, w, h], "score": 0.99 - 0.01 * len(boxes)})  # fmt: skip
    api = COCO()
    api.dataset = {"images": [{"id": n + 1} for n in range(len(images))], "annotations": boxes,
                   "categories": [{"id": n + 1} for n in range(len(used))]}  # fmt: skip
    numbered = [{**d, "image_id": images.index(d["image_id"]) + 1, "category_id": used.index(d["category_id"]) + 1}
                for d in detections]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(numbered), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        got = compute_coco_aps(read_coco_truth(path, found.classes), detections)
    expected = {n: 100 * v for n, v in zip(COCO_METRICS, evaluation.stats) if v >= 0}
    assert got == pytest.approx(expected, abs=1e-9)


def check_page(rng: Random, spec: DatasetSpec, root: Path) -> str:
    page = root / "mine.yaml"
    page.write_bytes(mutations.page_text(rng, spec.model_dump(exclude={"generate"})))
    loaded: list[DatasetSpec] = []
    error = error_of(lambda: loaded.append(load_dataset(str(page))), page.name)
    if error is not None:
        return error.message
    error = error_of(lambda: find_dataset(loaded[0], generate=False), "")
    return "accepted" if error is None else error.message


# The tests


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        pytest.param(kind, *p.values, id=f"{kind}-{p.id}", marks=p.marks)
        for kind in CASES
        for p in numbers(CASES[kind])
    ],
)
def test_a_damaged_set_is_refused_in_a_line_or_read_right(
    kind: str, numbers: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # pages may have a relative root
    cases, accepted = Cases(f"data set, {kind}", numbers), 0
    for number in numbers:
        with cases.case(number):
            accepted += run_case(kind, number, tmp_path) == "accepted"
    cases.check()
    assert 0.05 < accepted / len(numbers) < 0.9  # both ends are tried


@pytest.mark.parametrize("as_json", [False, True])
def test_verify_prints_whatever_names_there_are(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = Cases("verify")
    for number in range(16):
        kind = ("coco", "xml", "list", "image")[number % 4]
        root = tmp_path / f"{kind}-{number}"
        root.mkdir()
        spec = write_set(kind, Random(f"verify {number}"), root)
        (tmp_path / "mine.yaml").write_text(json.dumps(spec.model_dump(exclude={"generate"})))
        with cases.case(number):
            result = CliRunner().invoke(app, ["verify", "mine.yaml", *["--json"] * as_json])
        assert isinstance(result.exception, (SystemExit, UserError, type(None))), result.exception
        if not isinstance(result.exception, UserError):
            usable = result.exit_code == 0
            assert result.exit_code in (0, BAD_INPUT) and result.output.encode()
            if as_json:
                assert json.loads(result.stdout)["usable"] == usable
            else:
                assert result.output.replace("\n", "").isprintable()


def test_a_damaged_cache_entry_counts_as_none(own_cache: Path, tmp_path: Path) -> None:
    spec = write_set("page", Random("cache"), tmp_path)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        os.utime(path, (0, 0), follow_symlinks=False)  # what changed just now is never remembered
    expected = find_dataset(spec)
    (entry,) = (own_cache / "msdet" / "datasets").iterdir()
    raw, cases = entry.read_bytes(), Cases("cache")
    content = [json.loads(line) for line in entry.read_text().splitlines()]
    for number in range(60):
        rng = Random(f"cache {number}")
        if number % 2:
            damaged = copy.deepcopy(content)
            mutations.damage_tree(rng, damaged)
            entry.write_text("\n".join(map(json.dumps, damaged)))
        else:
            entry.write_bytes(mutations.damage_bytes(rng, raw))
        with cases.case(number):
            assert find_dataset(spec) == expected
    entry.unlink()
    os.mkfifo(entry)
    with cases.case("pipe"):
        assert find_dataset(spec) == expected
