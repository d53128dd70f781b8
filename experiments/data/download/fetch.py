"""Download one file over HTTP, in as many connections as it takes.

Received bytes stay in `<file>.part`, beside a note of the server's entity tag or date. A download is continued only
while the server confirms with If-Range that the file is the same; otherwise it begins anew.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.common.errors import FAILED, UserError
from experiments.common.files import refusing, write_json

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 60  # without a byte, before a connection counts as cut
MAX_ATTEMPTS = 6  # in a row without a byte
MAX_WAIT_S = 60.0  # between two attempts

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


class _CutError(Exception):
    """A connection that ended early or must be made anew; received bytes are kept."""


class PartialDownload:
    """The unfinished file `<path>.part` of a complete file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".part")
        self._note = path.with_name(path.name + ".part.json")

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self) -> str | None:
        """Return the entity tag or date that the server gave at the beginning; None where unknown."""
        try:
            return json.loads(self._note.read_text(encoding="utf-8"))["validator"]
        except (OSError, ValueError, LookupError, TypeError):  # no note, or a damaged one
            return None

    def begin(self, validator: str | None) -> None:
        """Start an empty file, and note what the server calls this version of it."""
        with self._writing():
            self.path.write_bytes(b"")
            write_json(self._note, {"validator": validator})

    def add(self, chunks: Iterator[bytes], progress: Callable[[int], None]) -> None:
        """Append chunks, each written before the next is asked for; report the size after each."""
        done = self.size
        progress(done)
        with contextlib.ExitStack() as stack:
            with self._writing():
                stream = stack.enter_context(open(self.path, "ab", buffering=0))
            for chunk in chunks:
                with self._writing():
                    stream.write(chunk)
                done += len(chunk)
                progress(done)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        """Turn errors of the disk into UserError: those of the connection, also OSError, are tried again."""
        hint = "free some space, then repeat the command: it continues the download"
        return refusing(f"{self.path} cannot be written", hint)

    def drop(self) -> None:
        """Delete it."""
        for path in (self.path, self._note):
            path.unlink(missing_ok=True)

    def finish(self, place: Path) -> None:
        """Move the complete file to `place`."""
        self.path.replace(place)
        self._note.unlink(missing_ok=True)


def fetch(url: str, path: Path, size: int, progress: Progress, say: Say) -> PartialDownload:
    """Download a file completely, continuing what an earlier call left.

    Args:
        url: http or https; redirects and the environment's proxies are followed.
        path: Place of the complete file; the caller moves it there after checking it.
        size: Bytes it must have.
        progress: Called with (bytes received, bytes in all).
        say: Called with a line whenever a connection was cut.

    Raises:
        UserError: The server has no such file, or one of another size; nothing came in MAX_ATTEMPTS attempts; the
            disk is full.
    """
    part, fruitless = PartialDownload(path), 0
    while True:
        before = part.size
        try:
            _transfer(url, part, size, progress)
            return part
        except (OSError, http.client.HTTPException, _CutError) as error:
            reason = getattr(error, "reason", None) or error
            fruitless = 0 if part.size > before else fruitless + 1
            if fruitless >= MAX_ATTEMPTS:
                raise UserError(
                    f"{url}: {reason}; {MAX_ATTEMPTS} attempts failed; {part.size} bytes are kept in {part.path}",
                    "repeat the command to continue; --mirror URL takes another server",
                    FAILED,
                ) from None
            wait = min(2.0**fruitless, MAX_WAIT_S)
            say(f"{path.name}: {reason}; next attempt in {wait:.0f} s, from byte {part.size}")
            time.sleep(wait)


def _transfer(url: str, part: PartialDownload, size: int, progress: Progress) -> None:
    """Download over one connection; return when the file is complete.

    Raises:
        _CutError: It is not; another connection is needed.
    """
    known = part.validator()
    start = part.size if known else 0
    if start == size:
        return  # complete, but the command ended before it was checked
    headers = {"User-Agent": "msdet", "Accept-Encoding": "identity"}
    if known and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": known}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        answer = f"the server answers {error.code} {error.reason}"
        if error.code == 416:  # no such range: the file must have become shorter
            part.drop()
        elif error.code not in (408, 425, 429) and error.code < 500:
            raise UserError(f"{url}: {answer}", "--mirror URL takes another server", FAILED) from None
        raise _CutError(answer) from None
    except ValueError as error:
        raise UserError(
            f"{url}: {error}", "--mirror takes a URL that begins with http:// or https://"
        ) from None
    with response:
        first, total = _extent(response)
        if total not in (None, size):
            raise UserError(
                f"{url}: the server offers {total} bytes, the published archive has {size}; nothing was downloaded",
                "--mirror URL takes another server",
            )
        tag = response.headers.get("ETag") or "W/"  # a weak one may stay when bytes change
        validator = response.headers.get("Last-Modified") if tag.startswith("W/") else tag
        if response.status != 206:
            part.begin(validator)  # the server sends all: it knows no ranges, or the file has changed
        elif first != start or validator != known:
            part.drop()
            raise _CutError("the server's file has changed")
        part.add(iter(lambda: response.read1(CHUNK_BYTES), b""), lambda done: progress(done, size))
    if part.size != size:
        raise _CutError("the connection was cut")


def _extent(response: Any) -> tuple[int, int | None]:
    """Return the first byte that the answer holds, -1 if unknown, and the bytes of the whole file."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        return (int(match[1]), None if match[2] == "*" else int(match[2])) if match else (-1, None)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None
