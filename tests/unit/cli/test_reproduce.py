"""`msdet reproduce`: which runs a table lacks, in which order, and what is said of them; workers are made up."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from scipy import stats

from experiments.common.errors import INTERRUPTED, NOT_FINITE
from experiments.launching import queue
from msdet_cli import main as command_line
from tests.unit.cli.test_execute import FakeWorker

WEIGHTS = {
    0: ("1.5", *["1.0"] * 4),
    1: ("2.5", *["1.2"] * 4),
}  # of five levels, in the only interval, by seed


class Tracing(FakeWorker):
    """Ends well unless `codes` say otherwise, and leaves a trace."""

    def __init__(self, folder, *launch, **options):
        self.codes[:] = self.codes or [0]
        super().__init__(folder)
        rows = [
            f"1,bbox_head,{level},{w}"
            for level, w in zip(("P3", "P4", "P5", "P6", "P7"), WEIGHTS[folder.read().seed])
        ]
        folder.trace.write_text("\n".join(["interval,head,level,weight", *rows]) + "\n")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MSDET_RESULTS", raising=False)
    Tracing.codes, Tracing.started = [], []
    monkeypatch.setattr(queue, "LocalWorker", Tracing)


@pytest.fixture
def mine(tmp_path):
    """A table of one's own on a few generated images."""
    (tmp_path / "recipes" / "tables").mkdir(parents=True)
    few = "profiles: {tiny: {dataset: {generate: {train_images: 4, val_images: 2}}}}\n"
    (tmp_path / "recipes" / "small.yaml").write_text(f"extends: retinanet-r50\n{few}")
    (tmp_path / "recipes" / "again.yaml").write_text(
        "extends: small\nweighting: {rule: avw}\nname: another-name\n"
    )
    table = tmp_path / "recipes" / "tables" / "mine.yaml"
    table.write_text("""
name: mine
title: My own
columns: [AP]
blocks:
  - rows:
      - {id: mean, label: the mean, recipe: small, set: {weighting.rule: static}, mean_weights_of: avw, mean: overall}
      - {id: base, label: baseline, recipe: small}
      - {id: avw, label: AVW, recipe: small, set: {weighting.rule: avw}, baseline: base}
      - {id: avw-again, label: AVW again, recipe: again}
      - {id: other, label: by others}
""")
    return table


def msdet(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["msdet", "reproduce", *words])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return ended.value.code or 0, *capsys.readouterr()


def labels(out):
    return [row["label"] for row in json.loads(out)]


def test_reproduce_runs_missing_runs_once_and_mean_weights_last(mine, monkeypatch, capsys):
    words = ("mine", "-p", "tiny", "--seeds", "2")
    code, out, err = msdet(monkeypatch, capsys, *words)
    assert code == 0
    assert [name.split("/")[0] + name.rpartition("/")[2] for name in Tracing.started] == [
        "smallseed0", "smallseed1",  # the baseline
        "smallseed0", "smallseed1",  # AVW; its twin of another name is the same experiment
        "smallseed0", "smallseed1",  # the mean of (1.5 + 4 x 1.0) / 5 and (2.5 + 4 x 1.2) / 5
    ]  # fmt: skip
    assert [line for line in err.splitlines() if line.startswith("note")] == [
        "note: mine: 'by others' (other) has no recipe: skipped"
    ]
    shown = out[out.index("mine, profile tiny on shapes") :]
    values = {line[:9].strip(): line for line in shown.splitlines() if "40.5 ± 0.7 (2)" in line}
    assert list(values) == ["the mean", "baseline", "AVW", "AVW again"]
    assert "0.0 [0.0, 0.0]" in values["AVW"]
    assert "Other runs" not in out

    code, out, _ = msdet(monkeypatch, capsys, *words, "--json")
    assert code == 0
    assert len(Tracing.started) == 6  # nothing is left to do
    assert labels(out) == [
        "",
        "",
        "rule=avw",
        "rule=avw",
        *["rule=static, weights=[1.28, 1.28, 1.28, 1.28, 1.28]"] * 2,
    ]
    assert {row["todo"] for row in json.loads(out)} == {"skip"}

    Tracing.codes = [0] * 6
    msdet(monkeypatch, capsys, *words, "--force", "--yes")
    assert len(Tracing.started) == 12


def test_dry_run_names_rows_that_wait(mine, monkeypatch, capsys):
    words = ("mine", "-p", "tiny", "--seeds", "2", "--dry-run")
    code, out, err = msdet(monkeypatch, capsys, *words)
    assert code == 0
    assert out.count("  to start  ") == 4
    assert "note: mine: 'the mean' waits for its weights: 2 of 2 runs of row 'avw' are not done" in err
    assert not Path("results").exists()
    assert Tracing.started == []
    assert labels(msdet(monkeypatch, capsys, *words, "--json")[1]) == ["", "", "rule=avw", "rule=avw"]
    msdet(monkeypatch, capsys, "mine", "-p", "tiny")
    _, out, err = msdet(monkeypatch, capsys, "mine", "-p", "tiny", "--dry-run", "--json")
    assert labels(out)[-1] == "rule=static, weights=[1.1, 1.1, 1.1, 1.1, 1.1]"  # known by now
    assert "waits" not in err
    _, out, err = msdet(monkeypatch, capsys, "mine", "-p", "tiny", "--dry-run", "--json", "--force")
    assert labels(out) == ["", "rule=avw"]
    assert "waits" in err


def test_rows_of_failed_runs_wait(mine, monkeypatch, capsys):
    Tracing.codes = [0, NOT_FINITE]
    code, out, err = msdet(monkeypatch, capsys, "mine", "-p", "tiny")
    assert code == NOT_FINITE
    assert "1 of 1 runs of row 'avw' are not done" in err
    assert "1 failed" in out
    code, out, err = msdet(monkeypatch, capsys, "mine", "-p", "tiny", "--retry-failed")
    assert code == 0
    assert len(Tracing.started) == 4


def test_interruption_ends_reproduce(mine, monkeypatch, capsys):
    Tracing.codes = [0, INTERRUPTED]
    code, _, err = msdet(monkeypatch, capsys, "mine", "-p", "tiny")
    assert code == INTERRUPTED
    assert "waits" not in err


def test_trace_without_an_interval_is_reported(mine, monkeypatch, capsys):
    monkeypatch.setitem(WEIGHTS, 0, ())
    code, _, err = msdet(monkeypatch, capsys, "mine", "-p", "tiny")
    assert code == 0
    assert "'the mean' waits for its weights: " in err
    assert "no complete interval" in err


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["table1"], 19),
        (["table3", "table4", "table5"], 6 + 4 + 4),  # baseline and RLO are shared
        (["fig4"], 5),
        (["controls", "table3"], 7 + 3),
    ],
)
def test_the_shipped_tables_share_their_runs(monkeypatch, capsys, words, count):
    code, out, _ = msdet(monkeypatch, capsys, *words, "-p", "tiny", "--dry-run", "--json")
    assert code == 0
    assert len(json.loads(out)) == count


def test_data_root_for_two_data_sets_is_refused(monkeypatch, capsys):
    words = ("table1", "table2", "--dry-run", "--data-root", "data")
    code, _, err = msdet(monkeypatch, capsys, *words)
    assert code == 2
    assert err.splitlines()[0] == (
        "error: --data-root: one folder cannot hold the 2 data sets of these rows: coco, voc"
    )
    assert "try: " in err.splitlines()[1]
    code, _, err = msdet(monkeypatch, capsys, "table1", "--dry-run", "--data-root", "data")
    assert (code, "cannot hold" in err) == (2, False)  # there is no data


def test_reproduce_errors_are_one_line(monkeypatch, capsys, mine):
    for words, expected in (
        (["tabel1"], "did you mean 'table1'"),
        (["table1", "-p", "tiyn"], "did you mean 'tiny'"),
    ):
        code, _, err = msdet(monkeypatch, capsys, *words)
        assert code == 2
        assert expected in err.splitlines()[0]
    mine.write_text(mine.read_text().replace("recipe: again", "recipe: agian"))
    code, _, err = msdet(monkeypatch, capsys, "mine")
    assert code == 2
    assert "error: recipe 'agian' not found; did you mean 'again'?" in err


def test_forecast_for_other_gpus_needs_no_data_and_says_how_many_seeds(monkeypatch, capsys):
    """Seeds against SciPy's noncentral t, for sd 0.2 on each side; three at least, for a verdict."""
    code, out, err = msdet(monkeypatch, capsys, "table1", "--seeds", "2", "--dry-run", "--on", "h100x4")
    assert "NMS and RoIAlign" not in err  # a warning about this machine's GPUs
    assert code == 0
    assert "data set 'coco' is not in" in err
    assert "GPU-hours of training, without evaluation, measured" in out

    def power(difference, n):
        border = stats.t.ppf(0.975, 2 * n - 2)
        return stats.nct.sf(border, 2 * n - 2, difference / 0.2 * (n / 2) ** 0.5)

    found = re.findall(r"RLO, ResNet-(?:50|101) +\+(0\.\d) +(\d+)", out)
    assert len(found) == 6
    for difference, seeds in ((float(d), int(n)) for d, n in found):
        assert power(difference, seeds) > 0.8
        assert seeds == 3 or power(difference, seeds - 1) < 0.8
    assert "issue 3624" in out.replace("\n", "")
    code, _, err = msdet(monkeypatch, capsys, "table1", "--on", "h100x4")
    assert code == 2
    assert "requires --dry-run" in err
