"""The time of commands as whole processes: `msdet --help`, and planning, listing and reporting thousands of runs."""

from __future__ import annotations

import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.common.processes import PATHS
from experiments.data.find import find_dataset
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.runs.record import Attempt, Launch, Record
from experiments.runs.run_folder import RunFolder

HEAVY = ("torch", "pandas", "matplotlib", "numpy", "cv2", "mmengine", "mmdet")
MSDET = [sys.executable, "-c", PATHS + "from msdet_cli.main import main; main()"]
RUNS = 1000
REPORTED = 10_000
SEEDS = 5  # of each config, where a report has many configs
RECIPE, PROFILE = "retinanet-r50-rlo", "tiny"
NAMED = (
    "retinanet-r50", "retinanet-r50-avw", "retinanet-r50-rlo", "retinanet-r50-guided", "fcos-r50", "fcos-r50-avw",
    "fcos-r50-rlo", "faster-rcnn-r50", "faster-rcnn-r50-avw", "faster-rcnn-r50-rlo",
)  # fmt: skip
PATCH = "+ a line of a patch\n" * 500  # 10 kB: a record keeps what its code differed in
SETTLED_S = 4.0  # a record that was written a moment ago is not taken into the index yet


def measure_startup() -> dict[str, Any]:
    """Return seconds of `msdet --help`, beside a bare interpreter's, and the heavy packages imported."""
    commands = {"help s": [*MSDET, "--help"], "bare interpreter s": [sys.executable, "-c", "pass"]}
    _run(commands["help s"])
    rounds = [{name: _run(command)[0] for name, command in commands.items()} for _ in range(10)]
    medians = {name: statistics.median(seconds[name] for seconds in rounds) for name in commands}
    return {**medians, "heavy imports": ", ".join(find_heavy_imports()) or "none"}


def find_heavy_imports() -> list[str]:
    """Return which of HEAVY the command line imports before a command is chosen."""
    code = f"import sys, msdet_cli.app; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def measure_many_runs() -> dict[str, Any]:
    """Return seconds (median and least) of a dry run of variants, of listing their runs, and of reports.

    The dry run is measured without and with the runs on disk; runs lie in results folders made for it.
    """
    values = [str(i / (RUNS + 1)) for i in range(1, RUNS + 1)]
    plan = ["ablate", RECIPE, "-p", PROFILE, "--gamma", ",".join(values), "--dry-run"]
    with tempfile.TemporaryDirectory() as folder:
        figures = _time("dry run of new ones", plan, 5, folder)
        make(Path(folder) / "results", make_variants(values), patch=PATCH)
        figures |= _time("dry run of done ones", plan, 5, folder)
        figures |= _time("runs", ["runs"], 5, folder)
    return {"runs": RUNS, **figures, "report": _measure_reports()}


def _measure_reports() -> dict[str, Any]:
    """Return seconds of `msdet report` over ablations of 5 seeds a config, and over ten recipes with many seeds.

    Cold: there is no index of the results folder yet; warm: there is one.
    """
    gammas = [str(i / (REPORTED + 1)) for i in range(1, REPORTED // SEEDS)]  # beside the baseline
    shapes: dict[str, tuple[list[Recipe], int]] = {
        "ablations": ([recipes.load_recipe("retinanet-r50", PROFILE), *make_variants(gammas)], SEEDS),
        "seeds": ([recipes.load_recipe(name, PROFILE) for name in NAMED], REPORTED // len(NAMED)),
    }
    figures: dict[str, Any] = {"runs": REPORTED}
    for shape, (made, seeds) in shapes.items():
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder) / "results", made, range(seeds))
            time.sleep(SETTLED_S)
            figures[f"{shape} cold s"], figures[f"{shape} cold CPU s"] = _run_msdet(["report"], folder)
            figures |= _time(f"{shape} warm", ["report"], 3, folder)
            _, figures[f"{shape} warm CPU s"] = _run_msdet(["report"], folder)
    return figures


def make_variants(gammas: Sequence[str]) -> list[Recipe]:
    """Return the recipe with each of these values."""
    with_sets = recipes.prepare_variants(RECIPE, PROFILE)
    return [with_sets([f"weighting.gamma={gamma}"]) for gamma in gammas]


def make(
    results: Path, made: Sequence[Recipe], seeds: Sequence[int] = (0,), patch: str | None = None
) -> None:
    """Write a done run of each recipe and seed, as a worker writes its record and its recipe."""
    chance = random.Random(0)
    times: Any = dict(started="2026-01-01T10:00:00+00:00", ended="2026-01-01T10:01:30+00:00")
    attempt = Attempt(**times, host="elsewhere", pid=1, micro_batch=8, exit_code=0, exit_class="done")
    for recipe in made:
        data = find_dataset(recipe.dataset, generate=False)
        digest = recipes.compute_config_hash(recipe, data.fingerprint)
        page = recipes.dump(recipe)
        for seed in seeds:
            run = RunFolder.of(results, recipe.name, digest, seed)
            run.path.mkdir(parents=True)
            ap = chance.gauss(50, 1)
            record = Record(
                recipe=recipe.name,
                recipe_id=recipes.compute_recipe_id(recipe),
                config_hash=digest,
                seed=seed,
                profile=recipe.profile,
                status="done",
                metrics={"AP": ap, "AP50": ap + 40, "AP75": ap, "APS": ap - 3, "APM": ap + 10, "APL": ap + 9},
                iterations=330,
                timings={"total_s": 90.0, "seconds_per_iteration": 0.2},
                attempts=[attempt],
                dataset={"name": recipe.dataset.name, "format": "coco", "fingerprint": data.fingerprint},
                git={"commit": "c0ffee", "dirty": patch is not None, "patch": patch},
                environment={"packages": {f"package-{i}": "1.0" for i in range(10)}, "host": "elsewhere"},
                command=["msdet", "run", recipe.name, "-p", PROFILE],
                launch=Launch(micro_batch=8),
                created="2026-01-01T09:59:00+00:00",
            )
            run.record_file.write_text(record.model_dump_json(indent=2), encoding="utf-8")
            run.recipe.write_text(page, encoding="utf-8")


def _time(name: str, words: list[str], repeats: int, folder: str) -> dict[str, float]:
    seconds = [_run_msdet(words, folder)[0] for _ in range(repeats + 1)][1:]
    return {f"{name} s": statistics.median(seconds), f"{name} least s": min(seconds)}


def _run_msdet(words: list[str], folder: str) -> tuple[float, float]:
    return _run([*MSDET, *words, "--results-dir", str(Path(folder) / "results")], folder)


def _run(command: list[str], folder: str | None = None) -> tuple[float, float]:
    """Return what a process takes, by the clock and of CPU time: on a busy machine the latter says more."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu_s
