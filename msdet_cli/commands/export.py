"""`msdet export`: bundle runs into one archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from experiments.common.errors import UserError
from experiments.runs.export import SUFFIXES, write_bundle
from experiments.runs.lookup import select
from msdet_cli import __version__
from msdet_cli.console.formatting import format_size
from msdet_cli.console.output import print_note
from msdet_cli.options import RESULTS, ResultsOpt, RunsArg, option


def export(
    runs: RunsArg = None,
    all_runs: Annotated[bool, option("--all", "All runs, or all that match RUN, but running ones.")] = False,
    out: Annotated[Path | None, option("-o --out FILE", "FILE.tar.gz or FILE.zip; must not exist.")] = None,
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
    chosen = []
    for run in select(runs or [], results, all_runs):
        try:
            if run.state() == "running":
                raise UserError(f"{run.name} is running", f"msdet cancel {run.name}")
            chosen.append(run)
        except UserError as error:  # it is running, or its record cannot be read
            if not all_runs:
                raise
            print_note(f"skipped: {error.message}")
    if not chosen:
        raise UserError(f"no runs to export in {results.resolve()}", "msdet runs")
    name = chosen[0].name.replace("/", "-") if len(chosen) == 1 else "msdet-runs"
    target = out or Path(f"{name}{SUFFIXES[0]}")
    manifest = write_bundle(chosen, target, __version__)
    for member in manifest["links_left_out"]:
        print_note(f"left out: {member} is a link")
    for member in manifest["changed"]:
        print_note(f"not as its run wrote it: {member}")
    size = format_size(target.stat().st_size)
    print(f"{target}: {len(manifest['runs'])} runs, {len(manifest['files'])} files, {size}")
