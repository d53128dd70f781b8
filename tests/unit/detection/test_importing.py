"""Importing msdet's detection package leaves MMEngine as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("import_and_compare.py")


def test_importing_changes_nothing_in_mmengine() -> None:
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=SCRIPT.parents[3]
    ).stdout
    count, *changed = printed.splitlines()[-1].split()
    assert int(count) > 50
    assert changed == []
