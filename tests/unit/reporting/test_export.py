"""`msdet export`: what is in the bundle, that it is a results folder, and that it is never written over anything."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.common.processes import process_started
from experiments.runs.export import check_bundle
from experiments.runs.lookup import iterate
from experiments.runs.outputs import digest_outputs
from experiments.runs.run_folder import RunFolder
from msdet_cli.app import app

from .conftest import MakeRun

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    monkeypatch.setenv("COLUMNS", "160")


def typed(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    return caught.value.message


@pytest.fixture
def two(make_run: MakeRun) -> list[RunFolder]:
    """Two runs with everything that a run folder can hold."""
    runs = [make_run(BASE, 0, {"AP": 36.0}), make_run(RLO, 0, {"AP": 37.0})]
    for run in runs:
        for name in ("config.py", "trace.csv", "metrics.csv", "log.txt", "progress.json"):
            (run.path / name).write_text(f"{run.name} {name}\n")
        for folder in ("detections", "checkpoints", "20260101_100000/vis_data"):
            (run.path / folder).mkdir(parents=True)
        (run.detections / "val.bbox.json").write_text("[]")
        (run.checkpoints / "iter_1.pth").write_bytes(b"w" * 1000)
        for name in (
            ".lock",
            ".cancel",
            ".rank1.json",
            ".record.json.x.tmp",
            "20260101_100000/vis_data/events",
        ):
            (run.path / name).touch()
    return runs


EXPECTED = {"record.json", "recipe.yaml", "config.py", "trace.csv", "metrics.csv", "log.txt", "progress.json",
            "detections/val.bbox.json"}  # fmt: skip


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_a_bundle_unpacks_to_a_results_folder(two: list[RunFolder], suffix: str):
    said = typed("export", "--all", "-o", f"paper{suffix}")
    assert said.startswith(f"paper{suffix}: 2 runs, {2 * len(EXPECTED)} files")
    before = typed("report", "table1", "--format", "csv").replace("results/", "paper/")
    shutil.unpack_archive(f"paper{suffix}", ".")
    unpacked = list(iterate(Path("paper")))
    assert [run.name for run in unpacked] == [run.name for run in two]
    for run, copy in zip(two, unpacked):
        files = {p.relative_to(copy.path).as_posix() for p in copy.path.rglob("*") if p.is_file()}
        assert files == EXPECTED
        assert all((copy.path / name).read_bytes() == (run.path / name).read_bytes() for name in files)
    assert typed("report", "table1", "--format", "csv", "--results-dir", "paper") == before
    manifest = json.loads(Path("paper/manifest.json").read_text())
    for name, entry in manifest["files"].items():
        content = Path("paper", name).read_bytes()
        assert (entry["sha256"], entry["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert manifest["runs"][two[1].name]["metrics"] == {"AP": 37.0}
    assert manifest["msdet"]


@pytest.mark.parametrize("suffix", [".tgz", ".zip"])
def test_the_same_runs_make_the_same_bytes(
    two: list[RunFolder], suffix: str, monkeypatch: pytest.MonkeyPatch
):
    typed("export", "--all", "-o", f"a{suffix}")
    for run in two:
        os.utime(run.trace, (1, 1))
    Path("later").mkdir()
    later = time.time() + 1000
    monkeypatch.setattr(time, "time", lambda: later)
    typed("export", two[1].name, str(two[0].path), two[0].name, "-o", f"later/a{suffix}")
    assert Path(f"a{suffix}").read_bytes() == Path(f"later/a{suffix}").read_bytes()


def test_one_run_has_its_own_name(two: list[RunFolder]):
    typed("export", two[0].name)
    assert Path(two[0].name.replace("/", "-") + ".tar.gz").is_file()


def test_nothing_is_written_over_and_nothing_half_is_left(two: list[RunFolder], tmp_path: Path):
    Path("a.zip").write_text("mine")
    assert "exists already" in refused("export", "--all", "-o", "a.zip")
    assert Path("a.zip").read_text() == "mine"
    assert "must end in .tar.gz" in refused("export", "--all", "-o", "a.rar")
    assert "cannot be written" in refused("export", "--all", "-o", "absent/a.zip")
    assert "name a RUN, or use --all" in refused("export")
    assert "no runs to export" in refused("export", "--all", "--results-dir", "empty")
    shutil.copytree("results", "other")
    other = Path("other") / two[0].path.relative_to(tmp_path / "results")
    assert "two runs have the name" in refused("export", str(two[0].path), str(other), "-o", "b.zip")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["a.zip"]


def test_runs_under_way_and_broken_ones(two: list[RunFolder], make_run: MakeRun):
    record = two[0].read()
    own = {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": process_started(os.getpid())}
    record.status, record.attempts = "running", [record.attempts[0].model_copy(update=own)]
    two[0].write(record)
    make_run(BASE, 7).record_file.write_text("{")
    assert "is running" in refused("export", two[0].name)
    result = CliRunner().invoke(app, ["export", "--all", "-o", "a.zip"])
    assert result.exit_code == 0
    assert f"note: skipped: {two[0].name} is running" in result.stderr
    assert "seed7/record.json cannot be read" in result.stderr
    assert list(json.loads(zipfile.ZipFile("a.zip").read("a/manifest.json"))["runs"]) == [two[1].name]


def test_a_changed_bundle_is_noticed(two: list[RunFolder]):
    typed("export", "--all", "-o", "a.tar.gz")
    with open("a.tar.gz", "rb") as stream:
        assert len(check_bundle(stream, Path("a.tar.gz"))["runs"]) == 2
    changed = io.BytesIO()
    with tarfile.open("a.tar.gz") as old, tarfile.open(fileobj=changed, mode="w:gz") as new:
        for entry in old:
            content = old.extractfile(entry).read()  # type: ignore[union-attr]  # they are all files
            new.addfile(
                entry,
                io.BytesIO(content.replace(b"trace", b"TRACE") if "trace.csv" in entry.name else content),
            )
    changed.seek(0)
    with pytest.raises(UserError, match=r"trace.csv differs from the manifest"):
        check_bundle(changed, Path("a.tar.gz"))


def test_links_are_left_out_and_named(two: list[RunFolder], tmp_path: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    (two[0].path / "notes.txt").symlink_to(secret)
    shutil.rmtree(two[1].detections)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.json").write_text("password")
    two[1].detections.symlink_to(tmp_path / "private")
    result = CliRunner().invoke(app, ["export", "--all", "-o", "a.zip"], catch_exceptions=False)
    left_out = [f"runs/{two[1].name}/detections/secret.json", f"runs/{two[0].name}/notes.txt"]
    with zipfile.ZipFile("a.zip") as archive:
        assert not any(b"password" in archive.read(name) for name in archive.namelist())
        assert sorted(json.loads(archive.read("a/manifest.json"))["links_left_out"]) == sorted(left_out)
    assert all(f"note: left out: {name} is a link" in result.stderr for name in left_out)


def test_files_that_changed_since_the_run_are_named(two: list[RunFolder]):
    record = two[0].read()
    record.digests = digest_outputs(two[0], record)
    two[0].write(record)
    (two[0].detections / "val.bbox.json").write_text("[ ]")
    result = CliRunner().invoke(app, ["export", "--all", "-o", "a.zip"], catch_exceptions=False)
    changed = f"runs/{two[0].name}/detections/val.bbox.json"
    assert result.stderr.splitlines() == [f"note: not as its run wrote it: {changed}"]
    with zipfile.ZipFile("a.zip") as archive:
        assert json.loads(archive.read("a/manifest.json"))["changed"] == [changed]


def test_all_that_match_are_exported(two: list[RunFolder]):
    assert typed("export", RLO, "--all", "-o", "a.zip").startswith("a.zip: 1 runs")
