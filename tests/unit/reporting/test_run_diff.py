"""`msdet diff`: what differs is shown, what is equal is not, and nothing in a config is run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from experiments.common.config_text import flatten_keys, get_at, read_config
from experiments.common.errors import UserError
from experiments.runs.record import Launch
from experiments.runs.run_folder import RunFolder
from msdet_cli.app import app

from .conftest import MakeRun

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"


def differences(*runs: RunFolder) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Section to key to both values, as `--json` has them."""
    words = ["diff", *(str(run.path) for run in runs), "--json"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads(result.stdout)["differences"]
    return {section: {c["key"]: (c["old"], c["new"]) for c in changes} for section, changes in found.items()}


def shown(*runs: RunFolder) -> str:
    result = CliRunner().invoke(
        app, ["diff", *(str(run.path) for run in runs)], env={"COLUMNS": "300"}, catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.stdout


def copied(run: RunFolder, to: Path, **changes: Any) -> RunFolder:
    """The run in another results folder, its record changed."""
    other = RunFolder(to / Path(*run.path.parts[-4:]))
    shutil.copytree(run.path, other.path)
    other.write(other.read().model_copy(update=changes))
    return other


def test_equal_runs_say_so_also_from_another_results_folder(make_run: MakeRun, tmp_path: Path):
    run = make_run(BASE, 0, {"AP": 36.0})
    other = copied(run, tmp_path / "elsewhere")
    assert differences(run, run) == differences(run, other) == {}
    assert "No difference in recipe" in shown(run, other)


def test_recipes_differ_by_their_keys_alone(make_run: MakeRun):
    one = make_run(BASE, 0, {"AP": 36.0, "AP50": 55.0})
    two = make_run(RLO, 1, {"AP": 36.75, "AP50": 55.0}, sets=("schedule.lr=0.01",))
    found = differences(one, two)
    assert set(found) == {"recipe", "result"}
    assert found["recipe"]["weighting.rule"] == ("uniform", "rlo")
    assert found["recipe"]["weighting.n"] == (None, 2)
    assert found["recipe"]["schedule.lr"] == (0.005, 0.01)
    assert found["recipe"]["seed"] == (0, 1)
    assert "schedule.epochs" not in found["recipe"]
    assert found["result"] == {"AP": (36.0, 36.75)}
    line = next(line for line in shown(one, two).splitlines() if line.startswith("  AP "))
    assert line.split() == ["AP", "36", "→", "36.75", "+0.75"]


def test_environment_code_execution_and_data(make_run: MakeRun, tmp_path: Path):
    packages = {"torch": "2.4.0", "numpy": "2.0"}
    environment = {"packages": packages, "gpus": [], "host": "a", "source": "s1"}
    one = make_run(BASE, 0, {"AP": 36.0}, environment=environment, command=["msdet", "run"])
    patch = "diff --git a/experiments/x.py b/experiments/x.py\n+1\n"
    earlier = [{"attempts": 1, "environment": {"host": "c", "gpus": []}, "git": {"commit": "d" * 40}}]
    attempt = one.read().attempts[0]
    two = copied(
        one,
        tmp_path / "b",
        environment={
            "packages": {**packages, "torch": "2.5.0"},
            "gpus": ["H100"],
            "host": "b",
            "source": "s1",
        },
        git={"commit": "c0ffee2", "dirty": True, "patch": patch},
        attempts=[attempt, attempt.model_copy(update={"micro_batch": 4, "accumulation": 2})],
        launch=Launch(reduced=True, micro_batch=4),
        dataset={**one.read().dataset, "fingerprint": "e" * 16},
        notes=["trace lost"],
        earlier=earlier,
    )
    found = differences(one, two)
    assert found["environment"] == {
        "packages.torch": ("2.4.0", "2.5.0"),
        "gpus": ([], ["H100"]),
        "host": ("a", "b"),
    }
    assert found["data"] == {"fingerprint": ("f" * 16, "e" * 16)}
    assert found["execution"] == {
        "run as": ("1 x 8", "1 x 8, then 1 x 4 x 2"),
        "halved batch": (False, True),
        "attempts": (1, 2),
    }
    assert set(found["code"]) == {"commit", "dirty", "patch", "earlier attempts"}
    assert found["code"]["patch"][1].endswith("(experiments/x.py)")
    assert "up to attempt 1: c, cpu, dddddddddd" in found["code"]["earlier attempts"][1]
    assert found["result"] == {"notes": ([], ["trace lost"])}
    assert "the same Python code under experiments/" in shown(one, two)


CONFIG = """\
model = dict(
    bbox_head=dict(anchor=dict(scales=[{scale}, -2.5], ratios=(1, 2)), loss=None),
    type='RetinaNet')
param_scheduler = [dict(end=500, type='LinearLR'), dict(end=12, gamma={gamma}, type='MultiStepLR')]
randomness = dict(seed={seed})
val_evaluator = dict(outfile_prefix='{work_dir}/detections/val')
work_dir = '{work_dir}'
"""


def test_configs_are_compared_where_the_recipes_are_the_same(make_run: MakeRun, tmp_path: Path):
    one, two = make_run(BASE, 0), make_run(BASE, 1)
    third = make_run(RLO, 1)
    for run, scale, gamma in ((one, 8, 0.1), (two, 4, 0.1), (third, 4, 0.2)):
        seed = run.read().seed
        run.config.write_text(CONFIG.format(scale=scale, gamma=gamma, seed=seed, work_dir=run.path))
    assert differences(one, two)["config"] == {"model.bbox_head.anchor.scales": ([8, -2.5], [4, -2.5])}
    two.config.write_text(CONFIG.format(scale=8, gamma=0.2, seed=7, work_dir=two.path))
    assert differences(one, two)["config"] == {
        "param_scheduler.1.gamma": (0.1, 0.2),
        "randomness.seed": (None, 7),  # not the record's
    }
    assert "config" not in differences(one, third)


def test_a_config_is_read_and_never_run(tmp_path: Path):
    path = tmp_path / "config.py"
    path.write_text(
        "import os\n"
        "a = dict(b=[1, -2.5, (3, None)], **{'c': inf})\n"
        "d = {'e-f': dict(g='x'), 1: True}\n"
        f"h = open({str(tmp_path / 'made')!r}, 'w')\n"
        "i = nan\n"
        "j = dict(k=os.getcwd())\n"
    )
    found = read_config(path)
    assert not (tmp_path / "made").exists()
    assert found["a"] == "dict(b=[1, -2.5, (3, None)], **{'c': inf})"
    assert found["d"] == {"e-f": {"g": "x"}, 1: True}
    assert found["h"].startswith("open(")
    assert math.isnan(found["i"])
    assert found["j"]["k"] == "os.getcwd()"
    assert get_at(found, "d.e-f.g") == "x"
    assert get_at({"a": [1, {"b": 2}]}, "a.1.b") == 2
    assert get_at(found, "d.nothing.more") is None
    assert flatten_keys({"a": [{"b": 1}, {"c": [2]}], "d": {}}) == {"a.0.b": 1, "a.1.c": [2]}
    path.write_text("a = dict(\n")
    with pytest.raises(UserError, match="not a Python config"):
        read_config(path)


def test_what_mmengine_dumps_reads_back_equal(tmp_path: Path):
    from mmengine import Config

    content = {
        "model": {"type": "A", "levels": (1, 2), "x": float("inf"), "odd-key": {"y": [{"z": None}]}},
        "words": 'it\'s "quoted"\n',
        "numbers": [1e-05, -3, True],
    }
    Config(content).dump(tmp_path / "dumped.py")
    assert read_config(tmp_path / "dumped.py") == content


def test_a_run_that_is_not_there_is_one_sentence(make_run: MakeRun, tmp_path: Path):
    run = make_run(BASE, 0)
    with pytest.raises(UserError, match="not found"):
        CliRunner().invoke(app, ["diff", str(run.path), "seed7", "--results-dir", str(tmp_path / "results")],
                           catch_exceptions=False)  # fmt: skip
