"""Where a number came from: code, packages, devices."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.common.files import hash_file
from experiments.recipes.schema import Recipe
from experiments.runs.record import Record

PACKAGES = (
    "msdet", "torch", "torchvision", "onedl-mmdetection", "onedl-mmengine", "onedl-mmcv",
    "mmdet", "mmengine", "mmcv", "faster-coco-eval", "pycocotools", "numpy", "opencv-python",
    "opencv-python-headless",
)  # fmt: skip
CODE = ("msdet_cli", "experiments", "recipes", "benchmarks")
SLOW_OPERATORS = (
    "NMS and RoIAlign run on GPUs in plain PyTorch, slower: pip install 'msdet[gpu]' brings torchvision"
)
MAX_PATCH_CHARACTERS = 100_000  # characters: a record is read whole by every list of runs


def describe(recipe: Recipe | None = None) -> dict[str, Any]:
    """Return versions, devices and host of this process. Imports torch.

    Args:
        recipe: What is run; a digest of each user's own module that it names is included.
    """
    import torch

    from experiments.detection import operators

    cuda = torch.cuda.is_available()
    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "packages": packages,
        "operators": operators.find_backend("cuda" if cuda else "cpu"),
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "driver": _driver_version() if cuda else None,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # AVX2 and AVX512 round differently
        "cpu_threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "source": hash_source(Path(__file__).resolve().parents[1]),
        "own_modules": hash_own_modules(recipe) if recipe else {},
    }


def has_fast_operators() -> bool:
    """Return whether torchvision or a compiled mmcv is installed; imports neither."""
    mmcv = importlib.util.find_spec("mmcv")
    folders = (mmcv and mmcv.submodule_search_locations) or ()
    is_compiled = any(any(Path(folder).glob("_ext*.so")) for folder in folders)
    return is_compiled or importlib.util.find_spec("torchvision") is not None


def _driver_version() -> str | None:
    """Return the NVIDIA driver's version, from `nvidia-smi`."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return done[0] if done else None


def _cpu_name() -> str:
    """Return the processor's name, or its kind where the system tells no more."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hash_source(package: Path) -> str:
    """Return 16 hexadecimal digits of all Python files of a package: equal where two commits compute the same.

    It also identifies the code of an installed copy, which has no commit.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def hash_own_modules(recipe: Recipe) -> dict[str, str | None]:
    """Return the SHA-256 of the user's modules, under `imports` or as a rule; None where there is no file."""
    module, colon, _ = str(recipe.weighting.get("rule", "")).partition(":")
    found: dict[str, str | None] = {}
    for name in sorted({*recipe.imports, *([module] if colon else [])}):
        try:
            spec = importlib.util.find_spec(name)
            found[name] = hash_file(Path(spec.origin)) if spec and spec.origin else None
        except (ImportError, ValueError, OSError):  # its use reports what is wrong with it
            found[name] = None
    return found


def read_git_state(root: Path | None = None) -> dict[str, Any] | None:
    """Return commit and uncommitted changes of the checkout that this code runs from; None outside one.

    Returns:
        `commit`; `dirty`, whether a file of the code folders differs from it; `patch`, those differences, small new
        files too, as `git apply` takes them, or None where there are none or they are longer than MAX_PATCH_CHARACTERS;
        `patch_sha256` and `patch_characters` of the whole; `untracked`, all new files and their bytes.
    """
    root = root or Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed: a checkout around the environment is not ours
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        names = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
        untracked = {name: (root / name).lstat().st_size for name in sorted(filter(None, names.split("\0")))}
        patch = _git(root, "diff", "HEAD", "--", *CODE)
        small = [name for name, size in untracked.items() if size <= MAX_PATCH_CHARACTERS]
        patch += "".join(_git(root, "diff", "--no-index", "--", os.devnull, name) for name in small)
    except (OSError, subprocess.SubprocessError):
        return None
    state: dict[str, Any] = {"commit": commit, "dirty": bool(patch or untracked), "patch": None}
    if patch:
        state["patch"] = patch if len(patch) <= MAX_PATCH_CHARACTERS else None
        state["patch_sha256"] = hashlib.sha256(patch.encode()).hexdigest()
        state["patch_characters"] = len(patch)
    if untracked:
        state["untracked"] = untracked
    return state


def _git(root: Path, verb: str, *arguments: str) -> str:
    """Return what git says of the repository at `root`, whatever others it is called in, without its programs."""
    options = ["--no-color", "--no-ext-diff", "--no-textconv", "--binary"] if verb == "diff" else []
    fixed = ["core.quotepath=off", "core.fsmonitor=false", f"core.hooksPath={os.devnull}"]
    settings = [*fixed, *(_filters_off(root) if verb == "diff" else [])]
    done = _run_git(root, *(word for text in settings for word in ("-c", text)), verb, *options, *arguments)
    if done.returncode > ("--no-index" in arguments):  # which ends with 1 where it finds a difference
        done.check_returncode()
    return done.stdout


def _filters_off(root: Path) -> list[str]:
    """Return settings under which none of the repository's clean filters is run."""
    found = _run_git(root, "config", "-z", "--name-only", "--get-regexp", r"^filter\.").stdout
    names = [name for name in found.split("\0") if name]
    if any("=" in name for name in names):
        raise subprocess.SubprocessError("a filter that cannot be switched off")
    return [f"{name}={'false' if name.endswith('.required') else ''}" for name in names]


def _run_git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(root), *words],
        env={key: value for key, value in os.environ.items() if not key.startswith("GIT_")},  # set in a hook
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=30,
    )


def set_origin(record: Record, environment: dict[str, Any], git: dict[str, Any] | None) -> None:
    """Record what the newest attempt runs on; keep another origin of earlier attempts beside it."""
    before = {"environment": record.environment, "git": record.git}
    if record.environment and before != {"environment": environment, "git": git}:
        record.earlier.append({"attempts": len(record.attempts) - 1, **before})
    record.environment, record.git = environment, git
