"""Damaged results folders, recipes and work folders by the hundred: one line each, and the good run is still shown.

Every case follows from its number: `damage_run(Random("run 17"), folder)` damages one anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.recipes.loading import dump, load_recipe
from experiments.runs.run_folder import RunFolder
from msdet_cli.app import app
from tests.unit.data.mutations import damage_bytes, damage_tree
from tests.unit.fuzzing import Cases, numbers
from tests.unit.interop.test_imported import CONFIG, EVALUATED, HEADER
from tests.unit.reporting.conftest import run_maker

FEW = 20
AT_ONCE = 20  # damaged runs beside the good one
MAX_MESSAGE = 1_000  # characters
SIDE_FILES = {
    "metrics.csv": "iteration,AP,AP50\n10,1.5,6.25\n20,3.5,9.5\n",
    "trace.csv": "interval,iteration,head,level,loss_cls,loss_bbox,loss\n1,10,bbox_head,P3,0.5,0.25,0.75\n",
    "progress.json": '{"iteration": 10, "iterations": 20, "loss": 0.75}',
    "log.txt": "starts\niteration 10\nerror: out of memory\n",
    "config.py": "model = dict(type='RetinaNet')\n",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", "")  # no squeue
    monkeypatch.delenv("MSDET_RESULTS", raising=False)


def run_command(*words: str) -> tuple[int, str]:
    """Return exit code and output; a refusal is one bounded line, and nothing else may be raised."""
    result = CliRunner().invoke(app, words)
    error = result.exception
    if isinstance(error, UserError):
        assert "\n" not in error.message and len(error.message) <= MAX_MESSAGE, error.message
        assert error.message.isprintable(), repr(error.message)
        return error.exit_code, result.output + error.message
    assert error is None or isinstance(error, SystemExit), (words, error)
    return result.exit_code, result.output


def damage_text(rng: Random, text: str, load: Any, write: Any) -> bytes:
    """Return a text damaged as a tree of values, or as bytes."""
    if rng.random() < 0.6:
        tree = load(text)
        for _ in range(rng.choice((1, 1, 2, 5))):
            damage_tree(rng, tree)
        try:
            return str(write(tree)).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError, yaml.YAMLError):  # what cannot be written cannot be read
            return b""
    return damage_bytes(rng, text.encode())


def damage_run(rng: Random, run: RunFolder) -> str:
    """Damage one file of a run folder; return its name."""
    name = rng.choice(("record.json", "record.json", "recipe.yaml", *SIDE_FILES))
    path = run.path / name
    text = path.read_text("utf-8")
    if name.endswith("json"):
        path.write_bytes(damage_text(rng, text, json.loads, json.dumps))
    elif name.endswith("yaml"):
        path.write_bytes(damage_text(rng, text, yaml.safe_load, yaml.safe_dump))
    else:
        path.write_bytes(damage_bytes(rng, text.encode()))
    return name


@pytest.mark.parametrize("numbers", numbers(FEW))
def test_a_damaged_run_does_not_take_the_good_one_down(tmp_path: Path, numbers: Sequence[int]) -> None:
    make, cases, listed = (
        run_maker(tmp_path / "results"),
        Cases("run", numbers),
        Cases("results folder", numbers),
    )
    good = make("retinanet-r50", 0, {"AP": 36.5}, name="good")
    for name, text in SIDE_FILES.items():
        (good.path / name).write_text(text)
    for first in range(0, len(numbers), AT_ONCE):
        for number in numbers[first : first + AT_ONCE]:
            rng = Random(f"run {number}")
            bad = RunFolder.of(tmp_path / "results", "bad", "aaaa1111", number)
            shutil.copytree(good.path, bad.path)
            if rng.random() < 0.4:
                content = json.loads(bad.record_file.read_text())
                content["status"] = rng.choice(("queued", "running", "interrupted", "failed"))
                bad.record_file.write_text(json.dumps(content))
            damage_run(rng, bad)
            if rng.random() < 0.5:
                with cases.case(number):
                    run_command(*rng.choice((["logs"], ["diff", "good"], ["runs"])), bad.name)
        with listed.case(first):
            assert "36.5" in run_command("runs")[1]
            assert "36.5" in run_command("report", "--format", "csv")[1]
            run_command("runs", "--json")
            run_command("export", "--all", "-o", f"{first}.zip")
        shutil.rmtree(tmp_path / "results" / "runs" / "bad")
    cases.check()
    listed.check()


@pytest.mark.parametrize("numbers", numbers(FEW))
def test_a_damaged_recipe_is_refused_in_a_line_or_shown(tmp_path: Path, numbers: Sequence[int]) -> None:
    pages = [
        dump(load_recipe("retinanet-r50-rlo", "tiny")),
        "base: retinanet-r50\nweighting: {rule: avw, n: 1}\n",
    ]
    refused, cases = 0, Cases("recipe", numbers)
    for number in numbers:
        rng = Random(f"recipe {number}")
        Path("mine.yaml").write_bytes(damage_text(rng, rng.choice(pages), yaml.safe_load, yaml.safe_dump))
        with cases.case(number):
            refused += run_command("show", "mine.yaml")[0] != 0
    cases.check()
    assert 0.2 < refused / len(numbers) < 0.95  # both ends are tried


@pytest.mark.parametrize("numbers", numbers(FEW))
def test_a_damaged_work_folder_is_refused_in_a_line_or_imported(
    tmp_path: Path, numbers: Sequence[int]
) -> None:
    work, cases = tmp_path / "work", Cases("work folder", numbers)
    for number in numbers:
        rng = Random(f"work {number}")
        shutil.rmtree(work, ignore_errors=True)
        (work / "20260102_100000" / "vis_data").mkdir(parents=True)
        files = {
            "20260102_100000/vis_data/config.py": "\n".join(
                f"{key} = {value!r}" for key, value in CONFIG.items()
            ),
            "20260102_100000/20260102_100000.log": HEADER.format(seed=1, gpus=8),
            "20260102_100000/vis_data/scalars.json": json.dumps({**EVALUATED, "step": 12}) + "\n",
        }
        damaged = rng.choice(list(files))
        for name, text in files.items():
            (work / name).write_bytes(damage_bytes(rng, text.encode()) if name == damaged else text.encode())
        with cases.case(number):
            run_command("import", "work", "--recipe", "retinanet-r50", "--dataset", "coco")
    cases.check()
