"""Unpack an archive into a data set's folder: all of it or nothing, and without touching existing files."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from experiments.common.errors import UserError
from experiments.data.download.archives import Archive

CHUNK_BYTES = 1 << 20
Progress = Callable[[int, int | None], None]


class DamagedError(Exception):
    """An archive that is cut short or does not fit its own checksums."""


class Member(NamedTuple):
    """A plain file in an archive; `size` in bytes."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(path: Path, archive: Archive, root: Path, progress: Progress) -> None:
    """Unpack into a folder beside the final place, and move the files once all of them are sound.

    Args:
        path: The archive on disk, zip or tar by its suffix.
        archive: Says which part of it belongs into the data set.
        root: The data set's folder; files that exist in it stay as they are.
        progress: Called with (bytes unpacked, bytes in all).

    Raises:
        DamagedError: It cannot be read to its end; nothing is unpacked.
        UserError: A member would land outside `root` or is no plain file (nothing is unpacked), or an existing file
            differs in size from the archive's.
    """
    staging = root / f".unpacking-{archive.name}"
    if staging.exists():  # of a command that was killed
        shutil.rmtree(staging)
    try:
        with _members(path) as members:
            _write(members, archive, staging, progress)
        differing = move_new_files(staging, root)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise DamagedError(str(error) or type(error).__name__) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if differing:
        others = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise UserError(
            f"{differing[0]}{others}: exists with another size than in {archive.name}, and is not replaced",
            "move it away and repeat the command",
        )


def _write(members: list[Member], archive: Archive, staging: Path, progress: Progress) -> None:
    places = [_place(member.name, archive) for member in members]  # all of them, before anything is written
    done, total = 0, sum(member.size for member in members)
    staging.mkdir(parents=True)
    progress(0, total)
    for member, relative in zip(members, places):
        place = staging / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        if source is None:
            raise DamagedError(f"{member.name} has no content")
        with source, open(place, "wb") as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
                done += len(chunk)
                progress(done, total)
        if place.stat().st_size != member.size:
            raise DamagedError(f"{member.name} is cut short")


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


@contextmanager
def _members(path: Path) -> Iterator[list[Member]]:
    """Open an archive and yield its files; raise UserError for links and devices, which may lead elsewhere."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as bundle:
            yield [_of_zip(bundle, info) for info in bundle.infolist() if not info.is_dir()]
    else:
        with tarfile.open(path) as tar:
            yield [_of_tar(tar, entry) for entry in tar.getmembers() if not entry.isdir()]


def _of_zip(bundle: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):  # 0: a system without kinds wrote it
        raise _no_plain_file(bundle.filename, info.filename)
    return Member(info.filename, info.file_size, lambda: bundle.open(info))


def _of_tar(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
    if not entry.isreg():
        raise _no_plain_file(tar.name, entry.name)
    return Member(entry.name, entry.size, lambda: tar.extractfile(entry))


def _no_plain_file(archive: object, name: str) -> UserError:
    return UserError(f"{archive}: its member '{name}' is no plain file; nothing was unpacked")


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
