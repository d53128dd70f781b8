"""`msdet doctor` on installations that lack something."""

import json
import platform
from importlib import metadata

import pytest
from typer.testing import CliRunner

from msdet_cli.app import app
from msdet_cli.commands import doctor


def versions(monkeypatch, **known):
    def version(package):
        if package.replace("-", "_") not in known:
            raise metadata.PackageNotFoundError(package)
        return known[package.replace("-", "_")]

    monkeypatch.setattr(doctor.metadata, "version", version)


GOOD = {"onedl_mmengine": "0.10.12", "onedl_mmcv": "2.3.6", "onedl_mmdetection": "3.5.1"}


def test_forks_without_upstream_are_ok(monkeypatch):
    versions(monkeypatch, **GOOD)
    assert {finding.level for finding in doctor._mmdetection()} == {"ok"}


def test_upstream_beside_a_fork_is_a_problem_with_advice(monkeypatch):
    versions(monkeypatch, **GOOD, mmcv="2.1.0")
    found = {finding.what: finding for finding in doctor._mmdetection()}
    assert found["onedl-mmcv"].level == "problem"
    assert "mmcv 2.1.0" in found["onedl-mmcv"].found
    assert "pip uninstall -y mmcv" in found["onedl-mmcv"].advice
    assert found["onedl-mmdetection"].level == "ok"


def test_missing_fork_is_a_problem(monkeypatch):
    versions(monkeypatch, onedl_mmengine="0.10.12", onedl_mmdetection="3.5.1")
    found = {finding.what: finding for finding in doctor._mmdetection()}
    assert found["onedl-mmcv"].level == "problem"
    assert found["onedl-mmcv"].advice == "pip install onedl-mmcv"


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("note", 0), ("problem", 2)])
def test_exit_code_is_2_on_a_problem(monkeypatch, level, code):
    monkeypatch.setattr(
        doctor, "CHECKS", (lambda: iter([doctor.Finding("torch", level, "found", "advice")]),)
    )
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert "advice" in result.output


def test_missing_data_is_a_note_with_advice(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = {finding.what: finding for finding in doctor._data()}
    assert found["data coco"].level == "note"
    assert str(tmp_path) in found["data coco"].found
    assert "--data-root" in found["data coco"].advice
    assert found["data shapes"].level == "ok"


def test_findings_are_not_taken_for_markup(monkeypatch):
    finding = doctor.Finding("data [/x]", "note", "no folder /data[/red]/coco", "pip install 'x[dev]'")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter([finding]),))
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["doctor"], catch_exceptions=False).output
    for text in finding[0], finding[2], finding[3]:
        assert text in shown
    listed = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert listed == [finding._asdict()]


def test_torch_and_python_of_this_installation():
    found = [*doctor._python(), *doctor._torch()]
    assert [finding.level for finding in found if finding.what in ("Python", "torch")] == ["ok", "ok"]
    assert found[0].found == platform.python_version()


@pytest.mark.parametrize(
    ("version", "level"), [("2.3.1+cu121", "problem"), ("2.4.0", "ok"), ("2.13.0+cpu", "ok")]
)
def test_old_torch_is_a_problem(monkeypatch, version, level):
    import torch

    monkeypatch.setattr(torch, "__version__", version)
    found = {finding.what: finding for finding in doctor._torch()}
    assert found["torch"].level == level
    assert bool(found["torch"].advice) == (level == "problem")


def test_without_a_gpu_the_advice_is_the_tiny_profile(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = next(finding for finding in doctor._torch() if finding.what == "GPU")
    assert gpu.level == "note"
    assert "-p tiny" in gpu.advice


def test_names_of_files_are_whole_in_a_narrow_terminal(monkeypatch):
    name = "/data/a/very/long/folder/annotations/instances_train2017.json"
    finding = doctor.Finding("data coco", "note", f"no such file: {name}", f"put it there: {name}")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter([finding]),))
    monkeypatch.setenv("COLUMNS", "40")
    assert CliRunner().invoke(app, ["doctor"], catch_exceptions=False).output.count(name) == 2


def test_plain_operators_on_a_gpu_are_a_note_that_says_what_to_install(monkeypatch):
    import torch

    from experiments.detection import operators

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(operators, "find_backend", {"cuda": "pytorch", "cpu": "torchvision"}.get)
    found = next(finding for finding in doctor._operators() if finding.what == "operators")
    assert (found.level, found.found) == ("note", "pytorch on a GPU: same results, slower")
    assert "msdet[gpu]" in found.advice
