"""Files that commands write below --out, named as they are written."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from experiments.common.files import refusing, replacing
from msdet_cli.console.output import print_line


def make_output_folder(out: Path) -> None:
    """Make the folder of `--out`; raise UserError where nothing can be written there, before hours of work."""
    with name_folder_on_error(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()


def name_folder_on_error(out: Path) -> contextlib.AbstractContextManager[None]:
    """Return a block whose errors of writing below `--out` are a UserError that names the folder."""
    return refusing(f"--out: {out} cannot be written", "name another folder")


def write_all(files: Mapping[str, bytes], out: Path, on_stderr: bool = False) -> None:
    """Write files, each at once or not at all, and print their paths.

    Raises:
        UserError: The folder cannot be written.
    """
    console = Console(stderr=on_stderr)
    with name_folder_on_error(out):
        for name, content in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, "wb") as stream:
                stream.write(content)
            print_line(console, str(path))
