"""Where a number came from: code, packages, devices."""

from __future__ import annotations

import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "msdet", "torch", "torchvision", "onedl-mmdetection", "onedl-mmengine", "onedl-mmcv",
    "mmdet", "mmengine", "mmcv", "faster-coco-eval", "pycocotools", "numpy", "opencv-python",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """Versions, devices and host of this process. Imports torch."""
    import torch

    from experiments.detection import operators

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "packages": versions(),
        "operators": operators.backend(),
        "cuda": torch.version.cuda if cuda else None,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "cpu_threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
    }


def git_state() -> dict[str, Any] | None:
    """Commit, dirty flag and patch of the checkout that this code runs from; None outside one."""
    folder = Path(__file__).resolve().parent
    root = folder.parent.parent
    if not (root / ".git").exists():  # installed: a checkout around the environment is not ours
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        patch = git("diff", "HEAD")
        status = git("status", "--porcelain", "--", "msdet_cli", "experiments", "recipes", "benchmarks")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(status.strip()), "patch": patch or None}
