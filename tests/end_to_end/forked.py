"""Commands and their workers forked from this process, which has loaded MMDetection: a start takes a second.

They are processes like any other: with sessions, parents, signals and descriptors of their own. Only the start of
Python and its imports are left out. Ranks are started by torchrun as ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from experiments.launching import local
from msdet_cli import run_options
from msdet_cli.main import main

from .conftest import Place


class ForkedProcess:
    """What `subprocess.Popen` offers, of a fork that calls a function and ends with the code that it returns."""

    def __init__(
        self, args: Sequence[str], function: Callable[[], Any], environment: Mapping[str, str], log: IO
    ) -> None:
        self.args, self.returncode = args, None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = _call(function, environment, log)
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(list(self.args), timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedCommand(ForkedProcess):
    """`msdet WORDS` in a place."""

    def __init__(self, place: Place, words: Sequence[str]) -> None:
        def type_command() -> None:
            os.chdir(place.folder)
            sys.argv = ["msdet", *words]
            run_options.check_models = list  # which would load the gate
            local.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": start_worker})
            main()

        self.said = place.folder / "said.txt"
        with open(self.said, "w", encoding="utf-8") as log:
            super().__init__(["msdet", *words], type_command, place.env, log)

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        self.wait(timeout)
        return self.said.read_text(encoding="utf-8"), ""


def start_worker(command: Sequence[str], **options: Any) -> Any:
    """Fork the worker of one process; start torchrun."""
    if command[2:4] != ["-c", local.BOOT]:
        return subprocess.Popen(command, **options)

    def work() -> int:
        os.setsid()
        sys.path.append(str(Path.cwd()))
        from experiments.training import worker

        return worker.main(list(command[4:]))

    return ForkedProcess(command, work, options["env"], options["stdout"])


def _call(function: Callable[[], Any], environment: Mapping[str, str], log: IO) -> int:
    """Call a function in a forked process that reads nothing and writes to the log; return its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    for source, number in ((os.open(os.devnull, os.O_RDONLY), 0), (log.fileno(), 1), (log.fileno(), 2)):
        os.dup2(source, number)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    try:
        return function() or 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()


def load_mmdetection() -> None:
    """Load what a worker imports, once for all that are forked."""
    import torch

    torch.set_num_threads(1)
    from experiments.training import components, worker  # noqa: F401
    from experiments.training.config import builder, foreground_prior, pretrained  # noqa: F401
    from experiments.training.engine import checkpoints, precision, stopping  # noqa: F401
    from experiments.training.hooks import tracking  # noqa: F401
