"""What Python processes that tests start can import."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def search_path(*first: Path) -> str:
    """Return a PYTHONPATH with folders, this checkout and what it has been before."""
    return os.pathsep.join(filter(None, [*map(str, first), str(ROOT), os.environ.get("PYTHONPATH")]))
