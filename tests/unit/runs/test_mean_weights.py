"""What a control takes from the runs of another row: means by hand from traces written by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.common.errors import UserError
from experiments.runs.mean_weights import compute_mean_weights
from experiments.runs.run_folder import RunFolder

HEADER = "interval,iteration,head,level,loss,weight"


def run(folder: Path, *rows: str, header: str = HEADER) -> RunFolder:
    folder.mkdir()
    (folder / "trace.csv").write_text("\n".join([header, *rows]) + "\n")
    return RunFolder(folder)


@pytest.fixture
def two(tmp_path: Path) -> list[RunFolder]:
    one = run(
        tmp_path / "seed0",
        "1,10,bbox_head,P3,9,1.0", "1,10,bbox_head,P10,9,1.0",
        "2,20,bbox_head,P3,9,1.5", "2,20,bbox_head,P10,9,1.0",
        "3,30,bbox_head,P3,9,2.0", "3,30,bbox_head,P10,9,1.1",
    )  # fmt: skip
    other = run(tmp_path / "seed1", "1,10,bbox_head,P3,9,1.0", "1,10,bbox_head,P10,9,2.0")
    return [one, other]


def test_time_means_then_means_over_runs(two: list[RunFolder]):
    # seed 0: (1 + 1.5 + 2) / 3 = 1.5 and (1 + 1 + 1.1) / 3 = 1.03333; seed 1: 1 and 2
    assert compute_mean_weights(two, "level") == [[1.5, 1.0333], [1.25, 1.5167]]
    assert compute_mean_weights(two, "overall") == [[1.2667, 1.2667], [1.3833, 1.3833]]
    assert compute_mean_weights([], "level") == []


def test_traces_that_give_no_mean(tmp_path: Path, two: list[RunFolder]):
    for number, (rows, header, words) in enumerate(
        (
            ([], HEADER, "no complete interval"),
            (["1,10,rpn_head,P3,9,1", "1,10,bbox_head,P3,9,1"], HEADER, "several weighted heads"),
            (["1,10,bbox_head,P3,9,"], HEADER, "is not a trace"),
            (["1"], HEADER, "is not a trace"),
            (["1,10,bbox_head,P3,9," + "1" * 200_000], HEADER, "is not a trace"),
            (["1,2"], "a,b", "is not a trace"),
            (["2,20,bbox_head,P3,9,1"], HEADER, "lacks some of its 2 intervals"),  # the first rows were lost
            (["1,10,bbox_head,P2,9,1"], HEADER, r"its levels are \['P2'\], another run's \['P3', 'P10'\]"),
        )
    ):
        bad = run(tmp_path / f"bad{number}", *rows, header=header)
        with pytest.raises(UserError, match=words):
            compute_mean_weights([*two, bad], "level")
    pipe = RunFolder(tmp_path / "seed9")
    pipe.path.mkdir()
    os.mkfifo(pipe.trace)
    with pytest.raises(UserError, match=r"trace.csv cannot be read: it is not a regular file"):
        compute_mean_weights([pipe], "level")
    with pytest.raises(UserError, match=r"trace.csv cannot be read") as caught:
        compute_mean_weights([RunFolder(tmp_path / "recipe" / "seed7")], "level")
    assert "--seed 7 --force" in caught.value.hint
