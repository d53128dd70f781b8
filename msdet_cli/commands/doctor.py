"""`msdet doctor`: check the installation, and say how to fix what is missing."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Literal, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.common.errors import BAD_INPUT, UserError
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
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        table = Table("", "found", "what to do", box=None, pad_edge=False)
        for finding in findings:
            found = Text(finding.found, COLOURS[finding.level])
            table.add_row(Text(finding.what), found, Text(finding.advice))
        Console(highlight=False).print(table)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(BAD_INPUT)


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 10)
    yield Finding(
        "Python", "ok" if good else "problem", platform.python_version(), "" if good else "use 3.10 or newer"
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "problem", str(error), "pip install 'torch>=2.4'")
        return
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    old = version < (2, 4)
    yield Finding(
        "torch", "problem" if old else "ok", torch.__version__, "pip install -U 'torch>=2.4'" if old else ""
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            yield Finding(f"GPU {index}", "ok", found)
    else:
        advice = "trains on the CPU: use -p tiny; for GPUs install a CUDA build of torch (pytorch.org)"
        yield Finding("GPU", "note", "none", advice)


def _mmdetection() -> Iterator[Finding]:
    """Check that the maintained forks are installed and upstream's packages are not."""
    for fork, upstream in (
        ("onedl-mmengine", "mmengine"),
        ("onedl-mmcv", "mmcv"),
        ("onedl-mmdetection", "mmdet"),
    ):
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
    backend = operators.backend()
    advice = {
        "compiled": "",
        "torchvision": "",
        "pytorch": "same results, slower; install the torchvision that fits torch",
    }[backend]
    yield Finding("operators", "note" if advice else "ok", backend, advice)


def _data() -> Iterator[Finding]:
    from experiments.data.find import check_place, resolve_root
    from experiments.recipes import catalogue

    for name in catalogue.list_pages("dataset"):
        try:
            spec = catalogue.load_dataset(name)
            root = resolve_root(spec)
            if spec.generate is not None and not root.is_dir():
                yield Finding(f"data {name}", "ok", "built in, made when needed")
                continue
            check_place(spec, root)
        except UserError as error:
            yield Finding(f"data {name}", "note", error.message, error.hint or "")
        else:
            yield Finding(f"data {name}", "ok", str(root), f"to check it: msdet data verify {name}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _torch, _mmdetection, _operators, _data)
