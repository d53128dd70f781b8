"""Brings a data set's official archives to this machine: fetched, checked, unpacked, one after another."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from experiments.common.errors import UserError
from experiments.data.download.archives import Archive
from experiments.data.download.fetch import PartialDownload, fetch
from experiments.data.download.unpack import DamagedError, unpack

FOLDER = "archives"  # below the data set's root
MARGIN = 1.05  # files take whole blocks of the disk


class Watcher(Protocol):
    """Is told how it goes."""

    def at(self, phase: str, name: str, done: int, total: int | None) -> None:
        """`phase` is 'downloading', 'checking' or 'unpacking'; `done` and `total` are bytes."""

    def say(self, line: str) -> None:
        """A line to keep."""


@dataclass(frozen=True)
class Outcome:
    """What became of one archive. `checks` is empty where its content was there before."""

    name: str
    checks: str


def download(
    archives: Sequence[Archive], root: Path, watcher: Watcher, mirror: str | None = None, keep: bool = False
) -> list[Outcome]:
    """Sees to it that the content of all archives is in `root`; what is there already is not touched.

    An archive that already lies in `<root>/archives` is checked and used.

    Args:
        archives: What to bring.
        root: The data set's folder; made where it is missing.
        mirror: A URL whose folder holds files of the same names, in place of the official servers.
        keep: Whether the archives stay in `<root>/archives` once they are unpacked.

    Raises:
        UserError: Too little disk space (before anything is fetched), a server that does not give the file, an
            archive that does not fit its checksum or is damaged (set aside, nothing unpacked).
    """
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise UserError(
            f"--mirror {mirror}: is no URL", "--mirror takes one that begins with http:// or https://"
        )
    todo = [archive for archive in archives if not archive.is_there(root)]
    if not todo:
        return [Outcome(archive.name, "") for archive in archives]
    folder = root / FOLDER
    with _alone(folder):
        _check_space(todo, root, keep)
        checks = {archive.name: _bring(archive, folder, root, watcher, mirror, keep) for archive in todo}
    return [Outcome(archive.name, checks.get(archive.name, "")) for archive in archives]


def _bring(
    archive: Archive, folder: Path, root: Path, watcher: Watcher, mirror: str | None, keep: bool
) -> str:
    """One archive; returns what was checked."""
    path, name = folder / archive.name, archive.name
    url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{name}"
    if not path.is_file():
        part = fetch(url, path, archive.size, lambda *at: watcher.at("downloading", name, *at), watcher.say)
        _check_sum(part.path, archive, watcher)
        part.finish(path)
    else:
        _check_sum(path, archive, watcher)
    try:
        unpack(path, archive, root, lambda *at: watcher.at("unpacking", name, *at))
    except DamagedError as error:
        raise _set_aside(path, archive, str(error)) from None
    if not archive.is_there(root):
        raise UserError(
            f"{path}: was unpacked into {root}, but files that should be in it are missing",
            "look into the archive",
        )
    if not keep:
        path.unlink()
    inner = "size and the archive's own checksums" if path.suffix == ".zip" else "size and archive structure"
    return (
        f"MD5 as published by {archive.publisher}, {inner}"
        if archive.md5
        else f"{inner}; no MD5 is published"
    )


def _check_sum(path: Path, archive: Archive, watcher: Watcher) -> None:
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        raise _set_aside(path, archive, f"has {size} bytes, the published archive {archive.size}")
    if archive.md5 is None:
        return
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            done += len(chunk)
            watcher.at("checking", archive.name, done, size)
    if digest.hexdigest() != archive.md5:
        raise _set_aside(path, archive, f"MD5 is {digest.hexdigest()}, published: {archive.md5}")


def _set_aside(path: Path, archive: Archive, why: str) -> UserError:
    """Keeps a bad file from being met again; it may still be of use to find out what happened."""
    aside = path.with_name(f"{archive.name}.damaged")
    path.replace(aside)
    PartialDownload(path.with_name(archive.name)).drop()
    return UserError(
        f"{archive.name}: {why}; set aside as {aside}, nothing of it was unpacked",
        "the same command again downloads it anew; --mirror URL takes another server",
    )


def _check_space(todo: Sequence[Archive], root: Path, keep: bool) -> None:
    """Raises UserError unless archives and their content fit on the disk, one archive after another."""
    held = peak = 0
    for archive in todo:
        path = root / FOLDER / archive.name
        there = path.stat().st_size if path.is_file() else PartialDownload(path).size
        peak = max(peak, held + (archive.size or 0) - there + int(archive.unpacked * MARGIN))
        held += int(archive.unpacked * MARGIN) + (archive.size or 0 if keep else 0)
    peak = max(peak, held)
    free = shutil.disk_usage(root).free
    if free < peak:
        raise UserError(
            f"{root}: {peak / 1e9:.1f} GB are needed there, {free / 1e9:.1f} GB are free; nothing was downloaded",
            "--root DIR takes another folder",
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One command at a time in a folder; an empty folder is removed in the end."""
    lock = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = open(lock, "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}", "--root DIR takes another folder"
        ) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another command is downloading into {folder.parent}", "wait for it to end"
            ) from None
        try:
            yield
        finally:
            if [entry.name for entry in folder.iterdir()] == [lock.name]:
                lock.unlink()
                folder.rmdir()
                with contextlib.suppress(OSError):  # where anything else is in it
                    folder.parent.rmdir()
