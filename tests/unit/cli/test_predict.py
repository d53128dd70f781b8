"""`msdet predict` before any model is loaded: which images, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.recipes import loading as recipes
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder
from msdet_cli.app import app
from msdet_cli.commands.predict import choose_images

IDS = [4, 9, 2, 30, 7]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run without a checkpoint, on five images, of which none but the first have an object."""
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in IDS],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 1, "bbox": [2, 3, 5, 6], "area": 30}],
        "categories": [{"id": 1, "name": "cell"}],
    }
    data = tmp_path / "data"
    data.mkdir()
    (data / "val.json").write_text(json.dumps(content))
    for i in IDS:
        cv2.imwrite(str(data / f"{i}.png"), np.zeros((10, 20, 3), np.uint8))
    part = "{annotations: val.json, images: ''}"
    page = f"name: cells\nformat: coco\nroot: {data}\nsplits: {{train: {part}, val: {part}}}\n"
    (tmp_path / "cells.yaml").write_text(page)
    recipe = recipes.load_recipe("retinanet-r50", "tiny", dataset=str(tmp_path / "cells.yaml"))
    folder = RunFolder.of(tmp_path / "results", recipe.name, "1a2b3c4d", 0)
    folder.path.mkdir(parents=True)
    folder.recipe.write_text(recipes.dump(recipe))
    dataset = {"root": str(data), "classes": ["cell"]}
    folder.write(Record(recipe=recipe.name, recipe_id="", config_hash="1a2b3c4d", seed=0, dataset=dataset))
    return folder


def test_validation_images_have_ground_truth(run: RunFolder, tmp_path: Path):
    other = tmp_path / "photos"
    other.mkdir()
    cv2.imwrite(str(other / "a.jpg"), np.zeros((10, 20, 3), np.uint8))
    (other / "notes.txt").write_text("")
    inside = tmp_path / "data" / ".." / "data" / "4.png"
    chosen, whole_set = choose_images(run, [other, inside], None, 0, "9,4", None)
    assert [path.name for path in whole_set] == [f"{i}.png" for i in IDS]
    assert [(c.path.name, c.id, c.place) for c in chosen] == [
        ("9.png", 9, 1),
        ("4.png", 4, 0),
        ("a.jpg", None, None),
    ]
    assert chosen[0].truth == []
    assert [(box.category, box.xywh) for box in chosen[1].truth or ()] == [("cell", (2, 3, 5, 6))]
    assert chosen[2].truth is None


def test_random_images_are_the_same_for_a_seed(run: RunFolder):
    def ids(count: int, seed: int) -> list[Any]:
        return [image.id for image in choose_images(run, [], count, seed, None, None)[0]]

    assert ids(3, 1) == ids(3, 1)
    assert len({tuple(ids(3, seed)) for seed in range(6)}) > 1
    assert ids(99, 0) == IDS


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "has no checkpoint"),
        (["none.jpg"], "none.jpg: no such file"),
        (["text.jpg"], "text.jpg: is not an image"),
        (["empty"], "holds no images"),
        (["--val-ids", "31"], "'31' is not in the validation set"),
        ([None], "no image is named"),
    ],
)
def test_predict_errors_are_one_line(
    run: RunFolder, tmp_path: Path, words: list[str | None], says: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty").mkdir()
    if words:
        run.checkpoints.mkdir()
        (run.checkpoints / "iter_1.pth").touch()
    result = CliRunner().invoke(app, ["predict", run.name, *filter(None, words), "--results-dir", "results"])
    assert isinstance(result.exception, UserError), result.output
    assert says in result.exception.message
    assert result.exception.exit_code == 2


@pytest.mark.parametrize("words", [["eval"], ["predict", "--val", "1"]])
def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(
    run: RunFolder, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
):
    run.checkpoints.mkdir()
    (run.checkpoints / "iter_1.pth").touch()  # reading it would fail otherwise
    (tmp_path / "file").touch()
    (tmp_path / "read-only").mkdir()

    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("msdet_cli.console.file_output.tempfile.TemporaryFile", refuse)
    for out, reason in (("file/below", "Not a directory"), ("read-only", "Permission denied")):
        place = ["--results-dir", str(tmp_path / "results"), "--out", str(tmp_path / out)]
        result = CliRunner().invoke(app, [words[0], run.name, *words[1:], *place])
        assert isinstance(result.exception, UserError), result.output
        assert result.exception.message == f"--out: {tmp_path / out} cannot be written: {reason}"
