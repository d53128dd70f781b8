"""A module of the user's own that holds rank 0 once, at the point that the file `hold` names, until it is ended.

`hold` has a phase and an iteration as JSON: where a run is broken off is no matter of luck. While it is held, the
file `held` has the same and the number of the process. It goes on when it is asked to stop, or when `hold` no longer
names the point. Where a file `stay` exists, it is held longer.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from experiments.training.engine.stopping import STOP

PUT = LocalBackend.put


def hold(phase: str, iteration: int) -> None:
    point, mark = [phase, iteration], Path("held")
    if os.environ.get("RANK", "0") != "0" or point != _wanted():
        return
    if mark.exists() and json.loads(mark.read_text())[:2] == point:
        return
    new = mark.with_suffix(".new")
    new.write_text(json.dumps([*point, os.getpid()]))
    new.replace(mark)
    while (_wanted() == point and not STOP.is_set()) or Path("stay").exists():
        time.sleep(0.01)


def _wanted() -> list | None:
    with contextlib.suppress(OSError, ValueError):  # gone, or about to be replaced
        return json.loads(Path("hold").read_text())
    return None


def put(self: LocalBackend, content: bytes, path: str) -> None:
    """Write half of a checkpoint first, and be held there."""
    name = Path(path).name
    if name.startswith("iter_"):
        Path(path).write_bytes(content[: len(content) // 2])
        hold("checkpoint", int(name.split("_")[1].split(".")[0]))
    PUT(self, content, path)


LocalBackend.put = put


@HOOKS.register_module()
class Gate(Hook):
    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        hold("train", runner.iter)

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 1:
            hold("evaluation", runner.iter)
