"""Records, recipe pages and side files that are wrong: one line each, and every other run is shown."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.common.files import MAX_TEXT_BYTES
from experiments.runs.run_folder import RunFolder
from msdet_cli.app import app

from ..reporting.conftest import run_maker

GOOD: dict[str, Any] = {
    "status": "done",
    "slurm": {"job_id": "12_3", "folder": "/x"},
    "imported": {"source": "/x", "files": {}, "unknown": [], "differs": []},
    "earlier": [{"attempts": 1, "environment": {"gpus": []}, "git": None}],
}
# Dotted keys and what stands there; the reader of each key would fail on it.
BAD: list[tuple[str, Any]] = [
    ("queue", {}), ("queue", 5), ("queue", {"host": "h", "pid": "many", "pid_started": None}),
    ("queue", {"host": "h", "pid": 1e20, "pid_started": None}), ("slurm", {}), ("slurm.job_id", "12; rm"),
    ("slurm.job_id", 5), ("git", []), ("git.commit", 5), ("git.untracked", "all"), ("git.patch", 1.5),
    ("metrics.AP", float("nan")), ("metrics.AP", 1e300), ("metrics.AP", "high"), ("metrics", []),
    ("timings.total_s", float("inf")), ("timings.total_s", -1e300), ("timings", None),
    ("dataset", "shapes"), ("dataset.classes", 5), ("dataset.images", [1]), ("dataset.name", {"a": 1}),
    ("dataset.root", ["x"]), ("environment", 5), ("environment.gpus", 3), ("environment.gpus", [None]),
    ("environment.packages", "torch"), ("environment.own_modules", ["x"]), ("earlier", [5]),
    ("earlier", [{"environment": {"gpus": 5}}]), ("imported", {"unknown": 5}), ("imported", "yes"),
    ("attempts", {}), ("attempts", [5]), ("attempts.0.pid", 10**30), ("attempts.0.pid", -1),
    ("attempts.0.world_size", 1e308), ("attempts.0.message", ["x"]), ("seed", -5),
    ("seed", 10**40), ("iterations", "all"), ("notes", "lost"), ("notes", [None]), ("command", "msdet"),
    ("launch", None), ("launch.reduced", "perhaps"), ("recipe", None), ("recipe", "\ud800"),
    ("notes", ["\udfff"]), ("environment.host", "\ud800"), ("created", 5), ("status", "over"),
    ("schema_version", "new"),
]  # fmt: skip
ODD: list[tuple[str, Any]] = [  # wrong, and harmless
    ("created", "0001-01-01T00:00:00"), ("created", "9999-12-31T23:59:59-23:00"), ("attempts.0.started", "soon"),
    ("attempts.0.ended", "0001-01-01T00:00:00+14:00"), ("dataset", {}), ("environment", {}),
    ("recipe", "a[red]b"), ("attempts", []), ("metrics", {}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", "")  # no squeue


def write_wrong(run: RunFolder, key: str, value: Any) -> None:
    content = {**json.loads(run.record_file.read_text()), **json.loads(json.dumps(GOOD))}
    node, *path = content, *key.split(".")
    for part in path[:-1]:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    node[path[-1]] = value
    run.record_file.write_text(json.dumps(content))


def run_command(*words: str) -> str:
    """Everything that a command prints; it may refuse in one line, and may not fail in another way."""
    result = CliRunner().invoke(app, words)
    if isinstance(result.exception, UserError):
        assert "\n" not in result.exception.message
        return result.output + result.exception.message
    assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
    return result.output


def write_huge(path: Path) -> None:
    with open(path, "wb") as stream:
        stream.truncate(MAX_TEXT_BYTES + 1)


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[list[tuple[str, Any]]], list[RunFolder]]:
    def make(cases: list[tuple[str, Any]]) -> list[RunFolder]:
        good = run_maker(tmp_path / "results")("retinanet-r50", 0, {"AP": 36.5}, name="good")
        made = []
        for number, (key, value) in enumerate(cases):
            run = RunFolder.of(Path("results"), "bad", "aaaa1111", number)
            shutil.copytree(good.path, run.path)
            write_wrong(run, key, value)
            made.append(run)
        return made

    return make


def test_one_wrong_record_does_not_take_the_rest_down(folders: Callable[..., list[RunFolder]]):
    runs = folders(BAD)
    for command in (["runs"], ["report", "--format", "csv"]):
        text = run_command(*command)
        assert "36.5" in text
        unnamed = [case for case, run in zip(BAD, runs) if f"{run.path.name}/record.json" not in text]
        assert unnamed == []
    assert len(json.loads(CliRunner().invoke(app, ["runs", "--json"]).stdout)) == 1
    for run in runs:
        with pytest.raises(UserError, match=r"record\.json (is not a run record|cannot be read)"):
            run.read()
    for command in ("runs", "logs", "cancel", "export"):
        assert "record" in run_command(command, runs[0].name)
    assert run_command("rm", "bad", "--all", "--yes").count("unreadable") == len(BAD)
    assert len(os.listdir("results/runs")) == 1  # noqa: PTH208


def test_odd_records_are_shown(folders: Callable[..., list[RunFolder]]):
    runs = folders(ODD)
    text = run_command("runs")
    for run in runs:
        assert run.name in text
        run_command("runs", run.name)
    run_command("diff", "good", runs[0].name)
    run_command("report")
    run_command("export", "--all", "-o", "a.zip")


@pytest.mark.parametrize(
    "name",
    ["record.json", "trace.csv"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("recipe.yaml", "progress.json", "metrics.csv", "log.txt")
    ],
)
def test_a_file_that_is_none_does_not_take_the_rest_down(folders: Callable[..., list[RunFolder]], name: str):
    makers = [
        lambda path: path.symlink_to(path),
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text(""),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        write_huge,
    ]
    for run, maker in zip(folders([("status", "interrupted")] * len(makers)), makers):
        (run.path / name).unlink(missing_ok=True)
        maker(run.path / name)
        for command in ("runs", "logs"):
            run_command(command, run.name)
    assert "36.5" in run_command("runs")
    assert "36.5" in run_command("report", "--format", "csv")


def test_a_record_that_is_a_pipe_is_not_waited_for(folders: Callable[..., list[RunFolder]]):
    (run,) = folders([("status", "done")])
    run.record_file.unlink()
    os.mkfifo(run.record_file)
    with pytest.raises(UserError, match="not a regular file"):
        run.read()
