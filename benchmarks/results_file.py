"""Bench files: what was measured goes to `<results folder>/bench/<date>-<host>.json`, part by part."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.common.files import write_json
from experiments.reporting.bench.results import SCHEMA, read_file
from experiments.runs.record import format_now


class BenchFile:
    """One machine's measurements of one day, with the machine's load before the first.

    Args:
        results: The results folder.
        host: The machine's name, in the file and in its path; None: its host name.

    Raises:
        UserError: A file of that name cannot be added to, or the name has no letter or digit.
    """

    def __init__(self, results: Path, host: str | None = None) -> None:
        self.host = host or socket.gethostname()
        self.date = format_now()[:10]
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", self.host).strip("-.")
        if not stem:
            raise UserError(f"--host: '{self.host}' has no letter or digit", "--host laptop")
        self.path = Path(results) / "bench" / f"{self.date}-{stem}.json"
        self._read_parts()
        # The mean number of processes that wanted to run over the last minute.
        self._load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None

    def measure(self, measure: Callable[[], dict[str, Any]], command: str) -> dict[str, Any]:
        """Measure a part; return the result with its environment and the command that measures it again."""
        import torch

        from experiments.training.environment import describe, read_git_state

        began = time.monotonic()
        result = measure()
        git, backends = read_git_state(), torch.backends
        settings = {  # that times depend on
            "cpu_cores": os.cpu_count(),
            "tf32_matmul": backends.cuda.matmul.allow_tf32,
            "tf32_cudnn": backends.cudnn.allow_tf32,
            "cudnn_benchmark": backends.cudnn.benchmark,
        }
        return {
            "measured": format_now(),
            "took_s": round(time.monotonic() - began, 1),
            "load": self._load,
            "command": command,
            "environment": {**describe(), **settings, "host": self.host},
            "git": git and {key: git[key] for key in ("commit", "dirty")},
            "result": result,
        }

    def add(self, parts: dict[str, Any]) -> None:
        """Write these parts beside those that are there; one measured again replaces the older one."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self.content({**self._read_parts(), **parts}))
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror or error}",
                "name another folder: --results-dir DIR",
            ) from None

    def content(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Return a bench file's content, as `experiments.reporting.bench` describes it."""
        return {"schema": SCHEMA, "date": self.date, "host": self.host, "parts": parts}

    def _read_parts(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        try:
            return read_file(self.path)["parts"]
        except ValueError as error:
            raise UserError(
                f"{self.path}: {error}", "move it away, or give this machine another name: --host NAME"
            ) from None
