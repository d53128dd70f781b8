"""What the end-to-end tests share: a private home, the command as a person types it, small data, two trained runs."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from experiments.runs.lookup import iterate
from experiments.runs.run_folder import RunFolder
from msdet_cli.app import app

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"  # beside the checkout, if anywhere
MODULES = Path(__file__).with_name("modules")
PROFILE = Path(__file__).resolve().parents[2] / "recipes" / "profiles" / "tiny.yaml"

# 24 images in batches of 2: an epoch has 12 iterations, an interval 4.
FEW = """\
name: few
format: coco
root: {root}
splits:
  train: {{annotations: annotations/train.json, images: train}}
  val: {{annotations: annotations/val.json, images: val}}
generate: {{seed: 0, train_images: 24, val_images: 12, size: 160, min_side: 12, max_side: 130}}
"""


def small(*sets: str, iterations: int = 12, checkpoint_every: int = 5) -> list[str]:
    """Options that make any run a matter of seconds."""
    words = ["-p", "tiny", "--dataset", "few.yaml"]
    for assignment in (
        f"schedule.iterations={iterations}",
        f"checkpoint_every={checkpoint_every}",
        "schedule.images_per_gpu=2",
        "schedule.warmup=5",
        "set.val_dataloader.batch_size=4",
        *sets,
    ):
        words += ["--set", assignment]
    return words


@dataclass
class Place:
    """A working directory to type commands in, with a results folder of its own."""

    folder: Path
    home: Path
    extra: dict[str, str] = field(default_factory=dict)
    script: tuple[str, ...] = (sys.executable, "-c", "import sys; sys.path.pop(0); sys.argv[0] = 'msdet';"
                               " from msdet_cli.main import main; main()")  # fmt: skip

    @property
    def env(self) -> dict[str, str]:
        ours = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / ".cache"), "COLUMNS": "200"}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MSDET_", "PYTEST_"))}
        return {**kept, **ours, **self.extra}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`msdet WORDS`, running."""
        return self.start_command([*self.script, *words])

    def start_command(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def msdet(self, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """`msdet WORDS`, ended."""
        return ended(self.start(*words), timeout)

    def invoke(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`msdet WORDS`, in this process, which has imported what takes most of a command's time."""
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(self.folder)
            for name in ("HOME", "XDG_CACHE_HOME", "COLUMNS"):
                patched.setenv(name, self.env[name])
            result = CliRunner().invoke(app, words, catch_exceptions=False)
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    def python(self, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """`python WORDS`, ended."""
        return ended(self.start_command([sys.executable, *words]), timeout)

    def add_module(self, name: str) -> None:
        """A module of the user's own, from `modules/`."""
        shutil.copy(MODULES / f"{name}.py", self.folder)

    def runs(self) -> list[RunFolder]:
        return list(iterate(self.folder / "results"))

    def only_run(self) -> RunFolder:
        (run,) = self.runs()
        return run


def ended(process: subprocess.Popen[str], timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Its exit code and all that it said."""
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    """The condition's first true value; fails after a deadline, and says what it waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail(f"not seen within {seconds:g} s: {what}")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def few_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small generated data set; the first command that needs it makes it."""
    return tmp_path_factory.mktemp("data") / "few"


@pytest.fixture(scope="session")
def make_place(
    tmp_path_factory: pytest.TempPathFactory, home: Path, few_root: Path
) -> Callable[[str], Place]:
    def make(name: str) -> Place:
        folder = tmp_path_factory.mktemp(name)
        (folder / "few.yaml").write_text(FEW.format(root=few_root), encoding="utf-8")
        return Place(folder, home)

    return make


@pytest.fixture
def place(make_place: Callable[[str], Place], request: pytest.FixtureRequest) -> Place:
    return make_place(request.function.__name__[:40])


@dataclass
class Trained:
    """Two runs as `make run` has them, but shorter, and what was said while they ran."""

    place: Place
    baseline: RunFolder
    rlo: RunFolder
    said: subprocess.CompletedProcess[str]


TRAINED = ("run", "retinanet-r50", "retinanet-r50-rlo", "-p", "tiny", "--jobs", "2")
TRAINED_ITERATIONS = 160  # test_every_recipe.py trains all 330


def shorten_profile(folder: Path) -> None:
    """Commands typed in the folder find their profile `tiny` there, of fewer iterations."""
    page = PROFILE.read_text(encoding="utf-8")
    assert "iterations: 330" in page
    own = folder / "recipes" / "profiles"
    own.mkdir(parents=True, exist_ok=True)
    (own / PROFILE.name).write_text(page.replace("iterations: 330", f"iterations: {TRAINED_ITERATIONS}"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Trained:
    """The two trainings from which detectors come that find something.

    Test processes that run side by side share them: the first one trains, the others wait for it.
    """
    base, is_parallel = tmp_path_factory.getbasetemp(), "PYTEST_XDIST_WORKER" in os.environ
    folder = (base.parent if is_parallel else base) / "trained"
    folder.mkdir(exist_ok=True)
    place, kept = Place(folder, home), folder / "said.json"
    with open(folder / ".test-lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            shorten_profile(folder)
            said = place.msdet(*TRAINED, timeout=1500)
            assert said.returncode == 0, said.stdout + said.stderr
            kept.write_text(json.dumps([said.stdout, said.stderr]), encoding="utf-8")
    said = subprocess.CompletedProcess(TRAINED, 0, *json.loads(kept.read_text(encoding="utf-8")))
    runs = {run.path.parts[-3]: run for run in place.runs()}
    return Trained(place, runs["retinanet-r50"], runs["retinanet-r50-rlo"], said)
