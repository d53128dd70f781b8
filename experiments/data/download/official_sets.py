"""Download a data set's official archives one after another: fetch, check, unpack."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from experiments.common.errors import UserError
from experiments.common.files import refusing
from experiments.common.locks import LockedError, file_lock
from experiments.data.download.archives import Archive
from experiments.data.download.fetch import PartialDownload, fetch
from experiments.data.download.unpack import DamagedError, unpack

FOLDER = "archives"  # below the data set's root
LOCK = ".lock"  # in that folder
SPACE_MARGIN = 1.05  # times the bytes of the content: files take whole blocks of the disk


class Watcher(Protocol):
    """A view of the progress."""

    def at(self, phase: str, name: str, done: int, total: int) -> None:
        """Show bytes `done` of `total` in a phase: 'downloading', 'checking' or 'unpacking'."""

    def say(self, line: str) -> None:
        """Print a line that stays."""


def download(
    archives: Sequence[Archive], root: Path, watcher: Watcher, mirror: str | None = None, keep: bool = False
) -> list[str]:
    """Download and unpack the archives whose content is not in `root` yet.

    An archive that already lies in `<root>/archives` is checked and used. Existing files are never replaced.

    Args:
        root: The data set's folder; made where it is missing.
        mirror: A URL whose folder holds files of the same names, in place of the official servers.
        keep: Whether the archives stay in `<root>/archives` once they are unpacked.

    Returns:
        How each archive was checked; "" where its content was there before.

    Raises:
        UserError: The disk space does not suffice (nothing is downloaded), a server refuses the file, or an
            archive has a wrong checksum or is damaged (it is renamed, nothing of it is unpacked).
    """
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise UserError(
            f"--mirror {mirror}: is no URL", "--mirror takes one that begins with http:// or https://"
        )
    todo = [archive for archive in archives if not archive.is_there(root)]
    checks: dict[str, str] = {}
    if todo:
        with _lock_folder(root / FOLDER):
            _check_space(todo, root, keep)
            for archive in todo:
                checks[archive.name] = _provide(archive, root, watcher, mirror, keep)
    return [checks.get(archive.name, "") for archive in archives]


def _provide(archive: Archive, root: Path, watcher: Watcher, mirror: str | None, keep: bool) -> str:
    """Download, check and unpack one archive; return how it was checked."""
    path, name = root / FOLDER / archive.name, archive.name
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
        text = f"{path}: was unpacked into {root}, but files that should be in it are missing"
        raise UserError(text, f"list its content and compare it with {root}")
    if not keep:
        path.unlink()
    inner = "size and the archive's own checksums" if path.suffix == ".zip" else "size and archive structure"
    return f"MD5 as published by {archive.publisher}, {inner}"


def _check_sum(path: Path, archive: Archive, watcher: Watcher) -> None:
    size = path.stat().st_size
    if size != archive.size:
        raise _set_aside(path, archive, f"has {size} bytes, the published archive {archive.size}")
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            done += len(chunk)
            watcher.at("checking", archive.name, done, size)
    if digest.hexdigest() != archive.md5:
        raise _set_aside(path, archive, f"MD5 is {digest.hexdigest()}, published: {archive.md5}")


def _set_aside(path: Path, archive: Archive, why: str) -> UserError:
    """Rename a bad archive, so that the next attempt begins anew; return the error to raise."""
    damaged = path.with_name(f"{archive.name}.damaged")
    path.replace(damaged)
    PartialDownload(path.with_name(archive.name)).drop()
    return UserError(
        f"{archive.name}: {why}; renamed to {damaged}, nothing of it was unpacked",
        "the same command again downloads it anew; --mirror URL takes another server",
    )


def _check_space(todo: Sequence[Archive], root: Path, keep: bool) -> None:
    """Raise UserError unless archives and their content, unpacked in this order, fit on the disk."""
    used = peak = 0
    for archive in todo:
        path = root / FOLDER / archive.name
        there = path.stat().st_size if path.is_file() else PartialDownload(path).size
        peak = max(peak, used + archive.size - there + int(archive.unpacked * SPACE_MARGIN))
        used += int(archive.unpacked * SPACE_MARGIN) + (archive.size if keep else 0)
    peak = max(peak, used)
    free = shutil.disk_usage(root).free
    if free < peak:
        raise UserError(
            f"{root}: {peak / 1e9:.1f} GB are needed there, {free / 1e9:.1f} GB are free; nothing was downloaded",
            "--root DIR takes another folder",
        )


@contextlib.contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Let one command at a time download into a folder; remove the folder at the end if it is empty."""
    with contextlib.ExitStack() as stack:
        with refusing(f"{folder} cannot be written", "--root DIR takes another folder"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(file_lock(folder / LOCK, patience_s=0))
            except LockedError as error:
                text = f"another command is downloading into {folder.parent}: {error}"
                raise UserError(text, "wait for it to end") from None
        try:
            yield
        finally:
            if [entry.name for entry in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
                with contextlib.suppress(OSError):  # where anything else is in it
                    folder.parent.rmdir()
