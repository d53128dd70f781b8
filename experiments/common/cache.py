"""Remembers what was read from annotation files, so that a 450 MB JSON is not read again for every command.

An entry holds the answer and the size, modification time and inode of every file and folder it rests on; it
counts only while all of them are as they were. A cache that cannot be read or written is as good as none.
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

_VERSION = 3  # raise it when answers or checks change
_SETTLED_S = 2.0  # a file changed more recently might change again within one tick of its clock

Stamp = list[int]


def stamp(path: Path) -> Stamp | None:
    """Size, modification time (ns) and inode; None where there is nothing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def stamps(paths: Iterable[Path]) -> dict[str, Stamp | None]:
    """The state of files and folders; to be taken before they are read."""
    return {str(path): stamp(path) for path in paths}


def recall(key: Any) -> dict[str, Any] | None:
    """The answer remembered under `key` (anything JSON takes), if nothing it rests on has changed."""
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
        pass  # none, unreadable, or no home folder to look in
    return None


def remember(key: Any, answer: dict[str, Any], rests_on: dict[str, Stamp | None]) -> None:
    """Keeps `answer` for `recall`, unless what it rests on changed just now."""
    newest = max((s[1] for s in rests_on.values() if s), default=0)
    if _is_off() or None in rests_on.values() or newest > time.time_ns() - int(_SETTLED_S * 1e9):
        return
    with contextlib.suppress(OSError, RuntimeError):
        path = _file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"stamps": rests_on, "answer": answer})
        write_json(path, {"version": _VERSION, "digest": _digest(content), "content": content}, indent=None)


def _digest(content: str) -> str:
    """Return what tells a damaged entry: a single flipped bit may be another class name."""
    return hashlib.sha256(content.encode()).hexdigest()


def _is_off() -> bool:
    return os.environ.get("MSDET_NO_CACHE", "") not in ("", "0")


def _file(key: Any) -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG standard says to ignore a relative one
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    return folder / "msdet" / "datasets" / f"{name}.json"
