"""What a run resumes from: the newest valid checkpoint, and files that may have been lost since."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist

from experiments.common.errors import UserError
from experiments.runs.run_folder import RunFolder
from experiments.training.engine.checkpoints import read_checkpoint


def latest_valid_checkpoint(run: RunFolder) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that reads back whole, and a note on each damaged one before it.

    A damaged one is renamed, never deleted: it may be all that is left.
    """
    notes = []
    for path in run.saved_checkpoints():
        try:
            read_checkpoint(path)
        except UserError as error:
            aside = _set_aside(path)
            notes.append(f"{error.message}; it was set aside as {aside.name}")
            continue
        if notes:
            notes[-1] += f", {path.name} is taken instead"
        return path, notes
    if notes:
        notes[-1] += ", and no other is left: the run begins anew"
    return None, notes


def missing_outputs(run: RunFolder, iteration: int, alpha: int | None) -> list[str]:
    """Return a note on the trace and on the metrics if what they held up to `iteration` is gone.

    Args:
        run: The run folder.
        iteration: Where the run resumes.
        alpha: Iterations per interval, each of which left rows in the trace.
    """
    notes = []
    if alpha is not None and iteration >= alpha and not _has_rows(run.trace):
        notes.append(f"trace.csv was lost before iteration {iteration}: it lacks the intervals up to there")
    if run.metrics.exists() and not _has_rows(run.metrics):
        notes.append(f"metrics.csv was lost before iteration {iteration}: it lacks earlier evaluations")
    return notes


def _has_rows(path: Path) -> bool:
    """Return whether a CSV file has rows; one that is no text is set aside, so that nothing is appended to it."""
    try:
        return len(path.read_text(encoding="utf-8").splitlines()) > 1
    except FileNotFoundError:
        return False
    except ValueError:  # no text
        _set_aside(path)
        return False


def _set_aside(path: Path) -> Path:
    number = 1
    aside = path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    os.replace(path, aside)
    return aside


def from_rank_0(value: Any) -> Any:
    """Return rank 0's value on every rank. A collective."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    found = [value]
    dist.broadcast_object_list(found, src=0, group=dist.new_group(backend="gloo"))
    return found[0]
