"""An index of what was read of run folders, in one file beside them; without it a report is slower, and the same."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from experiments.common.files import replacing

FILE = ".index.json"  # in the results folder
MIN_FACTS = 100  # facts: fewer are read faster than anyone notices, and their folder gets no file more
SETTLED_NS = 3_000_000_000  # longer than the coarsest clock of a file system (2 s) ticks
_FOLDER = Path(__file__).resolve().parents[1]

Signature = list[int]  # of a file: modified and changed (ns), bytes, inode; a list, as JSON has it


class Index:
    """Facts that follow from one small file each, kept as long as the file is as it was.

    A fact counts while modification time, change time, size and inode of its file are those at its reading. It is
    kept only if the file had been left alone for SETTLED_NS before, so that a later write cannot have the same times
    (https://git-scm.com/docs/racy-git). The index is written whole, under a temporary name, with a checksum: of several
    processes the last has its way, which costs the others' facts but spoils none. It is not written where that is not
    permitted, and not believed where it is damaged, or was written by other code than reads it now.

    Args:
        results: The results folder; None keeps nothing.
    """

    def __init__(self, results: Path | None = None) -> None:
        self._results = results
        self._kept: dict[str, list[Any]] = {} if results is None else _read(results / FILE)
        self._changed = False

    def fact(self, run: str, path: Path, read: Callable[[], tuple[Any, bool]]) -> Any:
        """Return what follows from a file: as cached if the file is unchanged, else as `read` has it.

        Args:
            run: `<recipe>/<hash>/seed<k>`.
            path: Of a file in that run's folder.
            read: Gives the fact, in values that JSON gives back equal, and whether it follows from the file alone. What
                it raises is raised.
        """
        if self._results is None:
            return read()[0]
        name = f"{run}/{path.name}"
        now = time.time_ns()
        before = signature(path)
        known = self._kept.get(name)
        if known is not None and known[0] == before:
            return known[1]
        if known is not None:
            del self._kept[name]
            self._changed = True
        found, lasts = read()
        if lasts and before is not None and max(before[:2]) < now - SETTLED_NS and signature(path) == before:
            self._kept[name] = [before, found]
            self._changed = True
        return found

    def forget_all_but(self, folders: Collection[str]) -> None:
        """Drop the facts of all run folders but these, named `<recipe>/<hash>/seed<k>`."""
        gone = [name for name in self._kept if name.rpartition("/")[0] not in folders]
        for name in gone:
            del self._kept[name]
        self._changed |= bool(gone)

    def save(self) -> None:
        """Write new facts, if they are worth a file and it may be written."""
        if self._results is None or not self._changed:
            return
        path = self._results / FILE
        if len(self._kept) < MIN_FACTS and not path.exists():
            return
        body = json.dumps(self._kept, separators=(",", ":")).encode()
        head = json.dumps({"code": _code(), "digest": hashlib.sha256(body).hexdigest()}).encode()
        with contextlib.suppress(OSError), replacing(path, "wb") as stream:
            stream.write(head + b"\n" + body)
        self._changed = False


def signature(path: Path) -> Signature | None:
    """Return times, size and inode; None where there is no such file, or no access."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino]


def _read(path: Path) -> dict[str, list[Any]]:
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        said = json.loads(head)
        if said["code"] == _code() and said["digest"] == hashlib.sha256(body).hexdigest():
            return dict(json.loads(body))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return {}


@functools.lru_cache(maxsize=1)
def _code() -> str:
    """Return a digest of the sources that compute facts, so that no version number is needed."""
    sources = [
        *(path for name in ("common", "recipes", "runs") for path in sorted((_FOLDER / name).glob("*.py"))),
        *(_FOLDER / "reporting" / name for name in ("collect.py", "tables/matching.py", "index.py")),
        _FOLDER / "data" / "spec.py",
        _FOLDER / "weighting" / "options.py",
    ]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
