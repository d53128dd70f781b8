"""Reading an annotation file's bytes: whatever goes wrong ends in one line that names the file."""

from __future__ import annotations

import stat
from pathlib import Path

from experiments.errors import UserError


def read_bytes(path: Path) -> bytes:
    """Return the file's content.

    Raises:
        UserError: It is missing, unreadable, or no regular file: a device or a pipe may never end.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise UserError(f"{path}: cannot be read: it is {kind}")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a NUL byte in the path
        raise UserError(f"{str(path)!r}: is not a path: {error}") from None
