"""How long a thousand runs take to plan, and to list: whole processes, in a results folder made for it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS = 1000
RECIPE, PROFILE = "retinanet-r50-rlo", "tiny"
PATCH = "+ a line of a patch\n" * 500  # 10 kB: a record keeps what its code differed in


def measure(runs: int = RUNS, repeats: int = 5) -> dict[str, Any]:
    """Seconds (median, and the least) of a dry run of so many variants, without and with their runs on disk, and of
    listing them."""
    values = ",".join(str(i / (runs + 1)) for i in range(1, runs + 1))
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        plan = [
            "ablate",
            RECIPE,
            "-p",
            PROFILE,
            "--gamma",
            values,
            "--dry-run",
            "--results-dir",
            str(results),
        ]
        listing = ["runs", "--results-dir", str(results)]
        figures = _timed("dry run of new ones", plan, repeats, folder)
        make(results, values.split(","))
        figures |= _timed("dry run of done ones", plan, repeats, folder)
        figures |= _timed("runs", listing, repeats, folder)
    return {"runs": runs, **figures}


def make(results: Path, gammas: list[str]) -> None:
    """A done run for each value, as a worker leaves its record and its recipe."""
    from experiments import recipes
    from experiments.data.find import find_dataset
    from experiments.runs import Attempt, Record, RunFolder

    sets = [[f"weighting.gamma={gamma}"] for gamma in gammas]
    for recipe in recipes.load_variants(RECIPE, PROFILE, sets):
        data = find_dataset(recipe.dataset, generate=False)
        digest = recipes.config_hash(recipe, data.fingerprint)
        run = RunFolder.of(results, recipe.name, digest, 0)
        run.path.mkdir(parents=True)
        attempt = Attempt(
            started="2026-01-01T10:00:00+00:00", ended="2026-01-01T10:01:30+00:00", host="elsewhere", pid=1
        )
        record = Record(
            recipe=recipe.name,
            recipe_id=recipes.recipe_id(recipe),
            config_hash=digest,
            seed=0,
            profile=recipe.profile,
            status="done",
            metrics={"AP": 40.0},
            iterations=330,
            timings={"total_s": 90.0, "seconds_per_iteration": 0.2},
            attempts=[attempt],
            git={"commit": "c0ffee", "dirty": True, "patch": PATCH},
        )
        run.record_file.write_text(record.model_dump_json(indent=2), encoding="utf-8")
        run.recipe.write_text(f"model: {recipe.model}\n", encoding="utf-8")


def _timed(name: str, words: list[str], repeats: int, folder: str) -> dict[str, float]:
    command = [sys.executable, "-c", "from msdet_cli.main import main; main()", *words]
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=folder)
        seconds.append(time.perf_counter() - start)
    return {f"{name} s": statistics.median(seconds[1:]), f"{name} least s": min(seconds[1:])}
