"""Regular files: reading their bytes, with one line that names the file where that fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from experiments.common.errors import UserError


def read_bytes(path: Path) -> bytes:
    """Return the file's content.

    Raises:
        UserError: It is missing, unreadable, or no regular file: a device or a pipe may never end.
    """
    fault = why_unreadable(path)
    if fault is not None:
        raise UserError(f"{path}: {fault}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def why_unreadable(path: Path) -> str | None:
    """Return why a path is no regular file, to be printed after its name; None where it is one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except ValueError as error:  # a NUL byte
        return f"is not a path: {error}"
    if stat.S_ISREG(mode):
        return None
    return f"cannot be read: it is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}"


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; unlike `Path.is_dir`, this allows names that are too long."""
    return os.path.isdir(path)  # noqa: PTH112
