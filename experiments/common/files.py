"""Files written whole or not at all, so that no reader finds half of one; text read with clear errors."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from experiments.common.errors import BAD_INPUT, INTERRUPTED, UserError, find_storage_error
from experiments.common.printable import printable
from experiments.common.regular_files import MAX_TEXT_BYTES, explain_unreadable


@contextlib.contextmanager
def refusing(failure: str, hint: str | None = None) -> Iterator[None]:
    """Turn an OSError into a UserError, `<failure>: <reason>`; of a full disk with the code of an interruption."""
    try:
        yield
    except OSError as error:
        code = INTERRUPTED if find_storage_error(error) else BAD_INPUT
        raise UserError(f"{failure}: {error.strerror or error}", hint, code) from None


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without error."""
    encoding = None if "b" in mode else "utf-8"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, mode, encoding=encoding) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp lets no other user read it
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as stream:
        stream.write(text)


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write a JSON file whole or not at all."""
    with replacing(path) as stream:
        json.dump(content, stream, indent=indent)
        stream.write("\n")


def sync_folder(path: Path) -> None:
    """Flush a folder to disk, so that renames in it survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder and those below it; call it under its lock."""
    for leftover in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def name_for_damaged(path: Path) -> Path:
    """Return `<name>.damaged`, or that with a number where it exists."""
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    return aside


def set_aside(path: Path) -> Path:
    """Rename a damaged file, or a folder in its place, never to an existing name; return the new path."""
    aside = name_for_damaged(path)
    os.replace(path, aside)
    return aside


def make_unique_name(stem: str, used: set[str]) -> str:
    """Return the stem, or `<stem>-2` and so on, whichever is free, and add it to `used`, ignoring case."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name.casefold() not in used)
    used.add(name.casefold())
    return name


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def display_path(path: Path) -> str:
    """Return a path relative to the working directory where it lies below it."""
    try:
        return printable(str(path.relative_to(Path.cwd())))
    except ValueError:
        return printable(str(path))


def read_text(path: Path) -> str:
    """Return the text of a file; raise UserError where it cannot be read, as a pipe would not end."""
    fault = explain_unreadable(path, MAX_TEXT_BYTES)
    if fault is not None:
        raise UserError(f"{display_path(path)}: {fault}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{display_path(path)}: is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{display_path(path)}: cannot be read: {error.strerror or error}") from None
