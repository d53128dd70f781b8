"""Annotations kept in the cache: what is recalled equals what is parsed; what is stale or damaged is not believed."""

from __future__ import annotations

import copy
import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from experiments.common import cache
from experiments.data.find import find_dataset
from experiments.data.ground_truth import read_coco_truth
from experiments.data.problems import ProblemLog
from experiments.data.readers import stored
from experiments.data.readers.coco import read_coco
from experiments.data.readers.image_table import ImageTable
from tests.unit.data.conftest import CocoSet
from tests.unit.data.loading import evaluation_set, infos, training_set
from tests.unit.data.test_find import settle

Parsed = list[Path]


@pytest.fixture
def odd_set(coco_set: CocoSet, monkeypatch: pytest.MonkeyPatch) -> CocoSet:
    """A set whose training split has what a column could get wrong, stored though it is small."""
    monkeypatch.setattr(stored, "MIN_BYTES", 0)
    content = coco_set.content["train"]
    content["images"] += [
        {"id": -5, "file_name": "ä/böse datei.png"},
        {"id": 2**62, "file_name": "/elsewhere/4.png", "width": 7, "height": 9},
        {"id": 0, "file_name": "none.png", "width": 7, "height": 9},
    ]
    extra: list[dict[str, Any]] = [
        {"bbox": [0.1, 2, 1e9, 0.3], "area": 7.25, "segmentation": [[0.1, 2, 3e-7, 4, 5, 6]]},
        {"bbox": [-3, 2.5, 9, 0], "iscrowd": 1, "segmentation": {"counts": "a\\b", "size": [3, 4]}},
        {"bbox": [1, 2, 3, 4], "ignore": 1},
        {"bbox": [1, 2, 3, 4], "area": 1 / 3},
    ]
    for number, entry in enumerate(extra):
        place = {"id": -(2**60) + number, "image_id": (2**62, -5, 1, 1)[number], "category_id": 14}
        content["annotations"].append({**place, **entry})
    coco_set.write()
    settle(coco_set.root)
    return coco_set


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    """The files that are parsed from here on."""
    files: Parsed = []

    def note(path: Path, *others: Any) -> Any:
        files.append(path)
        return read_coco(path, *others)

    monkeypatch.setattr(stored, "read_coco", note)
    return files


@pytest.mark.parametrize("masks", [False, True])
def test_recalled_annotations_equal_parsed_ones(odd_set: CocoSet, parsed: Parsed, masks: bool) -> None:
    path, folder = odd_set.path("train"), odd_set.root / "train"
    expected = read_coco(path, folder, ProblemLog(strict=True), masks)
    assert masks == any(box.segmentation for image in expected.images for box in image.boxes)
    stored.recall_coco(path, folder, masks)
    found = stored.recall_coco(path, folder, masks)
    assert parsed == [path]
    assert isinstance(found.images, ImageTable)
    assert list(found.images) == expected.images
    for name in ("classes", "category_ids", "sources", "raw_digests"):
        assert getattr(found, name) == getattr(expected, name), name


def test_looking_for_a_data_set_parses_it_for_training_and_evaluation(
    odd_set: CocoSet, parsed: Parsed, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd_set.content["train"]["images"] = odd_set.content["train"]["images"][:3]
    del odd_set.content["train"]["annotations"][2:4]
    odd_set.write()
    settle(odd_set.root)
    found = find_dataset(odd_set.spec())
    assert parsed == [odd_set.path("train"), odd_set.path("val")]
    parsed.clear()
    recalled = [infos(dataset) for dataset in (training_set(found), evaluation_set(found))]
    assert parsed == []
    monkeypatch.setenv("MSDET_NO_CACHE", "1")
    assert [infos(dataset) for dataset in (training_set(found), evaluation_set(found))] == recalled
    assert parsed == [odd_set.path("train"), odd_set.path("val")]
    (crowd,) = (box for info in recalled[0] for box in info["instances"] if box["ignore_flag"])
    assert crowd["bbox"] == [1, 2, 4, 6]


def _edit(entry: Path, path: Path) -> None:
    path.write_text(path.read_text().replace("0.1", "0.2"))


def _flip_bit(entry: Path, path: Path) -> None:
    raw = bytearray(entry.read_bytes())
    raw[len(raw) // 2] ^= 1
    entry.write_bytes(raw)


def _replace_by_pipe(entry: Path, path: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


HARMS: dict[str, Callable[[Path, Path], Any]] = {
    "edited": _edit,
    "a flipped bit": _flip_bit,
    "cut off": lambda entry, path: os.truncate(entry, 64),
    "gone": lambda entry, path: entry.unlink(),
    "a pipe": _replace_by_pipe,
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_stale_or_damaged_entry_is_parsed_anew_and_replaced(
    harm: str, odd_set: CocoSet, parsed: Parsed, own_cache: Path
) -> None:
    path = odd_set.path("train")
    stored.recall_coco(path, odd_set.root)
    (entry,) = own_cache.rglob("*.arrays")
    HARMS[harm](entry, path)
    settle(odd_set.root)
    expected = read_coco(path, odd_set.root, ProblemLog(strict=True)).images
    for _ in range(2):
        assert list(stored.recall_coco(path, odd_set.root).images) == expected
    assert len(parsed) == 2


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_cache_that_cannot_be_written_costs_one_line_and_nothing_else(
    error: int, odd_set: CocoSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*arguments: Any) -> Any:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(cache, "replacing", fail)
    found = stored.recall_coco(odd_set.path("train"), odd_set.root)
    assert found == read_coco(odd_set.path("train"), odd_set.root, ProblemLog(strict=True))
    (line,) = capsys.readouterr().err.splitlines()
    assert str(odd_set.path("train")) in line and os.strerror(error) in line


def test_ids_too_large_for_a_column_are_kept_and_not_stored(
    odd_set: CocoSet, parsed: Parsed, own_cache: Path
) -> None:
    odd_set.content["train"]["images"][-1]["id"] = 10**20
    odd_set.write()
    settle(odd_set.root)
    for _ in range(2):
        read = stored.recall_coco(odd_set.path("train"), odd_set.root)
        assert [image.id for image in ImageTable.of(read)] == [1, 2, 3, -5, 2**62, 10**20]
    assert len(parsed) == 2 and not list(own_cache.rglob("*.arrays"))


def test_of_several_processes_one_parses(
    odd_set: CocoSet, parsed: Parsed, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = stored.read_coco
    monkeypatch.setattr(stored, "read_coco", lambda *given: (time.sleep(0.2), note(*given))[1])
    with ThreadPoolExecutor(3) as pool:  # a lock is of an open file, so threads are kept apart like processes
        truths = list(pool.map(lambda _: read_coco_truth(odd_set.path("val"), ["cat", "dog"]), range(3)))
    assert parsed == [odd_set.path("val")]
    assert all(truth == truths[0] for truth in truths)


def test_recalled_columns_are_shared_and_cannot_be_written_to(odd_set: CocoSet) -> None:
    for _ in range(2):
        found = stored.recall_coco(odd_set.path("train"), odd_set.root).images
    assert isinstance(found, ImageTable)
    with pytest.raises(ValueError, match="read-only"):
        found.columns["xywh"][0] = 1
    assert copy.deepcopy(found) is found


def test_a_subset_has_the_infos_of_its_images(coco_set: CocoSet) -> None:
    dataset = training_set(find_dataset(coco_set.spec()))
    whole = infos(dataset)
    whole[0]["instances"].clear()  # what a transform does to one
    whole = infos(dataset)
    assert whole[0]["instances"] and len(whole) == 2
    for indices, expected in ((1, whole[:1]), (-1, whole[1:]), ([1, 0], whole[::-1])):
        found = infos(dataset.get_subset(indices))
        assert [{**info, "sample_idx": 0} for info in found] == [{**i, "sample_idx": 0} for i in expected]
