"""`msdet ablate`: the table that it writes, what it runs, and how it goes on; workers are made up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from experiments.common.errors import INTERRUPTED, NOT_FINITE
from experiments.launching import queue
from msdet_cli import main as command_line
from msdet_cli.completion import complete_tables
from tests.unit.cli.test_execute import FakeWorker

TABLE = Path("results/ablations/small-alpha.yaml")


class Worker(FakeWorker):
    """Ends well unless `codes` say otherwise."""

    def __init__(self, folder, *launch, **options):
        self.codes[:] = self.codes or [0]
        super().__init__(folder)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A recipe of one's own on a few generated images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    Worker.codes, Worker.started = [], []
    monkeypatch.setattr(queue, "LocalWorker", Worker)
    few = "profiles: {tiny: {dataset: {generate: {train_images: 4, val_images: 2}}}}\n"
    (tmp_path / "small.yaml").write_text(f"extends: retinanet-r50-rlo\n{few}")


def msdet(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["msdet", *words])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return ended.value.code or 0, *capsys.readouterr()


ABLATE = ("ablate", "small.yaml", "-p", "tiny", "--alpha")


def test_ablate_writes_its_table_runs_it_and_says_what_to_type(monkeypatch, capsys):
    code, out, err = msdet(monkeypatch, capsys, *ABLATE, "5", "--dry-run")
    assert (code, TABLE.parent.exists(), Worker.started) == (0, False, [])
    assert f"table: {TABLE} (not written in a dry run)" in err
    code, out, _ = msdet(monkeypatch, capsys, *ABLATE, "5")
    assert (code, len(Worker.started)) == (0, 3)  # uniform, 5 and the recipe's own 10
    assert f"next: msdet report small-alpha; more seeds: msdet {' '.join(ABLATE)} 5 --seeds 3" in out

    msdet(monkeypatch, capsys, *ABLATE, "7", "--seeds", "2")
    assert len(Worker.started) == 3 + 1 + 4  # one row more, and another seed of each
    code, out, _ = msdet(monkeypatch, capsys, "reproduce", str(TABLE), "--seeds", "3", "--json")
    rows = json.loads(out)
    assert [row["label"] for row in rows if row["run"].endswith("seed0")] == [
        "rule=uniform", "alpha=5", "alpha=7", "alpha=10",
    ]  # fmt: skip
    assert len(Worker.started) == 8 + 4
    assert {row["record"]["profile"] for row in rows} == {"tiny"}  # the table's own
    code, _, _ = msdet(monkeypatch, capsys, "reproduce", "small-alpha", "--seeds", "3")
    assert (code, len(Worker.started)) == (0, 12)
    code, _, err = msdet(monkeypatch, capsys, "reproduce", "smal-alpha")
    assert code == 2 and "table 'smal-alpha' not found; did you mean 'small-alpha'?" in err


def test_interrupted_ablation_is_resumed_by_the_same_command(monkeypatch, capsys):
    Worker.codes = [0, INTERRUPTED]
    code, out, _ = msdet(monkeypatch, capsys, *ABLATE, "5")
    assert code == INTERRUPTED
    assert TABLE.is_file()
    assert f"next: msdet {' '.join(ABLATE)} 5   (resumes)" in out
    code, _, _ = msdet(monkeypatch, capsys, *ABLATE, "5")
    assert (code, len(Worker.started)) == (0, 4)


def test_a_failed_row_does_not_stop_the_others(monkeypatch, capsys):
    Worker.codes = [0, NOT_FINITE]
    code, out, _ = msdet(monkeypatch, capsys, *ABLATE, "5,7")
    assert (code, len(Worker.started)) == (NOT_FINITE, 4)
    assert "1 of 4 runs failed" in out


def test_values_that_are_wrong_leave_no_file(monkeypatch, capsys):
    code, _, err = msdet(monkeypatch, capsys, *ABLATE, "5,1")
    assert (code, Path("results").exists()) == (2, False)
    assert "alpha: 1 is not allowed" in err


def test_options_that_make_other_experiments_are_in_the_table(monkeypatch, capsys):
    words = (*ABLATE, "5", "--amp", "bf16", "--gpus", "2", "--scale-lr")
    assert msdet(monkeypatch, capsys, *words, "--json")[0] == 0
    shared = yaml.safe_load(TABLE.read_text())["set"]
    assert shared == {"amp": "bf16", "schedule.gpus": 2, "schedule.lr": 0.008}  # twice the profile's 0.004
    before = len(Worker.started)
    code, _, _ = msdet(monkeypatch, capsys, "reproduce", str(TABLE))
    assert (code, len(Worker.started)) == (0, before)


def test_shell_completes_ablations(tmp_path):
    (tmp_path / "elsewhere/ablations").mkdir(parents=True)
    (tmp_path / "elsewhere/ablations/table-of-mine.yaml").write_text("")
    for typed, expected in ((["elsewhere"], ["table-of-mine"]), (None, [])):
        context = SimpleNamespace(params={"results": typed})
        assert complete_tables(context, "table-") == expected
