"""Removal of runs and of old checkpoints, and what that frees. Links are never followed. No torch."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from pathlib import Path

from experiments.common.errors import UserError
from experiments.common.files import refusing, write_text
from experiments.runs.run_folder import RunFolder, acquire_lock


def measure_disk_use(path: Path) -> int:
    """Return the bytes of a file, or of all files in and below a folder; those behind links do not count."""
    try:
        if path.is_symlink():
            return 0
        if not path.is_dir():
            return path.stat().st_size
        return sum(map(measure_disk_use, path.iterdir()))
    except OSError:  # removed meanwhile, or not to be read
        return 0


def list_old_checkpoints(run: RunFolder) -> list[Path]:
    """Return the run's checkpoint files but for the last whole one; none where no checkpoint is whole."""
    kept = next((path for path in run.saved_checkpoints() if zipfile.is_zipfile(path)), None)
    if kept is None:
        return []
    files = [*run.checkpoints.glob("iter_*"), *run.checkpoints.glob(".iter_*")]
    return sorted(path for path in files if not path.name.startswith(kept.name))


def remove_run(run: RunFolder) -> None:
    """Remove a run's folder, and those of its hash and recipe where they are left empty.

    The folder is renamed first: a run that is removed by half is none.

    Raises:
        InUseError: Another process has locked the run.
        UserError: The run, or a folder above it, is a link, or cannot be removed.
    """
    path = run.path.absolute()
    above = path.parents[:2] if path.parent.parent.parent.name == "runs" else ()  # of its hash and recipe
    for folder in (path, *above):
        if folder.is_symlink():
            raise UserError(f"{folder} is a link: runs behind links are not removed", f"rm {folder}")
    doomed = path.with_name(f".{path.name}.removed")
    with _removing(run), acquire_lock(run, patience_s=0):
        if doomed.exists():  # by a command that was killed
            shutil.rmtree(doomed)
        path.rename(doomed)
        shutil.rmtree(doomed)
    with contextlib.suppress(OSError):
        for folder in above:
            folder.rmdir()


def remove_old_checkpoints(run: RunFolder) -> None:
    """Remove the run's checkpoints but the last whole one; raise as `remove_run` where that is impossible."""
    with _removing(run), acquire_lock(run, patience_s=0):
        removed = list_old_checkpoints(run)
        for path in removed:
            path.unlink(missing_ok=True)
        if run.digests.is_file():
            lines = run.digests.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            names = {path.name for path in removed}
            write_text(run.digests, "".join(x for x in lines if x.strip().rpartition("/")[2] not in names))


def _removing(run: RunFolder) -> contextlib.AbstractContextManager[None]:
    return refusing(f"{run.path} cannot be removed", "remove it as the user who trained it")
