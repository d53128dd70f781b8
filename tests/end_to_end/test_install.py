"""Installed from a wheel and used far from the checkout: recipes travel along, the user's own files are found."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from .conftest import FEW, Place, rows, small

REPOSITORY = Path(__file__).resolve().parents[2]

MY_RULE = """\
import torch

from experiments.weighting.base import WeightingRule


class MyRule(WeightingRule):
    \"\"\"The coarser a level, the more it weighs, from the second interval on.\"\"\"

    def __init__(self, num_levels, seed=0, alpha=100, epsilon=1e-5, slope=0.1):
        super().__init__(num_levels, seed, alpha, epsilon)
        self.slope = slope

    def update(self, interval):
        return 1 + self.slope * torch.arange(self.num_levels, dtype=torch.float64)
"""

MY_MODEL = """\
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(test_cfg=dict(max_per_img=7), backbone=dict(type='MyBackbone'))
"""

MY_BACKBONE = """\
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS


@MODELS.register_module()
class MyBackbone(ResNet):
    def forward(self, x):
        assert __file__.startswith({folder!r})
        return super().forward(x)
"""

MY_RECIPE = """\
# Mine: another model, another rule
extends: retinanet-r50
model: ../my_model.py
imports: [my_backbone]
weighting: {rule: "my_rule:MyRule", slope: 0.25, alpha: 2}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder), str(REPOSITORY)]
    if importlib.util.find_spec("hatchling"):
        command.insert(4, "--no-build-isolation")
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "No matching distribution found for hatchling" in said.stderr:
        pytest.skip("hatchling is neither installed nor to be had")
    assert said.returncode == 0, said.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, make_place, few_root: Path) -> Place:
    """An environment that has the wheel and, of the one the tests run in, all but this checkout."""
    place = make_place("elsewhere")
    environment = place.folder.parent / f"{place.folder.name}-environment"
    venv.create(environment, symlinks=True, with_pip=False)
    python = environment / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True, timeout=60)
                    .stdout.strip())  # fmt: skip
    # A folder named in a .pth is searched, but the .pth files in it (an editable install) are not followed.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "-q", str(wheel)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    place.script = (str(environment / "bin" / "msdet"),)

    # what a user's folder may hold
    (place.folder / "experiments").mkdir()
    (place.folder / "experiments" / "__init__.py").write_text("raise RuntimeError('the wrong experiments')\n")
    (place.folder / "my_rule.py").write_text(MY_RULE)
    (place.folder / "my_model.py").write_text(MY_MODEL)
    (place.folder / "my_backbone.py").write_text(MY_BACKBONE.format(folder=str(place.folder)))
    (place.folder / "recipes" / "datasets").mkdir(parents=True)
    (place.folder / "recipes" / "mine.yaml").write_text(MY_RECIPE)
    (place.folder / "few.yaml").rename(place.folder / "recipes" / "datasets" / "few.yaml")
    (place.folder / "few.yaml").write_text(FEW.format(root=few_root))
    return place


def test_the_wheels_code_is_what_runs_and_recipes_are_in_it(installed: Place) -> None:
    python = Path(installed.script[0]).parent / "python"
    query = "import experiments, msdet_cli; print(experiments.__file__); print(msdet_cli.__file__)"
    for path in subprocess.run(
        [python, "-I", "-c", query], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split():
        assert Path(path).is_relative_to(python.parents[1])
    listed = json.loads(installed.msdet("ls", "--json").stdout)
    names = {kind: {entry["name"] for entry in entries} for kind, entries in listed.items()}
    expected = {
        "recipes": REPOSITORY / "recipes",
        "profiles": REPOSITORY / "recipes" / "profiles",
        "datasets": REPOSITORY / "recipes" / "datasets",
        "tables": REPOSITORY / "recipes" / "tables",
    }
    for kind, folder in expected.items():
        assert {path.stem for path in folder.glob("*.yaml")} <= names[kind]
    assert "mine" in names["recipes"] and "few" in names["datasets"]


def test_show_config_and_a_recipe_of_the_working_directory_that_hides_a_shipped_one(installed: Place) -> None:
    plain = installed.msdet("show", "retinanet-r50-rlo")
    assert plain.returncode == 0, plain.stderr
    assert "alpha: 100" in plain.stdout
    page = installed.folder / "recipes" / "retinanet-r50-rlo.yaml"
    page.write_text("extends: retinanet-r50\nweighting: {rule: rlo, alpha: 77}\n")
    try:
        assert "alpha: 77" in installed.msdet("show", "retinanet-r50-rlo").stdout
    finally:
        page.unlink()
    config = installed.msdet("show", "mine", "--config")
    assert config.returncode == 0, config.stderr
    assert "type='MyBackbone'" in config.stdout and "max_per_img=7" in config.stdout


@pytest.mark.slow
def test_the_users_own_model_backbone_and_rule_train(installed: Place) -> None:
    options = small("weighting.alpha=2", iterations=6, checkpoint_every=3)
    said = installed.msdet("run", "mine", *options)
    assert said.returncode == 0, said.stdout + said.stderr
    run = installed.only_run()
    weights = [[float(row["weight"]) for row in rows(run.trace)[start : start + 5]] for start in (0, 5, 10)]
    assert weights == [[1] * 5, [1, 1.25, 1.5, 1.75, 2], [1, 1.25, 1.5, 1.75, 2]]
    detections = json.loads((run.detections / "val.bbox.json").read_text())
    per_image = {d["image_id"]: 0 for d in detections}
    for d in detections:
        per_image[d["image_id"]] += 1
    assert max(per_image.values()) == 7
    record = run.read()
    assert record.git is None  # there is no checkout to speak of
    assert record.environment["packages"]["msdet"]
    assert "the wrong experiments" not in run.log.read_text()


def test_a_module_that_is_not_there_is_one_clear_line(installed: Place) -> None:
    said = installed.msdet("show", "mine", "--config", "--set", "imports=[my_backbon]")
    assert said.returncode == 2
    assert "no module 'my_backbon'" in said.stderr
    assert "Traceback" not in said.stderr
