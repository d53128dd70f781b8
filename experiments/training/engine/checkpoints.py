"""Checkpoints: their digests, checked before they are trusted; read without running code."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from experiments.common.errors import UserError
from experiments.common.files import hash_file, replacing, set_aside, write_text
from experiments.runs.run_folder import RunFolder, parse_iteration
from experiments.training.outcome import is_out_of_memory

_RESUMED = ("meta", "state_dict", "optimizer")  # what every checkpoint of a training holds
# MMEngine keeps its log of losses in the checkpoint as objects, and those keep functions and arrays. What these names
# stand for is not made: an empty thing takes each one's place.
_IGNORED = (
    "mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr", "numpy.dtype", "numpy.ndarray",
    "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar",
)  # fmt: skip


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, on the CPU.

    The digest of a run's checkpoint is compared first. A file without one has checksums inside.

    Raises:
        UserError: The file is missing, cut short, changed, or holds more than weights and plain values.
        PermissionError, MemoryError, RuntimeError: It cannot be read here and now; it may be whole.
    """
    try:
        digest = _digests(RunFolder(path.parent.parent)).get(path.name)
        if digest is not None:
            if hash_file(path) != digest:
                raise ValueError("its SHA-256 is not the one that was saved")
        elif zipfile.is_zipfile(path):  # torch does not compare the checksums that it writes
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"{broken} does not match its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch's text advises to switch the check off
        reason = f"it names {named[1]}, which is not run" if named else "it is cut short, or another format"
        raise UserError(f"{path} is no checkpoint of weights and plain values: {reason}") from None
    except Exception as error:  # bytes that are no checkpoint break the unpickler in any way
        if is_out_of_memory(error) or isinstance(error, PermissionError):
            raise
        reason = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
        raise UserError(f"{path} cannot be read, it may be cut short or damaged: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}, not named weights")
    return content


def write_digest(run: RunFolder, name: str, written: Path, keep: int) -> None:
    """Add a checkpoint's digest to those of the run, before the file gets its name.

    `sha256sum -c checkpoints.sha256` checks them by hand.

    Args:
        written: The checkpoint `name`, whole, under another name yet.
        keep: Number of checkpoints that stay.
    """
    known = _digests(run)
    kept = [path.name for path in run.saved_checkpoints()[: keep - 1]]
    digests = {**{old: known[old] for old in kept if old in known}, name: hash_file(written)}
    lines = [f"{digest}  {run.checkpoints.name}/{saved}\n" for saved, digest in digests.items()]
    write_text(run.digests, "".join(lines))


def _digests(run: RunFolder) -> dict[str, str]:
    """Return the saved digests by name of file; none where they are lost, or were never written."""
    try:
        text = run.digests.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    pairs = re.findall(rf"^([0-9a-f]{{64}})  {run.checkpoints.name}/(\S+)$", text, re.MULTILINE)
    return {name: digest for digest, name in pairs}


def find_latest_checkpoint(run: RunFolder) -> tuple[Path | None, int, list[str]]:
    """Return the newest checkpoint that the run can resume, its epochs, and a note on each other one before it.

    What cannot be resumed is renamed, never deleted: it may be all that is left.
    """
    notes, saved = [], run.saved_checkpoints()
    for path in sorted(set(run.checkpoints.glob("iter_*.pth")) - set(saved)):
        notes.append(f"{path} is not named as a checkpoint; it was set aside as {set_aside(path).name}")
    damaged: list[str] = []
    found, epochs = None, 0
    for path in saved:
        try:
            found, epochs = path, _epochs_of(run, path)
            break
        except UserError as error:
            damaged.append(f"{error.message}; it was set aside as {set_aside(path).name}")
    if damaged:
        rest = f"{found.name} is taken instead" if found else "and no other is left: the run begins anew"
        damaged[-1] += f", {rest}"
    return found, epochs, notes + damaged


def _epochs_of(run: RunFolder, path: Path) -> int:
    """Return the number of whole epochs before a checkpoint.

    Raises:
        UserError: It is damaged, of another run or another iteration, or holds weights only.
    """
    content = read_checkpoint(path)
    missing = [key for key in _RESUMED if not isinstance(content.get(key), dict)]
    if missing:
        raise UserError(f"{path} cannot be resumed: it has no {missing[0]}")
    meta = content["meta"]
    if meta.get("iter") != parse_iteration(path) or not isinstance(meta.get("epoch"), int):
        raise UserError(f"{path} cannot be resumed: it is of iteration {meta.get('iter')}")
    trained_in = re.search(r"^work_dir = (['\"])(.*)\1$", str(meta.get("cfg")), re.MULTILINE)
    # a results folder may have moved, but hash and seed name the run
    if trained_in is not None and Path(trained_in[2]).parts[-2:] != run.path.resolve().parts[-2:]:
        raise UserError(f"{path} is of another run: {trained_in[2]}")
    return meta["epoch"]


class _Nothing:
    """An empty object in the place of any other."""

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def copy_weights(source: Path, target: Path) -> None:
    """Write the model's state dict of `source` as a checkpoint that `weights_only` loading takes.

    Raises:
        UserError: The file is damaged, holds no state dict, or names yet other objects.
    """
    allowed_before = torch.serialization.get_safe_globals()
    split = (name.rpartition(".") for name in _IGNORED)
    stand_ins: list[Any] = [type(last, (_Nothing,), {"__module__": module}) for module, _, last in split]
    torch.serialization.add_safe_globals(stand_ins)
    try:
        content = read_checkpoint(source)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed_before)
    weights = content.get("state_dict", content)
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{source} holds no state dict of a model")
    with replacing(target, "wb") as stream:
        torch.save({"state_dict": weights}, stream)
