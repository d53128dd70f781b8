"""Text of records, folders and logs that somebody handed over, in what each command prints and writes."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from experiments.launching.queue import QueueItem
from experiments.runs.run_folder import RunFolder
from msdet_cli import run_plan
from msdet_cli.main import main

from ..reporting.conftest import run_maker

CLEAR = "\x1b[2J\x1b]0;title\x07\x9b31m"  # clears a terminal, renames it, and colours what follows
RLO = "retinanet-r50-rlo"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunFolder]:
    """A run that is done and one that failed, with control characters wherever text may be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    make = run_maker(tmp_path / "results")
    done = make("retinanet-r50", metrics={"AP": 3.0, f"[bold]{CLEAR}": 1.0}, commit=f"c0{CLEAR}")
    failed = make(RLO, status="failed", notes=[f"note{CLEAR}"])
    odd = make(RLO, seed=1, name=f"=1+2{CLEAR}", metrics={"AP": 2.0})
    for run in (done, failed, odd):
        record = run.read()
        record.attempts[-1].message, record.attempts[-1].hint = f"=why{CLEAR}", f"hint{CLEAR}"
        record.attempts[-1].host = record.dataset["name"] = f"there{CLEAR}"
        record.command, record.environment = ["msdet", CLEAR], {"cpu": CLEAR, "packages": {CLEAR: CLEAR}}
        run.write(record)
        raw = run.record_file.read_text(encoding="utf-8").replace("\ufffd", "\\u001b")
        run.record_file.write_text(raw, encoding="utf-8")
        run.log.write_text(f"said{CLEAR}\r\nand\rthat\n", encoding="utf-8")
    return [done, failed, odd]


COMMANDS = [
    ["runs"],
    ["runs", "--json"],
    ["report"],
    *(["report", "--format", form] for form in ("md", "csv", "html", "latex")),
    ["diff", "DONE", "FAILED"],
    ["logs", "DONE"],
    ["logs", "FAILED"],
    ["export", "DONE", "--out", "out.zip"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_passes_on_what_a_terminal_obeys(
    words: list[str],
    runs: list[RunFolder],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"DONE": str(runs[0].path), "FAILED": str(runs[1].path)}
    monkeypatch.setattr("sys.argv", ["msdet", *(places.get(word, word) for word in words)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    for text in (said.out, said.err):
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\r"}
    assert said.out or said.err


def test_a_metric_with_markup_is_printed_as_it_is(runs: list[RunFolder]) -> None:
    entry = QueueItem(SimpleNamespace(folder=runs[0]), state="skipped")  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=300)
    run_plan._report_entry(console, entry, 2)
    assert "AP 3.0  [bold]" in console.file.getvalue()  # type: ignore[attr-defined]
