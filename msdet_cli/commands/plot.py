"""`msdet plot`: what went on in trainings, level by level, as figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from experiments.common.errors import UserError
from experiments.runs.lookup import matching_runs, results_dir
from msdet_cli.console.file_output import write_all
from msdet_cli.options import RESULTS, ResultsOpt


def plot(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs, folders, or parts of names: all that fit are drawn."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the figures go.")] = Path(
        "figures"
    ),
    results: ResultsOpt = RESULTS,
) -> None:
    """Draw losses, IoU, weights and policy over training.

    Seeds of one config share a figure: their mean, and a band of one standard deviation. Each figure is written
    as PNG and SVG, as wide as a column of a paper; its caption is printed below its name. Runs at work are drawn as far
    as they are.

    \b
    msdet plot retinanet-r50-rlo                     all its configs and seeds
    msdet plot retinanet-r50-rlo/5e6f7a8b/seed0      one run
    msdet plot retinanet-r50 retinanet-r50-rlo --out paper/figures
    """
    from experiments.reporting.figures import Names, pictures_of_runs

    names, problems, drawn = Names(), [], 0
    for folders in _by_config(runs, results_dir(results)):
        stem = "-".join(folders[0].parts[-3 : None if len(folders) == 1 else -1])
        pictures, found = pictures_of_runs(folders, names.new(stem))
        for picture in pictures:
            write_all(picture.files(), out)
            Console().print(Padding(Text(picture.caption, "dim"), (0, 0, 0, 2), expand=False))
        drawn += len(pictures)
        problems += found
    if not drawn:
        raise UserError(problems[0].rstrip(".") if problems else "nothing was traced", "msdet runs")
    for text in problems:
        print(f"note: {text}", file=sys.stderr)


def _by_config(references: Sequence[str], results: Path) -> list[list[Path]]:
    """Return the folders of all selected runs, grouped by config, in the order of the arguments."""
    configs: dict[Path, dict[Path, None]] = {}
    for reference in references:
        for run in matching_runs(reference, results):
            path = run.path.resolve()
            configs.setdefault(path.parent, {})[path] = None
    return [list(folders) for folders in configs.values()]
