"""Data as people have it, through the real commands: the number is right, or a line says what is wrong.

Weights come from the trained baseline, so that AP is far from 0 where it is compared.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from experiments.runs.run_folder import RunFolder

from .conftest import Place, Trained

CLASSES = ["disc", "square", "triangle", "star"]
HUGE = 2**53


def renamed_ids(content: dict[str, Any]) -> None:
    """Annotation ids from 0 downwards, image ids beyond what a double-precision number can tell apart."""
    for number, entry in enumerate(content["annotations"]):
        entry["id"] = -number
        entry["image_id"] += HUGE
    for entry in content["images"]:
        entry["id"] += HUGE


class OddSet:
    """A copy of the generated shapes: 24 images to train on, 40 to evaluate. `page` writes its YAML."""

    def __init__(self, place: Place, source: Path, name: str) -> None:
        self.place, self.name, self.root = place, name, place.folder / name
        self.root.mkdir()
        for split, count in (("train", 24), ("val", 40)):
            (self.root / split).symlink_to(source / split)
            content = json.loads((source / f"annotations/{split}.json").read_text())
            kept = {entry["id"] for entry in content["images"][:count]}
            content["images"] = content["images"][:count]
            content["annotations"] = [e for e in content["annotations"] if e["image_id"] in kept]
            self.write(split, content)

    def read(self, split: str) -> dict[str, Any]:
        return json.loads((self.root / f"{split}.json").read_text())

    def write(self, split: str, content: dict[str, Any]) -> None:
        (self.root / f"{split}.json").write_text(json.dumps(content))

    def change(self, split: str, change: Callable[[dict[str, Any]], Any]) -> None:
        content = self.read(split)
        change(content)
        self.write(split, content)

    def page(self, **keys: Any) -> str:
        splits = {s: {"annotations": f"{s}.json", "images": s} for s in ("train", "val")}
        return write_page(
            self.place, {"name": self.name, "format": "coco", "root": self.name, "splits": splits, **keys}
        )


def write_page(place: Place, content: dict[str, Any]) -> str:
    path = place.folder / f"{content['name']}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path.name


def options(page: str, trained: Trained) -> list[str]:
    """Two steps that change nothing that can be seen, from the trained weights."""
    weights = trained.baseline.last_checkpoint()
    sets = (f"init_from={weights}", "schedule.iterations=2", "schedule.lr=1e-12", "schedule.warmup=0")
    return ["-p", "tiny", "--dataset", page, *(word for text in sets for word in ("--set", text))]


def run_of(place: Place, name: str) -> RunFolder:
    return next(run for run in place.runs() if run.read().dataset["name"] == name)


@pytest.fixture
def shapes(trained: Trained) -> Path:
    return trained.place.folder / "data" / "shapes"


@pytest.mark.slow
def test_ids_are_only_names(place: Place, trained: Trained, shapes: Path):
    plain, odd = OddSet(place, shapes, "plain"), OddSet(place, shapes, "odd")
    odd.change("val", renamed_ids)
    odd.change("train", renamed_ids)
    for one in (plain, odd):
        said = place.msdet("run", "retinanet-r50", *options(one.page(), trained))
        assert said.returncode == 0, said.stdout + said.stderr
    expected, run = run_of(place, "plain").read().metrics, run_of(place, "odd")
    assert expected["AP"] > 15
    assert run.read().metrics == expected
    evaluated = place.invoke("eval", run.name, "--json")
    assert json.loads(evaluated.stdout)["metrics"] == expected, evaluated.stderr
    taken_apart = place.invoke("errors", run.name, run.name, "--json")  # it checks AP against the record
    assert taken_apart.returncode == 0, taken_apart.stderr
    predicted = json.loads(place.invoke("predict", run.name, "--val", "1", "--json").stdout)
    assert predicted["images"][0]["id"] > HUGE
    verified = place.invoke("data", "verify", "odd.yaml")
    assert verified.returncode == 0 and "unusual id" in verified.stdout


@pytest.mark.slow
def test_all_validation_lists_count_whatever_their_folders_are_called(place: Place, trained: Trained):
    """Two lists give what one list over all gives, in a path that makes MMDetection think of VOC2007."""
    root = place.folder / "VOC2007"
    assert place.msdet("data", "make", "shapes-voc", "--data-root", str(root)).returncode == 0
    lists = root / "ImageSets" / "Main"
    ids = (lists / "val.txt").read_text().split()[:40]
    (lists / "few.txt").write_text("\n".join((lists / "train.txt").read_text().split()[:24]))
    for name, part in (("all", ids), ("first", ids[:13]), ("rest", ids[13:])):
        (lists / f"{name}.txt").write_text("\n".join(part))
    metrics = {}
    for name, parts in (("whole", ["all"]), ("parts", ["first", "rest"])):
        val = [{"annotations": f"ImageSets/Main/{part}.txt"} for part in parts]
        splits = {"train": {"annotations": "ImageSets/Main/few.txt"}, "val": val}
        content = {"name": name, "format": "voc", "root": "VOC2007", "splits": splits, "classes": CLASSES}
        said = place.msdet("run", "retinanet-r50", *options(write_page(place, content), trained))
        assert said.returncode == 0, said.stdout + said.stderr
        metrics[name] = run_of(place, name).read().metrics["mAP"]
        log = run_of(place, name).log.read_text()
        assert "aeroplane" not in log and "disc" in log
    assert metrics["parts"] == metrics["whole"] > 20
    kept = json.loads((run_of(place, "parts").detections / "val.bbox.json").read_text())
    assert {entry["image_id"] for entry in kept} & set(ids[13:])


def test_what_changes_numbers_is_one_line_and_stands_in_the_record(
    place: Place, trained: Trained, shapes: Path
):
    odd = OddSet(place, shapes, "areas")

    def harm(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["area"] = 0
        content["annotations"][0]["ignore"] = 1
        content["annotations"][1]["bbox"] = [400, 400, 9, 9]
        content["images"][0]["width"] = 150

    odd.change("train", harm)
    page = odd.page()
    said = place.msdet("run", "retinanet-r50", *options(page, trained))
    assert said.returncode == 0, said.stdout + said.stderr
    (warning,) = [line for line in said.stderr.splitlines() if line.startswith("warning:")]
    boxes = len(odd.read("train")["annotations"])
    for part in (
        f"{boxes} boxes without area",
        "1 box marked ignore",
        "1 box wholly outside the image",
        "1 image of another size",
        f"msdet data verify {page}",
    ):
        assert part in warning
    run = place.only_run()
    problems = run.read().dataset["problems"]["train"]
    assert problems == {
        "box wholly outside": 1,
        "box without area": boxes,
        "box marked ignore": 1,
        "image size differs": 1,
    }
    assert "warning:" in place.invoke("eval", run.name).stderr
    assert run.read().metrics["AP"] > 15  # no box was lost: the weights are those of the whole set
    assert "§" in place.msdet("runs").stdout


@pytest.mark.slow
def test_an_image_that_does_not_decode_ends_the_run_and_is_named(
    place: Place, trained: Trained, shapes: Path
):
    odd = OddSet(place, shapes, "cut")
    (odd.root / "train").unlink()
    shutil.copytree(shapes / "train", odd.root / "train")
    path = odd.root / "train" / odd.read("train")["images"][5]["file_name"]
    path.write_bytes(path.read_bytes()[:200])  # its header is whole
    sets = ["--set", "schedule.iterations=4", "--set", "schedule.warmup=0"]
    said = place.msdet("run", "retinanet-r50", "-p", "tiny", "--dataset", odd.page(), *sets)
    assert said.returncode == 2, said.stdout + said.stderr
    record = place.only_run().read()
    assert len(record.attempts) == 1
    assert str(path) in record.attempts[0].message
    assert "Traceback" not in said.stdout + said.stderr


def no_objects(odd: OddSet) -> None:
    odd.change("val", lambda c: [e.update(iscrowd=1) for e in c["annotations"]])


def nothing_to_learn(odd: OddSet) -> None:
    odd.change("train", lambda c: [e.update(bbox=[1, 1, 0, 0]) for e in c["annotations"]])


def thin_image(odd: OddSet) -> None:
    (odd.root / "val").unlink()
    (odd.root / "val").mkdir()
    content = odd.read("val")
    del content["images"][1:]
    content["images"][0].update(width=2000, height=1)
    first = content["images"][0]["id"]
    content["annotations"] = [{**content["annotations"][0], "image_id": first, "bbox": [0, 0, 9, 1]}]
    cv2.imwrite(str(odd.root / "val" / content["images"][0]["file_name"]), np.zeros((1, 2000, 3), np.uint8))
    odd.write("val", content)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (no_objects, "holds no boxes to evaluate"),
        (nothing_to_learn, "holds no boxes to train on"),
        (thin_image, "too thin"),
    ],
)
def test_what_cannot_be_trained_or_evaluated_is_refused_before_a_folder_is_made(
    harm: Callable[[OddSet], None], says: str, place: Place, trained: Trained, shapes: Path
):
    odd = OddSet(place, shapes, "none")
    harm(odd)
    said = place.msdet("run", "retinanet-r50", "-p", "tiny", "--dataset", odd.page())
    assert said.returncode == 2 and says in said.stderr, said.stderr
    assert not place.runs()
