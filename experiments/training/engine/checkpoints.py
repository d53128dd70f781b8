"""Reading checkpoints: checked before they are trusted, and without running code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from experiments.common.errors import UserError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, on the CPU.

    Raises:
        UserError: The file is missing, cut short, changed, or holds more than weights and plain values.
    """
    try:
        if zipfile.is_zipfile(path):  # torch does not compare the checksums that it writes
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"{broken} does not match its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is no checkpoint of weights and plain values: {reason}") from None
    except Exception as error:  # bytes that are no checkpoint break the unpickler in any way
        reason = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
        raise UserError(f"{path} cannot be read, it may be cut short or damaged: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}, not named weights")
    return content
