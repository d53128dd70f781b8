"""`msdet compare` from first seed to decision; workers are made up, and end with the results that a test names."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from experiments.common.errors import FAILED, INTERRUPTED, NOT_FINITE
from experiments.launching import queue
from experiments.launching.torchrun import RankFailure
from msdet_cli import main as command_line

BASE, RLO, AVW = "retinanet-r50", "retinanet-r50-rlo", "retinanet-r50-avw"
# A gain of about 1 with a spread of 0.2: t is 8.45 or more from six pairs on.
GAINS = (1.0, 1.2, 0.8, 1.1, 0.9, 1.0, 1.2, 0.8)
FEW = ["-p", "tiny", "--set", "dataset.generate.train_images=4", "--set", "dataset.generate.val_images=2"]


class Worker:
    """Ends at once: with the AP of its recipe and seed, or with a code."""

    ap: ClassVar[dict[str, tuple[float, ...]]]
    codes: ClassVar[dict[str, int]]
    started: ClassVar[list[str]]

    def __init__(self, folder, *launch, **options):
        self.folder, record = folder, folder.read()
        self.name = f"{record.recipe}/{record.seed}"
        self.code = self.codes.get(self.name, 0)
        self.started.append(self.name)
        record.status = {0: "done", INTERRUPTED: "interrupted"}.get(self.code, "failed")
        record.metrics = {} if self.code else {"AP": self.ap[record.recipe][record.seed]}
        folder.write(record)
        if self.code == INTERRUPTED:
            signal.raise_signal(signal.SIGINT)

    def wait(self, seconds):
        return True

    def stop(self):
        raise AssertionError("it has ended")

    @property
    def failure(self):
        return RankFailure(0, self.code, "loss became NaN", "lower schedule.lr") if self.code else None


@pytest.fixture
def workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    monkeypatch.setattr(queue, "LocalWorker", Worker)
    Worker.started, Worker.codes = [], {}
    Worker.ap = {
        BASE: (40.0,) * 8,
        RLO: tuple(40 + gain for gain in GAINS),
        AVW: (40.1, 39.9, 40.2, 39.8, 40.0, 40.1, 39.9, 40.0),
    }
    return Worker


def msdet(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["msdet", *words])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return ended.value.code or 0, *capsys.readouterr()


def test_a_study_ends_once_settled_and_recipes_share_the_baselines_seeds(workers, monkeypatch, capsys):
    code, out, _ = msdet(monkeypatch, capsys, "compare", RLO, *FEW, "--max-seeds", "8", "--effect", "0.5")
    assert code == 0
    assert workers.started == [f"{name}/{seed}" for seed in range(5) for name in (BASE, RLO)]
    lines = [line for line in out.splitlines() if " seeds: AP" in line]
    assert len(lines) == 4  # from two on, each look has its line
    # by hand: mean 1, error sqrt(0.1 / 4 / 5) = 0.0707; 8.453 errors are 0.598; t^2 / 4 = 50, and with 1 / 6 for
    # the shrinkage e = sqrt(1 / 6) * (51 / (1 + 50 / 6)) ** 2.5 = 28.5
    assert lines[-1].startswith("5 seeds: AP +1.0 [+0.4, +1.6], e-value 28.5, p 0.035")
    assert lines[-1].endswith(": gain")
    assert "no interval yet" in lines[0]
    table = Path("results/ablations/compare-retinanet-r50.yaml")
    assert yaml.safe_load(table.read_text())["study"] == {"effect": 0.5}

    workers.started.clear()
    words = ["compare", AVW, BASE, *FEW, "--max-seeds", "8", "--json"]
    code, out, err = msdet(monkeypatch, capsys, *words)
    found = json.loads(out)
    assert (code, found["is_settled"]) == (0, True), err
    assert found["looks"][-1]["verdict"] == "smaller than the effect"  # 0.0, and well within 0.5
    assert len(found["looks"]) == 6
    assert workers.started == [f"{AVW}/{seed}" for seed in range(5)] + [f"{BASE}/5", f"{AVW}/5"]
    assert [row["id"] for row in yaml.safe_load(table.read_text())["blocks"][0]["rows"]] == [
        "baseline", RLO, AVW,
    ]  # fmt: skip

    workers.started.clear()
    code, _, err = msdet(monkeypatch, capsys, "compare", AVW, *FEW, "--effect", "0.3")
    assert (code, workers.started) == (2, [])
    assert "--effect: 0.3 is not that of" in err


def test_an_interrupted_study_resumes_and_a_failed_seed_counts_for_neither_side(workers, monkeypatch, capsys):
    words = ["compare", RLO, *FEW, "--max-seeds", "7"]
    workers.codes = {f"{RLO}/2": NOT_FINITE, f"{BASE}/3": INTERRUPTED}
    code, out, _ = msdet(monkeypatch, capsys, *words)
    assert code == INTERRUPTED
    assert workers.started[-1] == f"{BASE}/3"
    assert "seed 2 is left out on both sides" in out
    assert "2 seeds: AP +1.1" in out

    workers.codes = {}
    workers.started.clear()
    code, out, _ = msdet(monkeypatch, capsys, *words, "--json")
    found = json.loads(out)
    assert code == FAILED  # the failed seed is reported, and not tried again
    assert workers.started[:2] == [f"{BASE}/3", f"{RLO}/3"]
    assert found["looks"][-1]["seeds"] == [0, 1, 3, 4, 5]
    assert found["is_settled"]


def test_a_study_out_of_seeds_says_how_to_go_on(workers, monkeypatch, capsys):
    words = ["compare", RLO, *FEW, "--max-seeds", "3"]
    code, out, err = msdet(monkeypatch, capsys, *words, "--dry-run")
    assert (code, workers.started, Path("results").exists()) == (0, [], False)
    assert "6 runs: 6 to start" in out
    assert "left out" not in out + err
    code, out, _ = msdet(monkeypatch, capsys, *words)
    assert (code, len(workers.started)) == (0, 6)
    assert "with this mean and spread: gain at 5 seeds" in out  # as the first test finds
    assert "not settled; more seeds: msdet compare" in out
    assert "--max-seeds 6" in out
