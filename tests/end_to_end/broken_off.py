"""Runs that are held at a chosen point, to be broken off there, and all that they compute, to be compared."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import torch

from experiments.common.files import write_json
from experiments.runs.run_folder import RunFolder

from .conftest import Place, ended, wait_until

GATED = ["imports=[gate]", "set.+default_hooks.gate={type: Gate}", "schedule.eval_every=1"]


def gated(place: Place) -> Place:
    """A place whose runs can be held; `GATED` is to be among their `--set`."""
    place.add_module("gate")
    place.extra = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return place


def hold(place: Place, phase: str, iteration: int) -> None:
    """Runs wait at that point, once: `train`, `checkpoint` (half of which is written) or `evaluation`."""
    write_json(place.folder / "hold", [phase, iteration])


def held(place: Place) -> int | None:
    """Rank 0, where it waits at the point that is named."""
    mark, wanted = place.folder / "held", place.folder / "hold"
    if not (mark.exists() and wanted.exists()):
        return None
    *point, pid = json.loads(mark.read_text())
    return pid if point == json.loads(wanted.read_text()) else None


def start_held(
    place: Place, phase: str, iteration: int, command: list[str]
) -> tuple[subprocess.Popen[str], int | None]:
    """The command, started, and rank 0 at the point; None where the run ended without."""
    hold(place, phase, iteration)
    process = place.start(*command)
    try:
        wait_until(lambda: held(place) or process.poll() is not None, f"{phase} {iteration}", 600)
    except BaseException:
        process.terminate()
        ended(process)
        raise
    return process, held(place)


def result(run: RunFolder, last: int) -> dict[str, Any]:
    """All that a run of `last` iterations computes, as text and tensors."""
    checkpoint = torch.load(run.checkpoints / f"iter_{last}.pth", map_location="cpu", weights_only=True)
    content = {key: checkpoint[key] for key in ("state_dict", "optimizer", "param_schedulers", "weighting")}
    detections = json.loads((run.detections / "val.bbox.json").read_text())
    files = {"trace": run.trace.read_text(), "metrics": run.metrics.read_text(), "detections": detections}
    return {**content, **files, "final": run.read().metrics}


def assert_same(ours: Any, theirs: Any, where: str = "result") -> None:
    """To the last bit."""
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, (list, tuple)) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs)):
            assert_same(*pair, f"{where}.{index}")
    else:
        assert ours == theirs, where
