"""The time of `msdet --help`, and what it imports."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

HEAVY = ("torch", "pandas", "matplotlib", "numpy", "cv2", "mmengine", "mmdet")


def measure(repeats: int = 10) -> dict[str, Any]:
    """Return seconds as whole processes, beside a bare interpreter's, and the heavy packages imported."""
    code = "import sys; sys.argv[1:] = ['--help']; from msdet_cli.main import main; main()"
    help_command = [sys.executable, "-c", code]
    bare = [sys.executable, "-c", "pass"]
    _seconds(help_command)
    pairs = [(_seconds(help_command), _seconds(bare)) for _ in range(repeats)]
    return {
        "help s": statistics.median(pair[0] for pair in pairs),
        "bare interpreter s": statistics.median(pair[1] for pair in pairs),
        "heavy imports": ", ".join(find_heavy_imports()) or "none",
    }


def find_heavy_imports() -> list[str]:
    """Return which of HEAVY the command line imports before a command is chosen."""
    code = f"import sys, msdet_cli.app; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
