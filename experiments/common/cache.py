"""A cache of what was read from annotations or detections, so that a 450 MB JSON is not read for every command.

An entry holds the answer and the size, modification time and inode of every file and folder that it depends on; it
is valid while all of them are unchanged. A cache that cannot be read or written counts as empty.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.common.files import write_json
from experiments.common.regular_files import read_bytes

_VERSION = 3  # increase it when answers or checks change
_MIN_AGE_S = 2.0  # a file changed more recently might change again within one tick of its clock

Stamp = list[int]


def stamp(path: Path) -> Stamp | None:
    """Return size, modification time (ns) and inode of a file or folder; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def stamps(paths: Iterable[Path]) -> dict[str, Stamp | None]:
    """Return the stamp of each path; call it before reading the files."""
    return {str(path): stamp(path) for path in paths}


def recall(key: Any) -> dict[str, Any] | None:
    """Return the answer stored under `key`, which is valid JSON; None if a file it depends on has changed."""
    if _is_off():
        return None
    try:
        entry = json.loads(read_bytes(_file(key)))
        if entry["version"] != _VERSION or entry["digest"] != _digest(entry["content"]):
            return None
        content = json.loads(entry["content"])
        if all(stamp(Path(p)) == s for p, s in content["stamps"].items()):
            return dict(content["answer"])
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        pass  # no entry, an unreadable one, or no home folder
    return None


def remember(key: Any, answer: dict[str, Any], files: dict[str, Stamp | None]) -> None:
    """Store `answer` for `recall`, unless a file that it depends on is missing or changed just now."""
    newest = max((s[1] for s in files.values() if s), default=0)
    if _is_off() or None in files.values() or newest > time.time_ns() - int(_MIN_AGE_S * 1e9):
        return
    with contextlib.suppress(OSError, RuntimeError):
        path = _file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"stamps": files, "answer": answer})
        write_json(path, {"version": _VERSION, "digest": _digest(content), "content": content}, indent=None)


def _digest(content: str) -> str:
    """Return a checksum: a single flipped bit may make another class name."""
    return hashlib.sha256(content.encode()).hexdigest()


def _is_off() -> bool:
    return os.environ.get("MSDET_NO_CACHE", "") not in ("", "0")


def _file(key: Any) -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG standard says to ignore a relative path
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    return folder / "msdet" / "datasets" / f"{name}.json"
