"""Regular files: reading their bytes, with one line that names the file where that fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from experiments.common.errors import UserError

MAX_TEXT_BYTES = (
    256 << 20
)  # of a recipe, record, config or trace: what is larger is none, and fills the memory


def read_bytes(path: Path) -> bytes:
    """Return the file's content.

    Raises:
        UserError: It is missing, unreadable, or no regular file: a device or a pipe may never end.
    """
    fault = explain_unreadable(path)
    if fault is not None:
        raise UserError(f"{path}: {fault}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


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
    if stat.S_ISREG(status.st_mode):
        if max_bytes is not None and status.st_size > max_bytes:
            return f"cannot be read: it is larger than {max_bytes >> 20} MB"
        return None
    return f"cannot be read: it is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}"


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; unlike `Path.is_dir`, this allows names that are too long."""
    return os.path.isdir(path)  # noqa: PTH112
