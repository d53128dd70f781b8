"""An archive's content into a data set's folder: wholly or not at all, and nothing that was there before is touched."""

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

CHUNK = 1 << 20  # bytes
Progress = Callable[[int, int | None], None]


class DamagedError(Exception):
    """The archive is cut short, or its content does not fit its own checksums."""


class Member(NamedTuple):
    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(path: Path, archive: Archive, root: Path, progress: Progress) -> None:
    """Unpacks into a folder beside the final place, and moves what came out when all of it is sound.

    Files that are there already stay as they are.

    Args:
        path: The archive on disk, zip or tar; its name says which.
        progress: Called with (bytes unpacked, bytes in all).

    Raises:
        DamagedError: It cannot be read to its end; nothing was unpacked.
        UserError: A member would land outside its folder or is no plain file (nothing was unpacked); or a file that
            was there before differs in size from the archive's.
    """
    staging = root / f".unpacking-{archive.name}"
    if staging.exists():  # of a command that was killed
        shutil.rmtree(staging)
    try:
        with _members(path) as members:
            _write(members, archive, staging, progress)
        differing = settle(staging, root)
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
            f"{differing[0]}{others}: there before, and of another size than in {archive.name}; left as it was",
            "move it away and give the same command again",
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
            while chunk := source.read(CHUNK):
                target.write(chunk)
                done += len(chunk)
                progress(done, total)
        if place.stat().st_size != member.size:
            raise DamagedError(f"{member.name} is cut short")


def _place(name: str, archive: Archive) -> PurePosixPath:
    """Where a member belongs, relative to the data set's root."""
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
    """The plain files of an archive. Anything that could lead elsewhere (links, devices) is refused."""
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


def settle(source: Path, target: Path) -> list[Path]:
    """Moves what is in `source` to `target`, folders as a whole where they are new.

    Returns:
        Files that were there before and differ in size; they are left as they were.
    """
    differing = []
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            differing += settle(entry, place)
        elif not place.exists() and not place.is_symlink():
            shutil.move(entry, place)
        elif not place.is_file() or entry.is_dir() or place.stat().st_size != entry.stat().st_size:
            differing.append(place)
    return differing
