"""A cancelled run is asked to stop by its own heartbeat, once: a second request would end it without a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import os, sys, time
from experiments.runs.run_folder import RunFolder
from experiments.training.engine import stopping
stopping.HEARTBEAT_S = 0.02
run = RunFolder(sys.argv[1])
run.progress.touch()
stopping.stop_when_asked(1)
stopping.start_heartbeat(run, os.getppid())
time.sleep(0.2)
before = stopping.STOP.is_set()
run.cancel.touch()
time.sleep(0.5)  # many beats; a second signal raises KeyboardInterrupt here
print(before, stopping.STOP.is_set())
"""


def test_a_cancelled_run_is_asked_once(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "False True\n"), done.stderr
