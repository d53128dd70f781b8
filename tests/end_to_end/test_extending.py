"""Follow docs/extending.md to the letter: its files in a folder, its commands typed there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from experiments.data.shapes import generator as shapes
from experiments.recipes.loading import load_recipe
from tests.end_to_end.conftest import Place, rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"


def test_a_rule_a_detector_and_a_data_set_of_ones_own(place: Place) -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL))
    assert set(files) == {"my_rules.py", "my_detectors.py", "my_data.yaml", "my_recipe.yaml"}
    assert len(files["my_rules.py"].strip().splitlines()) <= 20
    for name, content in files.items():
        (place.folder / name).write_text(content, encoding="utf-8")
    _make_data(place.folder / "my_data")
    commands = re.findall(r"^(msdet .*)$", text, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["validate", "run"]
    for command in commands:
        said = place.msdet(*shlex.split(command)[1:])
        assert said.returncode == 0, said.stdout + said.stderr

    trace = rows(place.only_run().path / "trace.csv")
    assert [(r["interval"], r["level"]) for r in trace] == [
        (str(t), f"P{k}") for t in (1, 2, 3) for k in range(3, 8)
    ]
    assert {r["weight"] for r in trace[:5]} == {"1.0"}
    for before, after in ((trace[:5], trace[5:10]), (trace[5:10], trace[10:])):
        losses = [float(r["loss"]) for r in before]
        mean = sum(losses) / 5
        expected = [1 + 0.5 * max(0.0, loss / mean - 1) for loss in losses]
        assert [float(r["weight"]) for r in after] == pytest.approx(expected, rel=1e-4)
    assert place.only_run().read().dataset["name"] == "my-data"


def _make_data(root: Path) -> None:
    params = load_recipe("retinanet-r50", "tiny").dataset.generate
    made = root.with_name("made")
    shapes.generate(made, {**params, "train_images": 16, "val_images": 4})
    root.mkdir()
    for split in ("train", "val"):
        (made / "annotations" / f"{split}.json").rename(root / f"{split}.json")
        (made / split).rename(root / split)
