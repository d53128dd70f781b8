"""Export of run folders as one archive: all that tables depend on, without weights. No torch."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from experiments.common.errors import UserError
from experiments.common.files import refusing, replacing
from experiments.runs.outputs import is_as_written
from experiments.runs.run_folder import RunFolder

SUFFIXES = (".tar.gz", ".tgz", ".zip")
MANIFEST = "manifest.json"
_EXPORTED = (".json", ".yaml", ".py", ".csv", ".txt", ".log")  # not weights, locks and files of trackers
_EPOCH = (1980, 1, 1, 0, 0, 0)  # ZIP's earliest time: the same runs make the same bytes


def write_bundle(runs: Sequence[RunFolder], out: Path, version: str) -> dict[str, Any]:
    """Write the runs' records, recipes, configs, traces, metrics, detections and logs into one archive.

    Unpacked it is a results folder of the archive's name, with the SHA-256 of every file in `manifest.json`, whose
    content is returned. The archive is read back and compared before it gets its name.

    Args:
        runs: The runs, each with a record.
        out: The archive; ends in one of SUFFIXES, which sets the format.
        version: That of msdet, for the manifest.

    Raises:
        UserError: `out` exists or cannot be written, two runs have the same name, or a record cannot be read.
    """
    suffix = next((s for s in SUFFIXES if out.name.endswith(s) and out.name != s), None)
    if suffix is None:
        raise UserError(f"-o: {out} is not allowed: the name must end in {', '.join(SUFFIXES)}")
    if out.exists():
        raise UserError(f"{out} exists already, and is not replaced", "-o FILE.tar.gz with another name")
    named = _by_name(runs)
    manifest: dict[str, Any] = {
        "msdet": version,
        "runs": {},
        "files": {},
        "links_left_out": [],
        "changed": [],
    }
    with refusing(f"{out} cannot be written", "-o FILE.tar.gz"), replacing(out, "w+b") as stream:
        members = _members(out.name.removesuffix(suffix), named, manifest)
        (_write_zip if suffix == ".zip" else _write_tar)(stream, members)
        stream.seek(0)
        check_bundle(stream, out)
    return manifest


def check_bundle(stream: IO[bytes], name: Path) -> dict[str, Any]:
    """Compare every file in an archive with its manifest, and return the manifest.

    Raises:
        UserError: A file is missing, changed, or not in the manifest.
    """
    found: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] | None = None
    reader = _read_zip if name.name.endswith(".zip") else _read_tar
    for path, content in reader(stream):
        inside = path.partition("/")[2]
        if inside == MANIFEST:
            manifest = json.loads(content)
        else:
            found[inside] = _digest_and_size(content)
    if manifest is None:
        raise UserError(f"{name} has no {MANIFEST}")
    expected = manifest["files"]
    for path in sorted({*found, *expected}):
        if found.get(path) != expected.get(path):
            raise UserError(
                f"{name}: {path} differs from the manifest", "repeat the export; check the disk and memory"
            )
    return manifest


def _digest_and_size(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _by_name(runs: Sequence[RunFolder]) -> dict[str, RunFolder]:
    named: dict[str, RunFolder] = {}
    for run in runs:
        run = RunFolder(run.path.resolve())
        other = named.setdefault(run.name, run)
        if other.path != run.path:
            raise UserError(
                f"two runs have the name {run.name}: {other.path} and {run.path}", "export one of them"
            )
    return dict(sorted(named.items()))


def _members(root: str, named: dict[str, RunFolder], manifest: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield each file's name in the archive and its content, and at last the manifest, filled meanwhile.

    A link is left out: it may lead to any file of whoever exports. A file that is not as its run wrote it is named.
    """
    for name, run in named.items():
        record = run.read()
        manifest["runs"][name] = {
            "state": run.state(record),
            "metrics": record.metrics,
            "commit": (record.git or {}).get("commit"),
            "imported": record.imported is not None,
        }
        paths = [path for path in run.path.iterdir() if path.suffix in _EXPORTED and path.name[0] != "."]
        for path in sorted([*paths, *run.detections.glob("*.json")]):
            own_name = path.relative_to(run.path).as_posix()
            member = f"runs/{name}/{own_name}"
            if path.is_symlink() or path.parent.is_symlink():
                manifest["links_left_out"].append(member)
            elif path.is_file():
                content = path.read_bytes()
                if not is_as_written(record, own_name, content):
                    manifest["changed"].append(member)
                manifest["files"][member] = _digest_and_size(content)
                yield f"{root}/{member}", content
    yield f"{root}/{MANIFEST}", (json.dumps(manifest, indent=2) + "\n").encode()


def _write_tar(stream: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    with (
        gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _write_zip(stream: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)


def _read_tar(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r:gz") as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            if content is not None:
                yield entry.name, content.read()


def _read_zip(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(stream) as archive:
        for name in archive.namelist():
            yield name, archive.read(name)
