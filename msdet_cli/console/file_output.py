"""Files that commands write below --out, named as they are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from experiments.common.errors import UserError
from experiments.common.files import replacing


def write_all(files: Mapping[str, bytes], out: Path, on_stderr: bool = False) -> None:
    """Write files, each at once or not at all, and print their paths.

    Raises:
        UserError: The folder cannot be written.
    """
    console = Console(stderr=on_stderr)
    try:
        for name, content in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, "wb") as stream:
                stream.write(content)
            console.print(Text(str(path)), soft_wrap=True)
    except OSError as error:
        raise UserError(
            f"--out: {out} cannot be written: {error.strerror or error}", "name another folder"
        ) from None
