"""A cache of what was read from files: a 450 MB JSON of annotations, detections, ten thousand records of runs.

An entry holds the answer and the size, times and inode of every file and folder that it depends on; it is valid
while all of them are unchanged. Facts that follow from one small file each share an entry: `FileFacts`. Arrays have
a file of their own beside the entry, which processes map into memory and so share. A cache that cannot be read or
written counts as empty.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.errors import UserError
from experiments.common.files import explain_unreadable, hash_file, read_bytes, replacing, write_text
from experiments.common.locks import file_lock

if TYPE_CHECKING:  # imported where it is needed: it takes a tenth of a second
    import numpy as np

_VERSION = 5  # increase it when answers or checks change
# A file changed more recently might change again within one tick of its clock: https://git-scm.com/docs/racy-git
_MIN_AGE_S = 2.0
MIN_FACTS = 100  # fewer are read faster than anyone notices, and get no file

Stamp = list[int]


def read_stamp(path: Path | str) -> Stamp | None:
    """Return modification and change time (ns), size and inode of a file or folder; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of 100,000 images takes a second
    except OSError:
        return None
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]


def read_stamps(paths: Iterable[Path]) -> dict[str, Stamp | None]:
    """Return the stamp of each path; call it before reading the files."""
    return {str(path): read_stamp(path) for path in paths}


def recall(key: Any) -> dict[str, Any] | None:
    """Return the answer stored under `key`, which is valid JSON; None if a file it depends on has changed."""
    if _is_off():
        return None
    try:
        head, _, body = read_bytes(_file(key)).partition(b"\n")
        if json.loads(head) != {"version": _VERSION, "digest": _digest(body)}:
            return None
        content = json.loads(body)
        if all(read_stamp(p) == s for p, s in content["stamps"].items()):
            return dict(content["answer"])
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        pass  # no entry, an unreadable one, or no home folder
    return None


def remember(key: Any, answer: dict[str, Any], files: dict[str, Stamp | None]) -> None:
    """Store `answer` for `recall`, unless a file that it depends on is missing or changed just now."""
    if not _is_lasting(files):
        return
    with contextlib.suppress(OSError, RuntimeError):
        path = _file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        body = json.dumps({"stamps": files, "answer": answer})
        head = json.dumps({"version": _VERSION, "digest": _digest(body.encode())})
        write_text(path, f"{head}\n{body}\n")


def recall_arrays(key: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Return an answer and its arrays, which cannot be written to and share their memory with other processes'."""
    import numpy as np

    answer = recall(key)
    if answer is None:
        return None
    path = _folder() / f"{answer['digest']}.arrays"
    try:
        if explain_unreadable(path) is not None or hash_file(path) != answer["digest"]:
            return None
        with open(path, "rb") as stream:
            memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    return answer["answer"], {
        name: np.frombuffer(memory, kind, math.prod(shape), offset).reshape(shape)
        for name, (kind, shape, offset) in answer["arrays"].items()
    }


def remember_arrays(
    key: Any, answer: dict[str, Any], arrays: Mapping[str, np.ndarray], files: dict[str, Stamp | None]
) -> None:
    """Store an answer and its arrays for `recall_arrays`, on the conditions of `remember`.

    Raises:
        OSError, RuntimeError: The arrays cannot be written; there is no home folder.
    """
    if not _is_lasting(files):
        return
    content, places = bytearray(), {}
    for name, array in arrays.items():
        content += bytes(-len(content) % 64)  # numbers lie at multiples of their size
        places[name] = [array.dtype.str, array.shape, len(content)]
        content += array.tobytes()
    digest = hashlib.sha256(content).hexdigest()
    _folder().mkdir(parents=True, exist_ok=True)
    with replacing(_folder() / f"{digest}.arrays", "wb") as stream:
        stream.write(content)
    remember(key, {"answer": answer, "digest": digest, "arrays": places}, files)


@contextlib.contextmanager
def only_maker(key: Any) -> Iterator[None]:
    """Hold the lock of an entry, so that of many processes one makes it; where none can be had, go without."""
    with contextlib.ExitStack() as stack:
        if not _is_off():
            with contextlib.suppress(OSError, RuntimeError):
                _folder().mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(_file(key).with_suffix(".lock")))
        yield


class FileFacts:
    """What follows from one small file each, in one entry of the cache.

    Args:
        key: Names the entry; without one nothing is kept.
        version: Facts of another version are not believed.
    """

    def __init__(self, key: Any = None, version: str = "") -> None:
        self._key, self._version = key, version
        entry = recall(key) if key is not None else None
        self._facts: dict[str, list[Any]] = entry["facts"] if entry and entry["version"] == version else {}
        self._changed = False

    def fact(self, name: str, path: Path, read: Callable[[], tuple[Any, bool]]) -> Any:
        """Return what follows from a file: as cached if the file is unchanged, else as `read` has it.

        Args:
            name: Of the fact: `<folder>/<file name>`.
            read: Returns the fact, in values that JSON gives back equal, and whether it follows from the file alone.
                What it raises is raised.
        """
        before = read_stamp(path)
        known = self._facts.get(name)
        if known is not None and known[0] == before:
            return known[1]
        self._changed |= self._facts.pop(name, None) is not None
        found, is_lasting = read()
        if is_lasting and before and _is_settled(max(before[:2])) and read_stamp(path) == before:
            self._facts[name] = [before, found]
            self._changed = True
        return found

    def forget_all_but(self, folders: Collection[str]) -> None:
        """Drop the facts of files in all folders but these."""
        for name in [name for name in self._facts if name.rpartition("/")[0] not in folders]:
            del self._facts[name]
            self._changed = True

    def save(self) -> None:
        """Write new facts, if they are worth a file; of several processes the last has its way."""
        if self._key is not None and self._changed and len(self._facts) >= MIN_FACTS:
            remember(self._key, {"version": self._version, "facts": self._facts}, {})
        self._changed = False


def _is_lasting(files: dict[str, Stamp | None]) -> bool:
    """Whether an answer can be stored: there is a cache, and no file is missing or changed just now."""
    return not _is_off() and all(found is not None and _is_settled(found[0]) for found in files.values())


def _is_settled(changed_ns: int) -> bool:
    return changed_ns < time.time_ns() - int(_MIN_AGE_S * 1e9)


def _digest(body: bytes) -> str:
    """Return a checksum: a single flipped bit may make another class name."""
    return hashlib.sha256(body.strip()).hexdigest()


def _is_off() -> bool:
    return os.environ.get("MSDET_NO_CACHE", "") not in ("", "0")


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG standard says to ignore a relative path
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return folder / "msdet" / "datasets"


def _file(key: Any) -> Path:
    return _folder() / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}.json"
