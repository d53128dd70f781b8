"""`msdet bench`: what the weighting and the operators cost, measured on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from experiments.errors import UserError, did_you_mean
from msdet_cli.options import JsonOpt

USUAL = ("observe", "startup", "many_runs", "operators", "overhead")
PARTS = (*USUAL, "gpu")


def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART]...", help=f"{', '.join(PARTS)}; default all but gpu."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Pairs of blocks in `overhead`.")] = 12,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Keep the JSON there, too.")
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Measure on this machine, in one run, what speed claims rest on.

    \b
    observe    one call of a rule inside an interval, and at its end (microseconds)
    startup    msdet --help, and whether it imports torch (seconds)
    many_runs  a dry run, and a list, of a thousand runs (seconds)
    operators  NMS and RoIAlign where mmcv's compiled ones are missing (milliseconds)
    overhead   a training iteration with RLO and with AVW against uniform, interleaved (ratio)
    gpu        a step of every full-size recipe at (1333, 800), peak memory, 200 iterations with RLO and without

    \b
    msdet bench
    msdet bench observe startup --json
    """
    for part in parts or ():
        if part not in PARTS:
            raise UserError(f"bench: '{part}' is unknown; {did_you_mean(part, PARTS)}", "msdet bench --help")
    results = _measure(parts or USUAL, rounds)
    text = json.dumps(results, indent=2)
    if out is not None:
        from experiments.files import write_text

        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text + "\n")
    if as_json:
        print(text)
    else:
        _show(results)


def _measure(parts: list[str] | tuple[str, ...], rounds: int) -> dict:
    from benchmarks import gpu, many_runs, observe, operators, overhead, startup
    from experiments.training.environment import describe

    measures: dict[str, Callable[[], dict]] = {
        "observe": observe.measure,
        "startup": startup.measure,
        "many_runs": many_runs.measure,
        "operators": operators.measure,
        "overhead": lambda: overhead.measure(rounds=rounds),
        "gpu": gpu.measure,
    }
    results: dict = {}
    with Console(stderr=True).status("measuring ...") as status:
        for part in parts:
            status.update(f"measuring {part} ...")
            results[part] = measures[part]()
    return {"environment": describe(), **results}


def _show(results: dict) -> None:
    console = Console(highlight=False)
    environment = results["environment"]
    device = ", ".join(environment["gpus"]) or f"CPU, {environment['cpu_threads']} threads"
    console.print(f"{device}; torch {environment['packages']['torch']}; operators {environment['operators']}")
    table = Table("part", "figure", "value", box=None, pad_edge=False)
    for part, figures in results.items():
        if part != "environment":
            for name, value in _flat(figures):
                table.add_row(part, name, value)
    console.print(table)


def _flat(figures: dict, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in figures.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        else:
            rows.append((f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)))
    return rows
