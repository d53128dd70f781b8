"""A run's lock, and who counts as having it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.locks import InUseError, borrowed, held, inheriting
from experiments.runs import RunFolder

ASK = (
    "import sys; from experiments.locks import inherits_lock; from experiments.runs import RunFolder; "
    "print(inherits_lock(RunFolder(sys.argv[1])))"
)
ROOT = Path(__file__).resolve().parents[2]


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
    with held(run, patience_s=0) as lock, borrowed(run) as theirs, held(other, patience_s=0) as wrong:
        assert child_has_it(run, lock) and child_has_it(run, theirs)
        assert not child_has_it(run, wrong)
    with borrowed(run), held(run, patience_s=0), pytest.raises(InUseError), held(run, patience_s=0):
        pass
