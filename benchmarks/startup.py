"""How long `msdet --help` takes, and what it imports."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

HEAVY = ("torch", "pandas", "matplotlib", "numpy", "cv2", "mmengine", "mmdet")


def measure(repeats: int = 10) -> dict[str, Any]:
    """Seconds as whole processes, beside those of a bare interpreter; and the heavy packages it imports."""
    help_command = [
        sys.executable,
        "-c",
        "import sys; sys.argv[1:] = ['--help']; from msdet_cli.main import main; main()",
    ]
    bare = [sys.executable, "-c", "pass"]
    _seconds(help_command)
    pairs = [(_seconds(help_command), _seconds(bare)) for _ in range(repeats)]
    return {
        "help s": statistics.median(pair[0] for pair in pairs),
        "bare interpreter s": statistics.median(pair[1] for pair in pairs),
        "heavy imports": ", ".join(heavy_imports()) or "none",
    }


def heavy_imports() -> list[str]:
    """Which of HEAVY the command line imports before a command is chosen."""
    code = f"import sys, msdet_cli.main; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
