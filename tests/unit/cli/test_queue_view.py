"""The table of several runs at work: what it shows, what it leaves out, what it estimates."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from experiments.launching.plan import PlanOptions, plan, prepare
from experiments.launching.queue import QueueItem
from experiments.recipes.loading import load_recipe
from experiments.runs.run_folder import RunFolder
from msdet_cli.console import queue_view
from msdet_cli.console.queue_progress import QueueProgress
from msdet_cli.console.queue_view import QueueView, select_rows


class Standing:
    """A queue that stands still: only its entries are looked at."""

    def __init__(self, entries: list[QueueItem]) -> None:
        self.entries = entries


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[QueueItem]:
    """Six runs of 330 iterations each, of one recipe with two values."""
    monkeypatch.chdir(tmp_path)
    labelled = [(f"n={n}", load_recipe("retinanet-r50-rlo", "tiny", [f"weighting.n={n}"])) for n in (1, 2)]
    planned = plan(labelled, PlanOptions([0, 1, 2], tmp_path / "results", generate=False))
    for run in planned:
        run.folder.path.mkdir(parents=True)
        prepare(run, [])
    return [QueueItem(run) for run in planned]


def at(entry: QueueItem, iteration: int, seconds: float, phase: str = "train", **changes: object) -> None:
    """The entry is at work, and says so."""
    entry.state, entry.gpus, entry.attempts = "running", ("0",), 1
    content = {
        "phase": phase, "iteration": iteration, "total": 330, "epoch": 1, "epochs": 7, "loss": 1.0, "lr": 0.1,
        "seconds_per_iteration": seconds, "eta_s": seconds * (330 - iteration), "heads": [], **changes,
    }  # fmt: skip
    entry.run.folder.progress.write_text(json.dumps(content))


def done(entry: QueueItem, ap: float, seconds: float) -> None:
    entry.state, entry.code = "done", 0
    record = entry.run.folder.read()
    record.status, record.metrics, record.timings = "done", {"AP": ap}, {"seconds_per_iteration": seconds}
    entry.run.folder.write(record)


def screen(entries: list[QueueItem], height: int = 40, note: str = "", width: int = 150) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    view = QueueView(console, Standing(entries))  # type: ignore[arg-type]
    view.note = note
    view.progress.update()
    console.print(view.panel())
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_table_has_state_progress_eta_metric_and_gpus_per_run(entries: list[QueueItem]):
    done(entries[0], 41.26, 0.5)
    at(entries[1], 110, 0.5)
    entries[1].run.folder.metrics.write_text("iteration,epoch,AP,AP50\n50,1,10.0,20.0\n100,2,12.34,22.0\n")
    at(entries[2], 330, 0.5, phase="evaluate")
    entries[3].state, entries[3].code = "failed", 3
    head, first, second, third, fourth, *_, totals, note = screen(entries, note="stopping")
    assert head.split() == ["run", "varied", "state", "progress", "ETA", "AP", "GPUs", "loss", "s/it"]
    assert first.split() == [entries[0].run.folder.name, "n=1", "done", "41.3"]
    assert second.split()[:3] == [entries[1].run.folder.name, "n=1", "running"]
    assert second.split()[-7:] == ["1:50", "12.3", "at", "100", "0", "1.00", "0.500"]
    assert second.split()[-9:-7] == ["110/330", "33%"]
    assert third.split()[-4:] == ["evaluating", "0", "1.00", "0.500"]
    assert fourth.split()[1:] == ["n=2", "failed"]
    assert totals.startswith("1 done, 2 running, 2 waiting, 1 failed; about ")
    assert note == "stopping"


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_at_any_width_name_seed_varied_value_and_state_are_whole(entries: list[QueueItem], width: int):
    done(entries[0], 41.26, 0.5)
    at(entries[1], 110, 0.5)
    entries[1].run.folder.metrics.write_text("iteration,epoch,AP\n100,2,12.34\n")
    at(entries[3], 10, 0.5)
    entries[3].attempts = 2
    lines = screen(entries, width=width)
    assert max(map(len, lines)) <= width
    rows = lines[1:7]
    for row, entry, state in zip(rows, entries, ("done", "running", "waiting", "running (attempt 2)")):
        seed = entry.run.folder.path.name
        full, short = entry.run.folder.name, f"retinanet-r50-rlo {seed}"
        assert row.startswith((f"{full}  {entry.run.label}  ", f"{short}  {entry.run.label}  "))
        assert f"  {state}  " in f"{row}  "
    assert all((text in rows[1]) == (width >= 80) for text in ("33%", "12.3"))
    assert ("110/330" in rows[1]) == (width >= 100)
    assert all((text in "".join(lines)) == (width >= 160) for text in ("━", "loss", "s/it"))


def test_names_longer_than_the_screen_fold_and_fewer_rows_are_shown(entries: list[QueueItem]):
    for entry in entries:
        entry.run = dataclasses.replace(entry.run, label="model.backbone.base_channels=" + "8" * 20)
    entries[-1].run = dataclasses.replace(entries[-1].run, label="other")
    lines = screen(entries, width=40, height=15)
    assert len(lines) <= 15
    first = "".join(line.replace(" ", "") for line in lines[1:4])
    assert "retinanet" in first and "8888" in first
    assert any(line.startswith("  and ") for line in lines)


def test_time_left_follows_from_the_measured_rates(entries: list[QueueItem]):
    progress = QueueProgress(entries)
    progress.update()
    assert progress.seconds_left() == (0.0, 6)
    assert progress.summary() == "6 waiting"
    at(entries[0], 130, 0.5)  # 100 s left
    progress.update()
    # Five more at 0.5 s an iteration, one at a time.
    assert progress.seconds_left() == (100 + 5 * 330 * 0.5, 0)
    at(entries[1], 230, 1.5)  # 150 s left, and the mean rate is 1 s
    progress.update()
    assert progress.seconds_left() == ((100 + 150 + 4 * 330) / 2, 0)  # two at once
    for entry in entries[2:]:
        done(entry, 40.0, 1.0)
    progress.update()
    assert progress.seconds_left() == (150, 0)  # not shorter than what the slower one takes
    assert progress.summary() == "4 done, 2 running; about 2:30 of training left"


def test_time_left_excludes_runs_without_a_measured_rate(entries: list[QueueItem]):
    at(entries[0], 130, 0.5)
    other = load_recipe("fcos-r50", "tiny")
    results = entries[0].run.folder.path.parents[3]
    entries = [
        entries[0],
        *(QueueItem(run) for run in plan([("", other)], PlanOptions([0], results, generate=False))),
    ]
    progress = QueueProgress(entries)
    progress.update()
    assert progress.seconds_left() == (100, 1)
    assert progress.summary().endswith("more than 1:40 of training left")


def test_low_screen_shows_running_runs_first(entries: list[QueueItem]):
    for number, state in enumerate(("done", "done", "waiting", "running", "failed", "waiting")):
        entries[number].state = state  # type: ignore[assignment]
    assert select_rows(entries, 1) == [3]
    assert select_rows(entries, 2) == [3, 4]
    assert select_rows(entries, 3) == [2, 3, 4]
    assert select_rows(entries, 5) == [1, 2, 3, 4, 5]  # of those done, the last
    assert select_rows(entries, 9) == [0, 1, 2, 3, 4, 5]
    lines = screen(entries, height=8, note="stopping")
    assert len(lines) <= 8
    assert "  and 2 done, 1 waiting" in lines


def test_done_run_is_read_once(entries: list[QueueItem], monkeypatch: pytest.MonkeyPatch):
    reads: list[str] = []
    real = RunFolder.read
    monkeypatch.setattr(RunFolder, "read", lambda self: (reads.append(self.name), real(self))[1])
    done(entries[0], 40.0, 0.5)
    reads.clear()
    progress = QueueProgress(entries)
    for _ in range(5):
        progress.update()
        assert progress.metric(0) == "40.0"
        progress.seconds_left()
    assert reads == [entries[0].run.folder.name]


def test_without_a_terminal_lines_are_printed_at_intervals(
    entries: list[QueueItem], monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr(queue_view.time, "monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), width=150)
    with QueueView(console, Standing(entries)) as view:  # type: ignore[arg-type]
        at(entries[0], 110, 0.5)
        for second in range(17):
            clock[0] = float(second)
            view.update()
    started, progress, totals = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert started.startswith(f"{entries[0].run.folder.name} (1 of 6) starts; log: ")
    assert "iteration 110/330, ETA 1:50" in progress
    assert totals.startswith("1 running, 5 waiting; about ")
