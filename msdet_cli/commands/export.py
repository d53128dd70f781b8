"""`msdet export`: bundle runs into one archive."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from experiments.common.errors import UserError
from experiments.runs.export import SUFFIXES, write_bundle
from experiments.runs.lookup import iterate, resolve, results_dir
from experiments.runs.run_folder import RunFolder
from msdet_cli import __version__
from msdet_cli.console.formatting import format_size
from msdet_cli.options import RESULTS, ResultsOpt


def export(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Runs, or paths of their folders.")
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="All runs that are not running.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="FILE.tar.gz or FILE.zip; must not exist."),
    ] = None,
    results: ResultsOpt = RESULTS,
) -> None:
    """Bundle runs into one archive, without checkpoints.

    It holds records, recipes, configs, traces, metrics, detections and logs, and a manifest with the SHA-256 of
    each file. Unpacked, it is a results folder that every command reads. The same runs give the same bytes.
    Records contain the names of hosts and paths.

    \b
    msdet export retinanet-r50/1a2b3c4d/seed0
    msdet export --all -o paper.tar.gz
    tar xf paper.tar.gz && msdet report --results-dir paper
    """
    folder = results_dir(results)
    chosen = _chosen(runs or [], all_runs, folder)
    target = out or Path(
        f"{chosen[0].name.replace('/', '-') if len(chosen) == 1 else 'msdet-runs'}{SUFFIXES[0]}"
    )
    manifest = write_bundle(chosen, target, __version__)
    size = format_size(target.stat().st_size)
    line = f"{target}: {len(manifest['runs'])} runs, {len(manifest['files'])} files, {size}"
    Console().print(Text(line), soft_wrap=True)


def _chosen(references: list[str], all_runs: bool, results: Path) -> list[RunFolder]:
    if all_runs == bool(references):
        raise UserError("name a RUN, or use --all", "msdet export --all -o FILE.tar.gz")
    chosen = []
    for run in iterate(results) if all_runs else [resolve(reference, results) for reference in references]:
        try:
            running = run.state() == "running"
        except UserError as error:
            if not all_runs:
                raise
            print(f"note: skipped: {error.message}", file=sys.stderr)
            continue
        if running and not all_runs:
            raise UserError(f"run {run.name} is running", f"msdet cancel {run.name}")
        if running:
            print(f"note: skipped: {run.name} is running", file=sys.stderr)
        else:
            chosen.append(run)
    if not chosen:
        raise UserError(f"no runs to export in {results.resolve()}", "msdet runs")
    return chosen
