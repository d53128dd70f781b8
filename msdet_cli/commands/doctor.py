"""`msdet doctor`: check the installation, and say how to fix what is missing."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Literal, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from experiments.common.errors import BAD_INPUT, UserError
from msdet_cli.console.output import print_json
from msdet_cli.options import JsonOpt

Level = Literal["ok", "note", "problem"]
COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


class Finding(NamedTuple):
    """One check's result; `advice` says what to do about it."""

    what: str
    level: Level
    found: str
    advice: str = ""


def doctor(as_json: JsonOpt = False) -> None:
    """Check this installation: packages, operators, GPUs, data.

    The exit code is 2 if msdet cannot train.

    \b
    msdet doctor
    msdet doctor --json
    """
    findings = [finding for check in CHECKS for finding in check()]
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        console = Console(highlight=False)
        width = max(len(finding.what) for finding in findings)
        for what, level, found, advice in findings:  # lines, not a table: a file's name is never cut
            console.print(Text.assemble(f"{what:<{width}}  ", (found, COLOURS[level])), soft_wrap=True)
            if advice:
                console.print(Text(f"{'':<{width}}  try: {advice}"), soft_wrap=True)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(BAD_INPUT)


def _require(what: str, is_good: bool, found: str, advice: str) -> Finding:
    return Finding(what, "ok", found) if is_good else Finding(what, "problem", found, advice)


def _python() -> Iterator[Finding]:
    is_new = sys.version_info >= (3, 10)
    yield _require("Python", is_new, platform.python_version(), "use 3.10 or newer")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "problem", str(error), "pip install 'torch>=2.4'")
        return
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    yield _require("torch", version >= (2, 4), torch.__version__, "pip install -U 'torch>=2.4'")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            yield Finding(f"GPU {index}", "ok", found)
    else:
        advice = "-p tiny, which a CPU can train; for GPUs install a CUDA build of torch (pytorch.org)"
        yield Finding("GPU", "note", "none", advice)


def _mmdetection() -> Iterator[Finding]:
    """Check that the maintained forks are installed and upstream's packages are not."""
    forks = {"onedl-mmengine": "mmengine", "onedl-mmcv": "mmcv", "onedl-mmdetection": "mmdet"}
    for fork, upstream in forks.items():
        found, other = _version(fork), _version(upstream)
        if found is None:
            yield Finding(fork, "problem", "missing", f"pip install {fork}")
        elif other is not None:
            advice = (
                f"both write the folder {upstream}/: pip uninstall -y {upstream} {fork} && pip install {fork}"
            )
            yield Finding(fork, "problem", f"{found}, and upstream {upstream} {other} overwrites it", advice)
        else:
            yield Finding(fork, "ok", found)


def _operators() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("mmcv") is None:
        return
    try:
        from experiments.detection import operators
    except Exception as error:  # any reason why MMDetection cannot be imported is a finding
        yield Finding("MMDetection", "problem", f"{type(error).__name__}: {error}", "see the lines above")
        return
    yield Finding("MMDetection", "ok", "imports")
    import torch

    on_gpu = torch.cuda.is_available()
    backend = operators.find_backend("cuda" if on_gpu else "cpu")
    is_slow = backend == "pytorch"
    found = f"{backend} on a GPU: same results, slower" if is_slow and on_gpu else backend
    advice = "pip install 'msdet[gpu]' brings the torchvision that fits torch" if is_slow else ""
    yield Finding("operators", "note" if is_slow else "ok", found, advice)


def _data() -> Iterator[Finding]:
    from experiments.data.find import check_place, resolve_root
    from experiments.recipes import catalogue

    for name in catalogue.list_pages("dataset"):
        try:
            spec = catalogue.load_dataset(name)
            root = resolve_root(spec)
            is_made_later = spec.generate is not None and not root.is_dir()
            if not is_made_later:
                check_place(spec, root)
            found = "built in, made when needed" if is_made_later else str(root)
            yield Finding(f"data {name}", "ok", found)
        except UserError as error:
            yield Finding(f"data {name}", "note", error.message, error.hint or "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _torch, _mmdetection, _operators, _data)
