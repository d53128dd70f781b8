"""Unpack an archive into a data set's folder: all of it or nothing, and without touching existing files."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.common.errors import UserError
from experiments.common.files import refusing
from experiments.data.download.archives import Archive

CHUNK_BYTES = 1 << 20
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
Progress = Callable[[int, int], None]


class DamagedError(Exception):
    """An archive that is cut short or does not fit its own checksums."""


def unpack(path: Path, archive: Archive, root: Path, progress: Progress) -> None:
    """Unpack into a folder beside the final place, and move the files once all of them are sound.

    Args:
        path: The archive on disk, zip or tar by its suffix.
        root: The data set's folder; files that exist in it stay as they are.
        progress: Called with (bytes unpacked, bytes in all).

    Raises:
        DamagedError: It cannot be read to its end; nothing is unpacked.
        UserError: A member would land outside `root` or is no plain file (nothing is unpacked), an existing file
            differs in size from the archive's, or the disk is full.
    """
    staging = root / f".unpacking-{archive.name}"
    shutil.rmtree(staging, ignore_errors=True)  # of a command that was killed
    try:
        with refusing(f"{root} cannot be written", "free some space, then repeat the command"):
            with zipfile.ZipFile(path) if path.suffix == ".zip" else tarfile.open(path) as bundle:
                _write(bundle, archive, staging, progress)
            differing = move_new_files(staging, root)
    except DAMAGE as error:
        raise DamagedError(str(error) or type(error).__name__) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if differing:
        others = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        text = f"{differing[0]}{others}: exists with another size than in {archive.name}, and is not replaced"
        raise UserError(text, "move it away and repeat the command")


def _write(
    bundle: zipfile.ZipFile | tarfile.TarFile, archive: Archive, staging: Path, progress: Progress
) -> None:
    entries: list[tuple[Any, str, int, bool]]  # with name, bytes, and whether it is a plain file
    if isinstance(bundle, zipfile.ZipFile):
        plain = (0, stat.S_IFREG)  # 0: a system without kinds of files wrote it
        infos = [info for info in bundle.infolist() if not info.is_dir()]
        kinds = [stat.S_IFMT(info.external_attr >> 16) in plain for info in infos]
        entries = [(info, info.filename, info.file_size, kind) for info, kind in zip(infos, kinds)]
    else:
        entries = [(e, e.name, e.size, e.isreg()) for e in bundle.getmembers() if not e.isdir()]
    for _, name, _, is_plain in entries:
        if not is_plain:  # links and devices may lead elsewhere
            raise UserError(f"{archive.name}: its member '{name}' is no plain file; nothing was unpacked")
    places = [_place(name, archive) for _, name, _, _ in entries]  # all, before anything is written
    done, total = 0, sum(size for _, _, size, _ in entries)
    staging.mkdir(parents=True)
    progress(0, total)
    for (entry, name, size, _), relative in zip(entries, places):
        place = staging / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        source: Any = bundle.open(entry) if isinstance(bundle, zipfile.ZipFile) else bundle.extractfile(entry)
        with source, open(place, "wb") as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
                done += len(chunk)
                progress(done, total)
        if place.stat().st_size != size:
            raise DamagedError(f"{name} is cut short")


def _place(name: str, archive: Archive) -> PurePosixPath:
    """Return a member's place relative to the data set's root; raise UserError where it has none."""
    path = PurePosixPath(name)
    inside = bool(path.parts) and not path.is_absolute() and not {"..", "\\", ":"} & {*path.parts, *name}
    if inside and archive.top:
        inside = path.parts[0] == archive.top and len(path.parts) > 1
        path = PurePosixPath(*path.parts[1:])
    if not inside:
        raise UserError(
            f"{archive.name}: its member '{name}' does not belong into the data set; nothing was unpacked"
        )
    return path


def move_new_files(source: Path, target: Path) -> list[Path]:
    """Move the content of `source` to `target`, folders as a whole where they are new.

    Returns:
        Existing files that differ in size; they are not replaced.
    """
    differing = []
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            differing += move_new_files(entry, place)
        elif not place.exists() and not place.is_symlink():
            shutil.move(entry, place)
        elif not place.is_file() or entry.is_dir() or place.stat().st_size != entry.stat().st_size:
            differing.append(place)
    return differing
