"""`msdet bench`: measure the cost of weighting, inference and evaluation on this machine."""

from __future__ import annotations

import contextlib
import functools
import io
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from experiments.common.errors import INTERRUPTED, UserError, did_you_mean
from experiments.common.files import refusing, write_json
from msdet_cli.completion import complete_words
from msdet_cli.console.output import make_console, print_json, print_line
from msdet_cli.console.result_tables import fit_view
from msdet_cli.options import (
    RESULTS,
    DataRootOpt,
    DatasetOpt,
    JsonOpt,
    ProfileOpt,
    ResultsOpt,
    argument,
    option,
)

if TYPE_CHECKING:
    from benchmarks.results_file import BenchFile

DEFAULT_PARTS = ("observe", "startup", "many_runs", "operators", "dispatch", "overhead", "inference")
PARTS = (*DEFAULT_PARTS, "train", "loader", "eval", "gpu", "decisions")
NO_PROFILE = "none"

Progress = Callable[[str], None]
Measure = Callable[[Progress], dict[str, Any]]


def bench(
    parts: Annotated[
        list[str] | None,
        argument(
            "[PART]...",
            f"{', '.join(PARTS)}; default all but the last five. Recipes may follow dispatch.",
            complete_words(PARTS),
        ),
    ] = None,
    recipe: Annotated[
        str, option("--recipe RECIPE", "Recipe that `overhead` and `train` train.")
    ] = "retinanet-r50",
    profile: ProfileOpt = None,
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    batch: Annotated[
        int | None, option("--batch", "Batch of `overhead` and `train` (default: the recipe's).", min=1)
    ] = None,
    size: Annotated[
        tuple[int, int] | None,
        option("--size W H", "Max width and height of images in `overhead`, `train`, `inference`, `loader`."),
    ] = None,
    rounds: Annotated[
        int, option("--rounds", "Rounds of `overhead`, `train`, `inference`, `loader`.", min=2)
    ] = 20,
    steps: Annotated[
        int | None,
        option("--steps", "Iterations per round in `overhead` and `train` (default 6; on a GPU 20).", min=1),
    ] = None,
    images: Annotated[
        int, option("--images", "Images of `eval` and of `loader`'s annotations.", min=1)
    ] = 5000,
    host: Annotated[
        str | None, option("--host NAME", "Name of this machine (default: its host name).")
    ] = None,
    out: Annotated[Path | None, option("--out FILE", "Also write the JSON there.")] = None,
    as_json: JsonOpt = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """Measure the cost of weighting, inference and evaluation.

    Results are written to <results-dir>/bench/<date>-<host>.json; a repeated part replaces the same day's.
    `overhead`, `train` and `inference` use profile tiny on a CPU and full-size recipes on a GPU; -p none always
    uses full-size recipes.

    \b
    observe    a call of a rule inside an interval, and at its end (microseconds)
    startup    msdet --help, and whether it imports torch (seconds)
    many_runs  planning and listing a thousand runs, and reporting many (seconds)
    dispatch   operations, waits and allocations of a step: stock, uniform, RLO; RECIPEs may follow
    operators  NMS and RoIAlign without mmcv's compiled operators (milliseconds)
    overhead   a training iteration: uniform, AVW, RLO and stock MMDetection, interleaved (ratios)
    train      images per second: stock MMDetection, RLO, with --fast, with --fast --amp bf16
    inference  an image: RetinaNet, RLO and the necks of Figure 4, model only and end to end
    loader     images a second of a core, against stock; annotations read first and again
    eval       faster-coco-eval against pycocotools: time and results (minutes)
    gpu        a step of every full-size recipe at (1333, 800), peak memory, waits for the device
    decisions  false verdicts and seeds of `msdet compare`, by simulation (shares)

    \b
    msdet bench
    msdet bench overhead inference -p tiny
    msdet bench dispatch retinanet-r50 fcos-r50
    msdet bench overhead --recipe retinanet-r50 --batch 2 -p none
    msdet bench eval --images 500
    msdet bench observe startup --json
    """
    parts = parts or list(DEFAULT_PARTS)
    others = [part for part in parts if part not in PARTS]  # recipes, where it counts their steps
    if others and "dispatch" not in parts:
        close = did_you_mean(others[0], PARTS)
        raise UserError(f"bench: '{others[0]}' is unknown; {close}", "msdet bench --help")
    if size is not None and min(size) < 32:
        raise UserError(f"--size: {size[0]} {size[1]} is not allowed: at least 32 32", "--size 1333 800")
    from benchmarks.results_file import BenchFile

    file = BenchFile(results, host)
    options = {"RECIPE": others, "--recipe": recipe, "-p": profile, "--dataset": dataset,
               "--data-root": data_root, "--batch": batch, "--size": size, "--rounds": rounds, "--steps": steps,
               "--images": images}  # fmt: skip
    done: dict[str, Any] = {}
    try:
        _measure([part for part in dict.fromkeys(parts) if part in PARTS], options, file, done)
    except KeyboardInterrupt:
        Console(stderr=True).print(f"interrupted; written: {', '.join(done) or 'nothing'}")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if done:
            _print_result(file.content(done), out, as_json)


def _measure(parts: list[str], options: dict[str, Any], file: BenchFile, done: dict[str, Any]) -> None:
    """Measure the parts into `done`, writing each to the file before the next starts."""
    console = Console(stderr=True)
    ignored = io.StringIO()  # libraries print about annotations and missing packages
    with (
        console.status("measuring ...") as status,
        contextlib.redirect_stdout(ignored),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        measures = _measures(options)
        for part in parts:
            measure, taken = measures[part]

            def report(text: str, part: str = part) -> None:
                status.update(f"measuring {part}: {text} ...")

            report("starting")
            done[part] = file.measure(functools.partial(measure, report), _command(part, taken))
            file.add({part: done[part]})
            print_line(console, f"{part}: {done[part]['took_s']:.0f} s, written to {file.path}")


def _measures(options: dict[str, Any]) -> dict[str, tuple[Measure, dict[str, Any]]]:
    """Return for each part its measurement, and the options that it takes with their values."""
    import torch

    from benchmarks import (
        calls,
        command_times,
        decisions,
        dispatch,
        evaluation,
        inference,
        loader,
        overhead,
        training_step,
    )
    from benchmarks.loops import Task

    own = options["-p"] or (NO_PROFILE if torch.cuda.is_available() else "tiny")
    profile, given = (None if name in (None, NO_PROFILE) else name for name in (own, options["-p"]))
    shared = {"-p": own, **{name: options[name] for name in ("--dataset", "--size", "--rounds")}}
    dataset, size, rounds = options["--dataset"], options["--size"], options["--rounds"]
    task = Task(options["--recipe"], profile, dataset, options["--batch"], size, options["--data-root"])
    steps, images, recipes = options["--steps"], options["--images"], options["RECIPE"]
    training = {"--recipe": task.recipe, **shared, "--batch": task.batch, "--steps": steps}
    return {
        "observe": (lambda _: calls.measure_rules(), {}),
        "startup": (lambda _: command_times.measure_startup(), {}),
        "many_runs": (lambda _: command_times.measure_many_runs(), {}),
        "operators": (lambda _: calls.measure_operators(), {}),
        "dispatch": (
            lambda progress: dispatch.measure(recipes or dispatch.RECIPES, given, progress),
            {"RECIPE": recipes, "-p": given},
        ),
        "overhead": (lambda progress: overhead.measure(task, rounds, steps, progress), training),
        "train": (lambda progress: overhead.measure_fast(task, rounds, steps, progress), training),
        "inference": (lambda progress: inference.measure(profile, dataset, size, rounds, progress), shared),
        "loader": (
            lambda progress: loader.measure(images, size or loader.PAPER_SIZE, rounds, progress),
            {"--images": images, "--size": size, "--rounds": rounds},
        ),
        "eval": (lambda progress: evaluation.measure(images, progress), {"--images": images}),
        "gpu": (lambda _: training_step.measure(), {}),
        "decisions": (lambda _: decisions.measure(), {}),
    }


def _command(part: str, options: dict[str, Any]) -> str:
    """Return the command for the part with these options, without paths of this machine."""
    words = ["msdet", "bench", part]
    for name, value in options.items():
        if value is not None:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [*([name] if name.startswith("-") else []), *map(str, values)]
    return shlex.join(words)


def _print_result(found: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from experiments.reporting.bench.results import build_bench_sections

    if out is not None:
        with refusing(f"--out: {out} cannot be written", "name another file"):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, found)
    if as_json:
        print_json(found)
        return
    console = make_console()
    for section in build_bench_sections([{**found, "file": ""}]):
        for grid in section.grids:
            print_line(console, f"\n{section.title}: {grid.title}")
            console.print(fit_view(console, grid.view))
        for text in section.texts:
            console.print(Text(f"\n{text}"))
