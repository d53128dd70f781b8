"""`msdet doctor` on installations that lack something."""

from importlib import metadata

import pytest
from typer.testing import CliRunner

from msdet_cli import doctor
from msdet_cli.main import app


def versions(monkeypatch, **known):
    def version(package):
        if package.replace("-", "_") not in known:
            raise metadata.PackageNotFoundError(package)
        return known[package.replace("-", "_")]

    monkeypatch.setattr(doctor.metadata, "version", version)


GOOD = {"onedl_mmengine": "0.10.12", "onedl_mmcv": "2.3.6", "onedl_mmdetection": "3.5.1"}


def test_the_forks_alone_are_fine(monkeypatch):
    versions(monkeypatch, **GOOD)
    assert {finding.level for finding in doctor._mmdetection()} == {"ok"}


def test_upstream_beside_a_fork_is_named_with_what_to_do(monkeypatch):
    versions(monkeypatch, **GOOD, mmcv="2.1.0")
    found = {finding.what: finding for finding in doctor._mmdetection()}
    assert found["onedl-mmcv"].level == "problem"
    assert "mmcv 2.1.0" in found["onedl-mmcv"].found
    assert "pip uninstall -y mmcv" in found["onedl-mmcv"].advice
    assert found["onedl-mmdetection"].level == "ok"


def test_a_missing_fork(monkeypatch):
    versions(monkeypatch, onedl_mmengine="0.10.12", onedl_mmdetection="3.5.1")
    found = {finding.what: finding for finding in doctor._mmdetection()}
    assert found["onedl-mmcv"].level == "problem"
    assert found["onedl-mmcv"].advice == "pip install onedl-mmcv"


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("note", 0), ("problem", 2)])
def test_exit_code(monkeypatch, level, code):
    monkeypatch.setattr(
        doctor, "CHECKS", (lambda: iter([doctor.Finding("torch", level, "found", "advice")]),)
    )
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert "advice" in result.output


def test_data_that_is_not_there_is_a_note_with_advice(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = {finding.what: finding for finding in doctor._data()}
    assert found["data coco"].level == "note"
    assert str(tmp_path) in found["data coco"].found
    assert "--data-root" in found["data coco"].advice
    assert found["data shapes"].level == "ok"
