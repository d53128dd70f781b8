"""One file over HTTP, in as many connections as it takes.

What has arrived stays in `<file>.part`, with what the server said of the file beside it. It is added to only while
the server confirms that it is the same file (If-Range with its entity tag or date); otherwise it is begun anew.
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
from experiments.common.files import write_json

CHUNK = 1 << 18  # bytes
SILENCE_S = 60  # of a connection, before it counts as cut
ATTEMPTS = 6  # in a row without a byte
LONGEST_WAIT_S = 60.0

Progress = Callable[[int, int | None], None]
Say = Callable[[str], None]


class _CutError(Exception):
    """The connection ended early, or must be made anew; what has arrived is kept."""


class PartialDownload:
    """The unfinished file `<path>.part`.

    Args:
        path: Where the whole file is to be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".part")
        self._note = path.with_name(path.name + ".part.json")

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def source(self) -> dict[str, Any]:
        """What the server said when the file was begun: `validator` and `total`, or nothing."""
        try:
            content = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def begin(self, validator: str | None, total: int | None) -> None:
        """Empties it, for a file of which the server says this."""
        with self._writing():
            self.path.write_bytes(b"")
            write_json(self._note, {"validator": validator, "total": total})

    def add(self, chunks: Iterator[bytes], progress: Callable[[int], None]) -> None:
        """Appends; whatever has arrived is on the file before the next chunk is asked for."""
        done = self.size
        progress(done)
        with open(self.path, "ab", buffering=0) as stream:
            for chunk in chunks:
                with self._writing():
                    stream.write(chunk)
                done += len(chunk)
                progress(done)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The disk's errors are told from the connection's, which would be tried again."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror or error}",
                "free some space; the same command again goes on from there",
            ) from None

    def drop(self) -> None:
        for path in (self.path, self._note):
            path.unlink(missing_ok=True)

    def finish(self, place: Path) -> None:
        """Gives the file its place."""
        self.path.replace(place)
        self._note.unlink(missing_ok=True)


def fetch(url: str, path: Path, size: int | None, progress: Progress, say: Say) -> PartialDownload:
    """Brings the file to its end, from where an earlier call left it.

    Args:
        url: http or https; redirects and the environment's proxies are followed.
        path: Where the file is to be, in the end; it stays a `Part` until the caller has checked it.
        size: Bytes it must have; None takes the server's word.
        progress: Called with (bytes there, bytes in all).
        say: Called with a line whenever a connection was cut.

    Raises:
        UserError: The server has no such file, or one of another size; nothing came in `ATTEMPTS` attempts; the
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
            if fruitless >= ATTEMPTS:
                raise UserError(
                    f"{url}: {reason}; gave up after {ATTEMPTS} attempts; {part.size} bytes are kept in {part.path}",
                    "the same command again goes on from there; --mirror URL takes another server",
                    FAILED,
                ) from None
            wait = min(2.0**fruitless, LONGEST_WAIT_S)
            say(f"{path.name}: {reason}; again in {wait:.0f} s, from byte {part.size}")
            time.sleep(wait)


def _transfer(url: str, part: PartialDownload, size: int | None, progress: Progress) -> None:
    """One connection. Returns when the file is whole."""
    known = part.source()
    start = part.size if known.get("validator") else 0
    if start and start == (size or known.get("total")):
        return  # it was whole before, but never checked
    headers = {"User-Agent": "msdet", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": known["validator"]}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        _refused(url, part, error)
    except ValueError as error:
        raise UserError(
            f"{url}: {error}", "--mirror takes a URL that begins with http:// or https://"
        ) from None
    with response:
        first, total = _extent(response)
        if size is not None and total is not None and total != size:
            raise UserError(
                f"{url}: the server offers {total} bytes, the published archive has {size}; nothing was downloaded",
                "--mirror URL takes another server",
            )
        validator = _validator(response)
        if response.status != 206:
            part.begin(
                validator, total
            )  # the server gives all of it: it knows no ranges, or the file has changed
        elif first != start or validator != known["validator"]:
            part.drop()
            raise _CutError("the server's file is another than the one begun")
        part.add(iter(lambda: response.read1(CHUNK), b""), lambda done: progress(done, total or size))
    if part.size != (total or size or part.size):
        raise _CutError("the connection was cut")


def _refused(url: str, part: PartialDownload, error: urllib.error.HTTPError) -> None:
    """Raises what an answer of 400 or above means."""
    if error.code == 416:  # no such range: the file must have become shorter
        part.drop()
    elif error.code not in (408, 425, 429) and error.code < 500:
        raise UserError(
            f"{url}: the server answers {error.code} {error.reason}",
            "--mirror URL takes another server",
            FAILED,
        ) from None
    raise _CutError(f"the server answers {error.code} {error.reason}") from None


def _extent(response: Any) -> tuple[int, int | None]:
    """First byte of what comes, and bytes of the whole file, as far as the server tells."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None:
            return -1, None
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = None
    with contextlib.suppress(TypeError, ValueError):
        length = int(response.headers.get("Content-Length"))
    return 0, length


def _validator(response: Any) -> str | None:
    """What tells this file from a later one of its name; a weak entity tag is not enough for that."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
