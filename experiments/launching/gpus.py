"""The GPUs of this machine that this process may use. No torch: asking it would take a GPU's memory."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

ASK = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
PATIENCE_S = 30


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one slice of a GPU that CUDA_VISIBLE_DEVICES names (`MIG-...`)."""

    index: int  # as nvidia-smi counts
    uuid: str
    name: str


def list_visible_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, in its order; none if there is no `nvidia-smi`."""
    try:
        said = subprocess.run(ASK, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    lines = re.findall(r"^(\d+), ([^,\n]+)(?:, (.*))?$", said, re.MULTILINE)
    found = [Gpu(int(index), uuid, name.strip()) for index, uuid, name in lines]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if wanted is None else _restricted(found, wanted)


def _restricted(found: list[Gpu], wanted: str) -> list[Gpu]:
    """Return the GPUs that CUDA sees: named by indices or beginnings of UUIDs, up to the first unknown name."""
    left: list[Gpu] = []
    for word in (part.strip() for part in wanted.split(",")):
        if word.startswith("MIG-"):
            left.append(Gpu(len(left), word, "MIG"))
            continue
        fits = [gpu for gpu in found if word and (word == str(gpu.index) or gpu.uuid.startswith(word))]
        if len(fits) != 1 or fits[0] in left:
            break
        left.append(fits[0])
    return left
