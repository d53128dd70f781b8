"""A run's lock, and who counts as having it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.runs.run_folder import RunFolder
from experiments.runs.run_lock import InUseError, acquire_lock, inheriting, open_shared_lock

ASK = (
    "import sys; from experiments.runs.run_lock import inherits_lock; "
    "from experiments.runs.run_folder import RunFolder; "
    "print(inherits_lock(RunFolder(sys.argv[1])))"
)
ROOT = Path(__file__).resolve().parents[3]


def child_has_it(run: RunFolder, lock: int) -> bool:
    env = {**os.environ, **inheriting(lock)}
    command = [sys.executable, "-c", ASK, str(run.path)]
    done = subprocess.run(
        command, pass_fds=[lock], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout == "True\n"


def test_machines_that_work_on_a_run_together_share_its_lock(tmp_path: Path) -> None:
    run, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "other")
    for folder in (run, other):
        folder.path.mkdir()
    with (
        acquire_lock(run, patience_s=0) as lock,
        open_shared_lock(run) as theirs,
        acquire_lock(other, patience_s=0) as wrong,
    ):
        assert child_has_it(run, lock) and child_has_it(run, theirs)
        assert not child_has_it(run, wrong)
    with (
        open_shared_lock(run),
        acquire_lock(run, patience_s=0),
        pytest.raises(InUseError),
        acquire_lock(run, patience_s=0),
    ):
        pass
