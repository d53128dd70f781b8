"""`--detach`: run the same command in the background, in its own session."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from experiments.common.errors import UserError
from experiments.launching.local import PATHS

BOOT = PATHS + "from msdet_cli.main import main; main()"


def detach(results: Path, as_json: bool) -> None:
    """Start this command without `--detach` in its own session, and print its process id and log."""
    words = [word for word in sys.argv[1:] if word not in ("--detach", "--json")]
    folder = results / "queues"
    stem = f"{datetime.now():%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        starting = folder / f"{stem}.starting"
        with open(starting, "w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", BOOT, *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        log = starting.rename(folder / f"{stem}-{process.pid}.log")
    except OSError as error:
        raise UserError(
            f"the results folder {results} cannot be written: {error.strerror or error}",
            "--results-dir DIR",
        ) from None
    if as_json:
        print(json.dumps({"pid": process.pid, "log": str(log)}))
    else:
        print(f"in the background as process {process.pid}; log: {log}")
        print(f"  progress: msdet runs; stop and save checkpoints: kill {process.pid}")
