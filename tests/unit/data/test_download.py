"""`msdet data download` against a local server that misbehaves, with small archives in the official layout."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.common.errors import INTERRUPTED, UserError
from experiments.data.download import archives, fetch, unpack
from experiments.data.download import official_sets as downloading
from experiments.data.download.archives import ARCHIVES, Archive
from experiments.data.find import find_dataset
from experiments.recipes.catalogue import load_dataset
from msdet_cli.commands.data import app
from tests.children import search_path
from tests.unit.data.test_voc_devkit import devkit


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by name. What it does wrong is set by the test; `asked` notes (path, Range, first byte sent)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut_after: list[int] = []  # bytes of the next answers, then the connection is closed
        self.knows_ranges = self.checks_if_range = True
        self.codes: list[int] = []  # of the next answers, in place of the file
        self.validators = ("ETag",)
        self.pause_s = 0.0  # between pieces
        self.asked: list[tuple[str, str | None, int]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/here"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, name = self.server, self.path.rpartition("/")[2]
        if server.codes or name not in server.files:
            server.asked.append((self.path, self.headers.get("Range"), -1))
            self.send_error(server.codes.pop(0) if server.codes else 404)
            return
        body = server.files[name]
        tag = {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "Last-Modified": "Mon, 01 Jan 2018 00:00:00 GMT"}
        wanted, first = self.headers.get("Range"), 0
        same = not server.checks_if_range or self.headers.get("If-Range") in (None, *tag.values())
        if wanted and server.knows_ranges and same:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
        server.asked.append((self.path, wanted, first))
        self.send_response(206 if first else 200)
        for key in server.validators:
            self.send_header(key, tag[key])
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        end = first + server.cut_after.pop(0) if server.cut_after else len(body)
        for start in range(first, min(end, len(body)), 5000):
            self.wfile.write(body[start : min(start + 5000, end)])
            time.sleep(server.pause_s)
        if end < len(body):
            self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # of a client that was stopped
            super().handle()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Watcher:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.phases: list[tuple[str, str]] = []

    def at(self, phase: str, name: str, done: int, total: int | None) -> None:
        if (phase, name) not in self.phases:
            self.phases.append((phase, name))

    def say(self, line: str) -> None:
        self.lines.append(line)


def packed(files: dict[str, bytes], name: str) -> bytes:
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as bundle:
            for place, content in files.items():
                bundle.writestr(zipfile.ZipInfo(place), content)  # of no particular time
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for place, content in files.items():
                entry = tarfile.TarInfo(place)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def described(body: bytes, name: str, **more: Any) -> Archive:
    md5 = hashlib.md5(body).hexdigest()
    return Archive(f"http://nowhere.invalid/{name}", len(body), len(body), md5, "the test", **more)


NOISE = np.random.default_rng(0).integers(0, 256, 60_000, dtype=np.uint8).tobytes()


@pytest.fixture
def one(server: Server) -> Archive:
    """`part.zip`, which brings `images/` with two files."""
    body = packed({"images/a.bin": NOISE, "images/b.bin": b"b"}, "part.zip")
    server.files["part.zip"] = body
    return described(body, "part.zip", folders={"images": 2})


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited between attempts, in seconds."""
    waited: list[float] = []
    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=waited.append))
    return waited


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def bring(archive: Archive, root: Path, server: Server, **options: Any) -> Watcher:
    watcher = Watcher()
    downloading.download([archive], root, watcher, server.url, **options)
    return watcher


def fails(archive: Archive, root: Path, server: Server, **options: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        bring(archive, root, server, **options)
    assert caught.value.hint
    return caught.value


GOOD = {"images/a.bin": NOISE, "images/b.bin": b"b"}


def test_a_cut_connection_is_taken_up_where_it_ended(one, server, tmp_path, naps):
    server.cut_after = [20_000, 15_000, 0]
    watcher = bring(one, tmp_path / "set", server)
    assert contents(tmp_path / "set") == GOOD
    assert [(wanted, first) for _, wanted, first in server.asked] == [
        (None, 0), ("bytes=20000-", 20_000), ("bytes=35000-", 35_000), ("bytes=35000-", 35_000)
    ]  # fmt: skip
    assert naps == [1.0, 1.0, 2.0]  # longer only where nothing came
    assert len(watcher.lines) == 3 and "from byte 20000" in watcher.lines[0]
    assert [phase for phase, _ in watcher.phases] == ["downloading", "checking", "unpacking"]


def test_a_later_command_takes_up_what_an_earlier_one_left(one, server, tmp_path, naps):
    server.cut_after, real = [20_000], server.files

    def gone(seconds: float) -> None:
        server.files = {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "time", SimpleNamespace(sleep=gone))
        error = fails(one, tmp_path / "set", server)
    assert "404" in error.message and error.exit_code == 1
    server.files = real
    bring(one, tmp_path / "set", server)
    assert server.asked[-1][1:] == ("bytes=20000-", 20_000)
    assert contents(tmp_path / "set") == GOOD


@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",), ()])
def test_a_server_without_ranges_or_without_a_name_for_the_file_starts_over(
    one, server, tmp_path, naps, validators
):
    server.knows_ranges, server.validators, server.cut_after = False, validators, [20_000]
    bring(one, tmp_path / "set", server)
    assert contents(tmp_path / "set") == GOOD
    assert server.asked[-1][1] == (
        "bytes=20000-" if validators else None
    )  # never asked for what cannot be checked


@pytest.mark.parametrize("honest", [True, False], ids=["If-Range heeded", "If-Range ignored"])
def test_a_file_that_changed_between_attempts_is_never_spliced(one, server, tmp_path, naps, honest):
    good = server.files["part.zip"]
    server.files["part.zip"] = bytes(len(good))
    server.checks_if_range, server.cut_after = honest, [20_000]

    with pytest.MonkeyPatch.context() as patch:

        def changes(seconds: float) -> None:
            server.files["part.zip"] = good

        patch.setattr(fetch, "time", SimpleNamespace(sleep=changes))
        bring(one, tmp_path / "set", server)
    assert contents(tmp_path / "set") == GOOD
    assert server.asked[-1][2] == 0  # the whole of the new file came


def test_errors_of_the_server_are_waited_for_but_not_for_ever(one, server, tmp_path, naps):
    server.codes = [503, 429]
    bring(one, tmp_path / "set", server)
    assert naps == [2.0, 4.0]
    server.codes = [500] * 50
    error = fails(one, tmp_path / "other", server)
    assert "6 attempts failed" in error.message and error.exit_code == 1
    assert not (tmp_path / "other").exists()  # nothing came, nothing is left


def test_a_mirror_is_a_url(one, tmp_path):
    for mirror in ("elsewhere", "file:///etc"):
        with pytest.raises(UserError, match="is no URL"):
            downloading.download([one], tmp_path / "set", Watcher(), mirror)


def test_no_server_at_all(one, tmp_path, naps):
    with pytest.raises(UserError, match="attempts failed") as caught:
        downloading.download([one], tmp_path / "set", Watcher(), "http://127.0.0.1:9/")
    assert "refused" in caught.value.message


@pytest.mark.parametrize("where", ["middle", "end"])
def test_a_corrupted_file_is_named_and_set_aside(one, server, tmp_path, where):
    body = bytearray(server.files["part.zip"])
    body[len(body) // 2 if where == "middle" else -1] ^= 1
    server.files["part.zip"] = bytes(body)
    root = tmp_path / "set"
    error = fails(one, root, server)
    assert error.exit_code == 2 and "part.zip" in error.message and one.md5 in error.message
    assert contents(root) == {"archives/part.zip.damaged": bytes(body), "archives/.lock": b""}
    server.files["part.zip"] = packed(GOOD, "part.zip")  # same files, so same bytes
    bring(one, root, server)
    assert contents(root / "images") == {"a.bin": NOISE, "b.bin": b"b"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_checked_by_its_own_checksums_too(server, tmp_path, kind):
    name = f"part.{kind}"
    body = packed(GOOD, name)
    damaged = bytearray(body)
    if kind == "zip":
        damaged[len(NOISE) // 2] ^= 1  # in a member: its CRC tells
    else:
        damaged[:60_000] = damaged[:60_000].replace(
            b"images/a.bin", b"images/c.bin"
        )  # its header's sum tells
    server.files[name] = bytes(damaged)
    error = fails(described(bytes(damaged), name, folders={"images": 2}), tmp_path / "bad", server)
    assert error.exit_code == 2 and name in error.message
    assert set(contents(tmp_path / "bad")) == {f"archives/{name}.damaged", "archives/.lock"}
    server.files[name] = body
    archive = described(body, name, folders={"images": 2})
    (checks,) = downloading.download([archive], tmp_path / "good", Watcher(), server.url)
    assert contents(tmp_path / "good") == GOOD
    assert "MD5 as published by the test" in checks and "size" in checks


def test_a_file_of_another_size_is_not_even_begun(one, server, tmp_path):
    server.files["part.zip"] += b"more"
    error = fails(one, tmp_path / "set", server)
    assert f"offers {one.size + 4} bytes" in error.message and str(one.size) in error.message
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "member", ["../out.txt", "/out.txt", "images/../../out.txt", "..\\out.txt", "C:out.txt"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_cannot_write_outside(server, tmp_path, member, kind):
    body = packed({"images/a.bin": b"a", member: b"evil"}, f"part.{kind}")
    server.files[f"part.{kind}"] = body
    with pytest.raises(UserError, match="does not belong") as caught:
        bring(described(body, f"part.{kind}", folders={"images": 2}), tmp_path / "in" / "set", server)
    assert "nothing was unpacked" in caught.value.message
    assert not list(tmp_path.rglob("out.txt")) and not list(tmp_path.rglob("a.bin"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(server, tmp_path, kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("images/a.bin")
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry)
    server.files["part.tar"] = buffer.getvalue()
    with pytest.raises(UserError, match="no plain file"):
        bring(described(buffer.getvalue(), "part.tar", folders={"images": 1}), tmp_path / "set", server)
    assert not list(tmp_path.rglob("a.bin"))


def test_what_is_there_stays_and_only_what_lacks_is_added(one, server, tmp_path):
    mine = tmp_path / "set" / "images" / "b.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"X")  # of the right size, so taken for the same
    (mine.parent / "notes.txt").write_text("mine")
    before = mine.stat()
    archive = described(server.files["part.zip"], "part.zip", files=("images/a.bin",), folders={"images": 2})
    bring(archive, tmp_path / "set", server)
    assert contents(tmp_path / "set") == {**GOOD, "images/b.bin": b"X", "images/notes.txt": b"mine"}
    assert mine.stat().st_mtime_ns == before.st_mtime_ns and mine.stat().st_ino == before.st_ino
    asked = len(server.asked)
    assert downloading.download([archive], tmp_path / "set", Watcher(), server.url) == [""]
    assert len(server.asked) == asked  # complete: not even looked at


def test_a_file_there_that_differs_is_named(one, server, tmp_path):
    mine = tmp_path / "set" / "images" / "b.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"cut short, or somebody's own")
    assert str(mine) in fails(one, tmp_path / "set", server).message
    assert mine.read_bytes() == b"cut short, or somebody's own"


def test_too_little_space_is_said_before_anything_is_fetched(one, server, tmp_path, monkeypatch):
    needed = one.size + int(one.unpacked * downloading.SPACE_MARGIN)
    for free in (needed - 1, needed):
        usage = shutil._ntuple_diskusage(10**9, 0, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        if free < needed:
            assert "are free; nothing was downloaded" in fails(one, tmp_path / "set", server).message
            assert server.asked == [] and not (tmp_path / "set").exists()
    bring(one, tmp_path / "set", server)


def test_a_disk_that_fills_up_interrupts(one, server, tmp_path, monkeypatch):
    def fail(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    error = fails(one, tmp_path / "set", server)
    assert "part.zip.part cannot be written: No space left" in error.message
    assert error.exit_code == INTERRUPTED


@pytest.mark.parametrize("fails_at", ["part.zip.part", "unpacking-part.zip"])
def test_a_disk_that_fills_up_later_interrupts_too(fails_at, one, server, tmp_path, monkeypatch):
    """Opening fails as on a disk that filled up since: of the archive, and of a file that is unpacked from it."""
    real = open

    def fail(path: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        if fails_at in str(path) and mode != "r" and "r" not in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *given, **named)

    for module in (fetch, unpack):
        monkeypatch.setattr(module, "open", fail, raising=False)
    error = fails(one, tmp_path / "set", server)
    assert "cannot be written: No space left" in error.message and "free some space" in error.hint
    assert error.exit_code == INTERRUPTED
    assert not list((tmp_path / "set").glob(".unpacking*"))


def test_space_is_counted_one_archive_after_another(tmp_path, monkeypatch):
    gigabyte = 10**9
    todo = [Archive(f"http://x/{i}.zip", size * gigabyte, size * gigabyte, "", "", folders={str(i): 1})
            for i, size in enumerate((1, 10))]  # fmt: skip
    usage = shutil._ntuple_diskusage(0, 0, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    for keep, expected in ((False, 1.05 + 10 + 10.5), (True, 1 + 1.05 + 10 + 10.5)):
        with pytest.raises(UserError, match=f"{expected:.1f} GB are needed"):
            downloading.download(todo, tmp_path / "set", Watcher(), keep=keep)
    half = tmp_path / "set" / "archives" / "1.zip.part"
    half.parent.mkdir(parents=True)
    with open(half, "wb") as stream:
        stream.truncate(4 * gigabyte)  # sparse
    with pytest.raises(UserError, match=r"17\.6 GB are needed"):  # 1.05 + 6 + 10.5 rounded
        downloading.download(todo, tmp_path / "set", Watcher())


def test_archives_are_kept_when_asked_and_used_when_there(one, server, tmp_path):
    bring(one, tmp_path / "set", server, keep=True)
    kept = tmp_path / "set" / "archives" / "part.zip"
    assert kept.read_bytes() == server.files["part.zip"]
    shutil.rmtree(tmp_path / "set" / "images")
    asked = len(server.asked)
    bring(one, tmp_path / "set", server)
    assert contents(tmp_path / "set") == GOOD and len(server.asked) == asked


def test_two_commands_do_not_write_the_same_file(one, server, tmp_path):
    server.pause_s = 0.05
    thread = threading.Thread(target=bring, args=(one, tmp_path / "set", server))
    thread.start()
    while not server.asked:
        time.sleep(0.01)
    assert "another command is downloading" in fails(one, tmp_path / "set", server).message
    thread.join()
    assert contents(tmp_path / "set") == GOOD


def official(root: Path, server: Server) -> dict[str, tuple[Archive, ...]]:
    """Small archives with the official names, members and folders. COCO has 2 + 1 images, VOC the devkit's 3 + 1."""
    inside: dict[str, dict[str, bytes]] = {
        archive.name: {} for listed in ARCHIVES.values() for archive in listed
    }
    for split, count in (("train2017", 2), ("val2017", 1)):
        image = cv2.imencode(".jpg", np.full((48, 64, 3), 99, np.uint8))[1].tobytes()
        names = [f"{number:012d}.jpg" for number in range(1, count + 1)]
        inside[f"{split}.zip"] = {f"{split}/{name}": image for name in names}
        content = {
            "images": [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(names, 1)],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20], "area": 200}],
            "categories": [{"id": 1, "name": "person"}],
        }
        annotations = inside["annotations_trainval2017.zip"]
        annotations[f"annotations/instances_{split}.json"] = json.dumps(content).encode()
        annotations[f"annotations/captions_{split}.json"] = b"{}"
    devkit(root / "VOCdevkit", load_dataset("voc").classes)
    for path, data in contents(root).items():
        is_test = "/000001" in path or path.endswith("/test.txt")
        name = "VOCtest_06-Nov-2007.tar" if is_test else "VOCtrainval_06-Nov-2007.tar"
        inside["VOCtrainval_11-May-2012.tar" if "VOC2012" in path else name][path] = data
    server.files = {name: packed(files, name) for name, files in inside.items()}
    return {
        name: tuple(smaller(archive, inside, server) for archive in listed)
        for name, listed in ARCHIVES.items()
    }


def smaller(archive: Archive, inside: dict[str, dict[str, bytes]], server: Server) -> Archive:
    body = server.files[archive.name]
    folders = {folder: len(inside[archive.name]) for folder in archive.folders}
    md5 = hashlib.md5(body).hexdigest()
    return replace(archive, size=len(body), unpacked=len(body), md5=md5, folders=folders)


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_the_command_brings_the_official_layout(name, server, tmp_path, monkeypatch, naps):
    made = official(tmp_path / "source", server)
    monkeypatch.setattr(archives, "ARCHIVES", made)
    monkeypatch.chdir(tmp_path)
    server.cut_after = [300]
    result = CliRunner().invoke(app, ["download", name, "--mirror", server.url])
    assert result.exit_code == 0, (result.output, result.exception)
    publisher = {"coco": "PaddleDetection", "voc": "torchvision"}[name]
    for archive in made[name]:
        assert f"{archive.name}: checked (MD5 as published by {publisher}" in result.output
    assert (
        f"next: msdet run {'retinanet-r50-rlo' if name == 'coco' else 'retinanet-r50-voc-rlo'}\n"
        in result.output
    )
    place = tmp_path / ("data/coco" if name == "coco" else "data/VOCdevkit")
    if name == "coco":
        assert sorted(p.name for p in place.iterdir()) == ["annotations", "train2017", "val2017"]
        assert len(list((place / "train2017").iterdir())) == 2
    else:
        assert contents(place) == contents(tmp_path / "source" / "VOCdevkit")
    before = contents(place)
    again = CliRunner().invoke(app, ["download", name, "--mirror", "http://127.0.0.1:9"])  # nobody is there
    assert again.exit_code == 0 and again.output.count("already unpacked") == 3
    assert contents(place) == before
    assert CliRunner().invoke(app, ["verify", name]).exit_code == 0


def test_the_command_says_what_is_wrong(server, tmp_path, monkeypatch):
    result = CliRunner().invoke(app, ["download", "cocoo"])
    assert "did you mean 'coco'?" in result.exception.message
    made = official(tmp_path / "source", server)
    monkeypatch.setattr(archives, "ARCHIVES", made)
    server.files["val2017.zip"] = bytes(len(server.files["val2017.zip"]))
    root = tmp_path / "coco"
    result = CliRunner().invoke(app, ["download", "coco", "--root", str(root), "--mirror", server.url])
    assert result.exception.exit_code == 2 and "val2017.zip" in result.exception.message
    assert sorted(p.name for p in root.iterdir()) == ["annotations", "archives"]


def test_the_official_list_holds_together():
    for name, listed in ARCHIVES.items():
        spec = load_dataset(name)
        needed = {part.annotations for parts in spec.splits.values() for part in parts}
        assert needed == {f for a in listed for f in (*a.files, *a.image_lists)}
        if name == "coco":
            folders = {part.images for parts in spec.splits.values() for part in parts}
            assert folders == {folder for archive in listed for folder in archive.folders}
        for archive in listed:
            assert len(bytes.fromhex(archive.md5)) == 16 and archive.publisher
            assert archive.name.endswith(".zip") or archive.size % 512 == 0  # of which a tar consists


def test_ctrl_c_leaves_what_has_arrived(one, server, tmp_path):
    server.pause_s = 0.2
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.data.download_small_coco", str(one.size), one.md5, server.url],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": search_path()},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    part = tmp_path / "set" / "archives" / "part.zip.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 5000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors
    assert f"try: msdet data download coco --root set --mirror {server.url}" in errors
    assert "Traceback" not in errors
    left = part.stat().st_size
    assert 0 < left < one.size and part.read_bytes() == server.files["part.zip"][:left]
    server.pause_s = 0.0
    bring(one, tmp_path / "set", server)
    assert server.asked[-1][1:] == (f"bytes={left}-", left)
    assert contents(tmp_path / "set") == GOOD


def test_who_lacks_the_data_is_told_of_the_command(tmp_path):
    with pytest.raises(UserError) as caught:
        find_dataset(load_dataset("coco"), tmp_path / "coco")
    assert caught.value.hint.startswith("msdet data download coco, or --data-root PATH")
