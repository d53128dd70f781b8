"""Files written whole or not at all, so that no reader finds half of one; read with one line on what fails."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from experiments.common.errors import BAD_INPUT, INTERRUPTED, UserError, find_storage_error
from experiments.common.printable import printable

# Of a recipe, record, config or trace: what is larger is none, and fills the memory.
MAX_TEXT_BYTES = 256 << 20


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
        mask = os.umask(0)  # it is read by setting it
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp lets no other user read it
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
    numbers = itertools.chain([""], itertools.count(2))
    names = (path.with_name(f"{path.name}.damaged{number}") for number in numbers)
    return next(name for name in names if not os.path.lexists(name))


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


def display_path(path: Path) -> str:
    """Return a path relative to the working directory where it lies below it."""
    try:
        return printable(str(path.relative_to(Path.cwd())))
    except ValueError:
        return printable(str(path))


def read_text(path: Path) -> str:
    """Return the text of a file; raise UserError where it cannot be read, or is a pipe, which may never end."""
    fault = explain_unreadable(path, MAX_TEXT_BYTES)
    if fault is not None:
        raise UserError(f"{display_path(path)}: {fault}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{display_path(path)}: is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{display_path(path)}: cannot be read: {error.strerror or error}") from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of any size; raise UserError as `read_text`."""
    fault = explain_unreadable(path)
    if fault is not None:
        raise UserError(f"{path}: {fault}")
    with refusing(f"{path}: cannot be read"):
        return path.read_bytes()


def explain_unreadable(path: Path, max_bytes: int | None = None) -> str | None:
    """Return why a path is no regular file, or too large, to be printed after its name; None where it is one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except ValueError as error:  # a NUL byte
        return f"is not a path: {error}"
    if not stat.S_ISREG(status.st_mode):
        return f"cannot be read: it is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}"
    if max_bytes is not None and status.st_size > max_bytes:
        return f"cannot be read: it is larger than {max_bytes >> 20} MB"
    return None


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; unlike `Path.is_dir`, this allows names that are too long."""
    return os.path.isdir(path)  # noqa: PTH112
