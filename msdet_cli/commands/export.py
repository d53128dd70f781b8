"""`msdet export`: runs as one file to hand on."""

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
from msdet_cli.options import RESULTS, ResultsOpt


def export(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Runs, or paths of their folders.")
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Every run that is not under way.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="FILE.tar.gz or FILE.zip; is never replaced."),
    ] = None,
    results: ResultsOpt = RESULTS,
) -> None:
    """Bundle records, recipes, configs, traces, metrics, detections and logs of runs, without checkpoints.

    Unpacked, the bundle is a results folder that every command reads. A manifest in it holds the SHA-256 of each
    file. The same runs make the same bytes. Records name the hosts and paths that they ran on.

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
    files, size = len(manifest["files"]), target.stat().st_size
    text = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    console = Console()
    console.print(Text(f"{target}: {len(manifest['runs'])} runs, {files} files, {text}"), soft_wrap=True)


def _chosen(references: list[str], all_runs: bool, results: Path) -> list[RunFolder]:
    if all_runs == bool(references):
        raise UserError("name the runs, or say --all", "msdet export --all -o FILE.tar.gz")
    chosen = []
    for run in iterate(results) if all_runs else [resolve(reference, results) for reference in references]:
        try:
            running = run.state() == "running"
        except UserError as error:
            if not all_runs:
                raise
            print(f"left out: {error.message}", file=sys.stderr)
            continue
        if running and not all_runs:
            raise UserError(f"run {run.name} is under way", "wait for its end, or: msdet cancel RUN")
        if running:
            print(f"left out: {run.name} is under way", file=sys.stderr)
        else:
            chosen.append(run)
    if not chosen:
        raise UserError(f"there are no runs to export in {results.resolve()}", "msdet runs")
    return chosen
