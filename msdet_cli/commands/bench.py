"""`msdet bench`: what the weighting, inference and evaluation cost, measured on this machine."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from experiments.common.errors import INTERRUPTED, UserError, did_you_mean
from experiments.runs.lookup import results_dir
from msdet_cli.console.result_tables import make_console
from msdet_cli.options import RESULTS, DataRootOpt, DatasetOpt, JsonOpt, ProfileOpt, ResultsOpt

if TYPE_CHECKING:
    from benchmarks.results_file import BenchFile

USUAL = ("observe", "startup", "many_runs", "operators", "overhead", "inference")
PARTS = (*USUAL, "eval", "gpu")
PLAIN = "none"  # as a profile: the recipe as it is

Progress = Callable[[str], None]
Measure = Callable[[Progress], dict[str, Any]]


def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART]...", help=f"{', '.join(PARTS)}; default all but eval and gpu."),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="RECIPE", help="What `overhead` trains, under each rule.")
    ] = "retinanet-r50",
    profile: ProfileOpt = None,
    dataset: DatasetOpt = None,
    data_root: DataRootOpt = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="Images of a step of `overhead` (default: as the recipe)."),
    ] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            "--size", metavar="W H", help="Images in `overhead` and `inference` fit in so many pixels."
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=2, help="Rounds of turns in `overhead` and `inference`.")
    ] = 20,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Iterations of a turn in `overhead` (default 6; on a GPU 20)."),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=1, help="In `eval`; COCO's val2017 has 5000.")
    ] = 5000,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="NAME", help="Name this machine so, in place of its own name."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Keep the JSON there, too.")
    ] = None,
    as_json: JsonOpt = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """Measure on this machine what speed claims rest on; kept in <results-dir>/bench/<date>-<host>.json.

    `overhead` and `inference` take the profile tiny where there is no GPU, and the recipes as they are on one
    (-p none says so anywhere). What is measured again on the same day takes the older one's place.

    \b
    observe    one call of a rule inside an interval, and at its end (microseconds)
    startup    msdet --help, and whether it imports torch (seconds)
    many_runs  planning and listing a thousand runs, and reporting many (seconds)
    operators  NMS and RoIAlign where mmcv's compiled ones are missing (milliseconds)
    overhead   a training iteration: uniform, AVW, RLO and MMDetection's own loop, in turns (ratios)
    inference  an image: RetinaNet, RLO and the necks of Figure 4, in turns, model only and end to end
    eval       faster-coco-eval against pycocotools, time and results; minutes
    gpu        a step of every full-size recipe at (1333, 800), peak memory, 200 iterations with RLO and without

    \b
    msdet bench
    msdet bench overhead inference -p tiny
    msdet bench overhead --recipe retinanet-r50 --batch 2 -p none
    msdet bench eval --images 500
    msdet bench observe startup --json
    """
    for part in parts or ():
        if part not in PARTS:
            raise UserError(f"bench: '{part}' is unknown; {did_you_mean(part, PARTS)}", "msdet bench --help")
    if size is not None and min(size) < 32:
        raise UserError("--size: width and height must be 32 pixels or more", "--size 1333 800")
    from benchmarks.results_file import BenchFile, content

    kept = BenchFile(results_dir(results), host)
    options = {"--recipe": recipe, "-p": profile, "--dataset": dataset, "--data-root": data_root, "--batch": batch,
               "--size": size, "--rounds": rounds, "--steps": steps, "--images": images}  # fmt: skip
    done: dict[str, Any] = {}
    try:
        _measure(list(dict.fromkeys(parts or USUAL)), options, kept, done)
    except KeyboardInterrupt:
        Console(stderr=True).print(f"stopped; kept: {', '.join(done) or 'nothing'}")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if done:
            _tell(content(kept.date, kept.host, done), out, as_json)


def _measure(parts: list[str], options: dict[str, Any], kept: BenchFile, done: dict[str, Any]) -> None:
    """Each part is on disk before the next begins: what stops the command costs one part at most."""
    from benchmarks import results_file as keeping

    measures = _measures(options)
    load = keeping.load()
    console = Console(stderr=True)
    nowhere = io.StringIO()  # what others print: annotations that are loaded, packages that are not there
    with console.status("measuring ...") as status, contextlib.redirect_stdout(nowhere):
        for part in parts:
            status.update(f"measuring {part} ...")
            measure, takes = measures[part]
            words = _command(part, {name: options[name] for name in takes})
            tell = functools.partial(_progress, status, part)
            done[part] = keeping.part(functools.partial(measure, tell), words, kept.host, load)
            kept.add({part: done[part]})
            console.print(Text(f"{part}: {done[part]['took_s']:.0f} s, kept in {kept.path}"), soft_wrap=True)


def _progress(status: Status, part: str, text: str) -> None:
    status.update(f"measuring {part}: {text} ...")


def _measures(options: dict[str, Any]) -> dict[str, tuple[Measure, tuple[str, ...]]]:
    """How each part is measured, and the options that it takes."""
    from benchmarks import evaluation, gpu, inference, many_runs, observe, operators, overhead, startup
    from benchmarks.loops import Task

    options["-p"] = _profile(options["-p"])
    profile = None if options["-p"] == PLAIN else options["-p"]
    dataset, size, rounds = options["--dataset"], options["--size"], options["--rounds"]

    def of_training(progress: Progress) -> dict[str, Any]:
        task = Task(options["--recipe"], profile, dataset, options["--batch"], size, options["--data-root"])
        return overhead.measure(task, rounds, options["--steps"], progress)

    def of_inference(progress: Progress) -> dict[str, Any]:
        return inference.measure(profile, dataset, size, rounds, progress=progress)

    shared = ("-p", "--dataset", "--size", "--rounds")
    return {
        "observe": (lambda _: observe.measure(), ()),
        "startup": (lambda _: startup.measure(), ()),
        "many_runs": (lambda _: many_runs.measure(), ()),
        "operators": (lambda _: operators.measure(), ()),
        "overhead": (of_training, ("--recipe", *shared, "--batch", "--steps")),
        "inference": (of_inference, shared),
        "eval": (lambda progress: evaluation.measure(options["--images"], progress=progress), ("--images",)),
        "gpu": (lambda _: gpu.measure(), ()),
    }


def _profile(asked: str | None) -> str:
    import torch

    return asked or (PLAIN if torch.cuda.is_available() else "tiny")


def _command(part: str, options: dict[str, Any]) -> str:
    """What to type for the same part with the same options, without this machine's paths."""
    words = ["msdet", "bench", part]
    for name, value in options.items():
        if value is not None:
            words += [name, *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def _tell(found: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from experiments.common.files import write_json

    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, found)
        except OSError as error:
            raise UserError(
                f"--out: {out} cannot be written: {error.strerror or error}", "name another file"
            ) from None
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from experiments.reporting.bench.results import sections

    console = make_console()
    for section in sections([{**found, "file": ""}]):
        for grid in section.grids:
            console.print(Text(f"\n{section.title}: {grid.title}"), soft_wrap=True)
            table = Table(box=None, pad_edge=False)
            for number, name in enumerate(grid.header):
                justify: Literal["left", "right"] = "left" if number < grid.texts else "right"
                table.add_column(name, justify=justify, overflow="fold")
            for row in grid.rows:
                table.add_row(*map(Text, row))
            console.print(table)
        for text in section.texts:
            console.print(Text(f"\n{text}"))
