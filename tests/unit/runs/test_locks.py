"""A run's lock, and which processes have it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.runs.run_folder import LOCK_FD, InUseError, RunFolder, acquire_lock

ROOT = Path(__file__).resolve().parents[3]


def child_inherits(run: RunFolder, lock: int) -> bool:
    command = [sys.executable, "-m", "tests.unit.runs.print_inherits_lock", str(run.path)]
    env = {**os.environ, LOCK_FD: str(lock)}
    done = subprocess.run(
        command, pass_fds=[lock], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout == "True\n"


@pytest.fixture
def folders(tmp_path: Path) -> list[RunFolder]:
    made = [RunFolder(tmp_path / name) for name in ("run", "other")]
    for folder in made:
        folder.path.mkdir()
    return made


def test_a_child_inherits_the_lock_of_its_run_only(folders: list[RunFolder]) -> None:
    run, other = folders
    with acquire_lock(run, patience_s=0) as lock, acquire_lock(other, patience_s=0) as wrong:
        assert child_inherits(run, lock)
        assert not child_inherits(run, wrong)


def test_a_locked_run_is_refused_after_the_patience_and_free_afterwards(folders: list[RunFolder]) -> None:
    run, _ = folders
    with acquire_lock(run, patience_s=0), pytest.raises(InUseError), acquire_lock(run, patience_s=0.3):
        pass
    with acquire_lock(run, patience_s=0):
        pass
