"""Side files of a run that is resumed: whole, damaged, empty, gone, or something else in their place."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.common.files import write_json
from experiments.detection.level_weighting.trace import COLUMNS, Trace
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder
from experiments.training.metrics import keep_detections
from experiments.training.side_files import check_side_files, clear_the_way, read_metrics, write_metrics

ALPHA, ITERATION, EVALUATIONS = 10, 35, 2


def trace_row(interval: int, level: str, **cells: str) -> str:
    row = {
        "interval": interval,
        "iteration": interval * ALPHA,
        "head": "bbox_head",
        "level": level,
        "weight": 1.0,
    }
    return ",".join(str({**row, **cells}.get(column, "")) for column in COLUMNS)


def trace_lines() -> list[str]:
    return [",".join(COLUMNS), *(trace_row(t, level) for t in (1, 2, 3) for level in ("P3", "P4"))]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of 35 iterations, with evaluations after 12 and 24."""
    folder = RunFolder(tmp_path)
    folder.progress.write_text('{"phase": "train"}\n')
    write_metrics(folder.metrics, [{"iteration": n, "epoch": n // 12, "AP": n / 3} for n in (12, 24)])
    folder.trace.write_text("\n".join(trace_lines()) + "\n")
    return folder


def check(run: RunFolder) -> list[str]:
    return check_side_files(run, ITERATION, EVALUATIONS, ALPHA)


def test_whole_files_and_those_of_a_run_that_has_not_begun_are_no_matter(run: RunFolder, tmp_path: Path):
    assert check(run) == []
    assert check_side_files(RunFolder(tmp_path / "new"), 0, 0, ALPHA) == []
    assert check_side_files(RunFolder(tmp_path / "new"), 9, 0, ALPHA) == []  # no interval had ended


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b"\n\n", b"[" * 10_000, "folder", "pipe"]
)
@pytest.mark.parametrize("name", ["metrics.csv", "trace.csv", "progress.json"])
def test_a_damaged_file_is_set_aside_and_named(name: str, content: bytes | str, run: RunFolder):
    path = run.path / name
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir() if content == "folder" else os.mkfifo(path)
    first, *lost = check(run)
    assert first.startswith(f"{name} was damaged (") and first.endswith(f"set aside as {name}.damaged")
    assert [note.split(" was lost")[0] for note in lost] == ([] if name == "progress.json" else [name])
    aside = run.path / f"{name}.damaged"
    assert not aside.is_file() if isinstance(content, str) else aside.read_bytes() == content
    assert not path.exists()


def test_what_was_set_aside_before_is_kept(run: RunFolder):
    for number in ("", "2", "3"):
        run.trace.write_text("")
        check(run)
        assert (run.path / f"trace.csv.damaged{number}").exists()


@pytest.mark.parametrize(
    ("lost", "first"),
    [([3, 4], "1 of the 3 intervals up to there, the first of them 2"),
     ([5], "1 of the 3 intervals up to there, the first of them 3"),
     ([1, 4], "2 of the 3 intervals up to there, the first of them 1"),
     ([1, 2, 3, 4, 5, 6], "3 of the 3 intervals up to there, the first of them 1")],
)  # fmt: skip
def test_a_trace_that_lost_rows_is_named_and_keeps_the_others(lost: list[int], first: str, run: RunFolder):
    lines = [line for number, line in enumerate(trace_lines()) if number not in lost]
    run.trace.write_text("\n".join(lines) + "\n")
    assert check(run) == [f"trace.csv was lost before iteration {ITERATION}: it lacks {first}"]
    assert run.trace.read_text().splitlines() == lines


@pytest.mark.parametrize("row", ["2,20,bbox_head,P3", trace_row(2, "P3", weight="1.0.0"), "x" * 50, ""])
def test_a_row_of_the_trace_that_cannot_be_read_counts_as_lost(row: str, run: RunFolder):
    lines = trace_lines()
    run.trace.write_text("\n".join([*lines[:3], row, *lines[4:]]) + "\n")
    (note,) = check(run)
    assert "it lacks 1 of the 3 intervals" in note
    Trace(run.trace).cut(ITERATION)  # as the resumed training does
    assert run.trace.read_text().splitlines() == [*lines[:3], *lines[4:]]


def test_a_last_row_cut_short_after_the_checkpoint_is_no_loss(run: RunFolder):
    with open(run.trace, "a") as stream:
        stream.write(trace_row(4, "P3") + "\n" + trace_row(4, "P4")[:9])
    with open(run.metrics, "a") as stream:
        stream.write("36,3,12.3")
    assert check(run) == []
    assert [row["iteration"] for row in read_metrics(run.metrics)] == ["12", "24"]


@pytest.mark.parametrize("rows", [1, 0])
def test_metrics_without_an_earlier_evaluation_are_named(rows: int, run: RunFolder):
    lines = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join([lines[0], *lines[1 : 1 + rows]]) + "\n")
    expected = [f"metrics.csv was lost before iteration {ITERATION}: it lacks earlier evaluations"]
    assert check(run) == expected
    run.metrics.unlink()
    assert check(run) == expected


@pytest.mark.parametrize("row", ["12,1,text", "12,1", "12,1,2,3", "-3,1,2"])
def test_a_row_of_metrics_that_does_not_fit_sets_them_aside(row: str, run: RunFolder):
    lines = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join([lines[0], row, lines[2]]) + "\n")
    assert check(run)[0].startswith("metrics.csv was damaged (")


def test_metrics_are_written_as_python_writes_numbers(tmp_path: Path):
    value = 51.86131209108933
    rows = [{"iteration": 3, "epoch": 0, "AP": value}, {"iteration": 6, "epoch": 1, "AP": value, "APS": 0.1}]
    write_metrics(tmp_path / "m.csv", rows)
    assert (tmp_path / "m.csv").read_text() == f"iteration,epoch,AP,APS\n3,0,{value},\n6,1,{value},0.1\n"
    assert float(read_metrics(tmp_path / "m.csv")[0]["AP"]) == value


@pytest.mark.parametrize("name", ["metrics", "detections", "record", "progress"])
def test_a_write_that_fails_leaves_the_old_file(name: str, run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    write: dict[str, Callable[[], None]] = {
        "metrics": lambda: write_metrics(run.metrics, [{"iteration": 36, "epoch": 3, "AP": 1.0}]),
        "detections": lambda: keep_detections(str(run.detections / "val"), [{"image_id": 1}]),
        "record": lambda: run.write(Record(recipe="r", recipe_id="", config_hash="", seed=1)),
        "progress": lambda: write_json(run.progress, {"phase": "evaluate"}),
    }
    keep_detections(str(run.detections / "val"), [])
    run.write(Record(recipe="r", recipe_id="", config_hash="", seed=0))
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write[name]()
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    write[name]()
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert after.keys() == before.keys() and after != before


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_leftovers_go_and_what_is_in_the_way_is_set_aside(run: RunFolder):
    run.detections.mkdir()
    for path in (run.path / ".record.json.abc123.tmp", run.detections / ".val.bbox.json.x.tmp"):
        path.write_text("half")
    run.checkpoints.write_text("a file")
    (run.detections / "val.bbox.json").mkdir()
    run.config.mkdir()
    notes = clear_the_way(run)
    assert [note.split()[0] for note in notes] == ["checkpoints", "config.py", "val.bbox.json"]
    left = {str(path.relative_to(run.path)) for path in run.path.rglob("*")}
    assert left == {"progress.json", "metrics.csv", "trace.csv", "checkpoints.damaged", "config.py.damaged",
                    "detections", "detections/val.bbox.json.damaged"}  # fmt: skip
    assert clear_the_way(run) == []
