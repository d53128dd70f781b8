"""`msdet plot`: what went on in trainings, as figures: level by level, or one beside the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from experiments.common.errors import UserError
from experiments.runs.lookup import select
from msdet_cli.completion import complete_runs
from msdet_cli.console.file_output import write_all
from msdet_cli.console.output import print_note
from msdet_cli.options import RESULTS, ResultsOpt, argument, option

if TYPE_CHECKING:
    from experiments.reporting.tables.sections import Picture


def plot(
    runs: Annotated[
        list[str],
        argument("RUN...", "Runs, folders, or parts of names: all that fit are drawn.", complete_runs),
    ],
    curves: Annotated[
        bool, option("--curves", "Draw loss and AP of all these runs into one figure.")
    ] = False,
    out: Annotated[Path, option("--out DIR", "Where the figures go.")] = Path("figures"),
    results: ResultsOpt = RESULTS,
) -> None:
    """Draw losses, IoU, weights and policy over training.

    Seeds of one config share a line or figure: their mean, and a band of one standard deviation. Each figure is
    written as PNG and SVG, as wide as a column of a paper; its caption is printed below its name. Runs at work are
    drawn as far as they are. With --curves, loss and AP of all runs are in one figure, `curves`: a line for each
    config.

    \b
    msdet plot retinanet-r50-rlo                     all its configs and seeds
    msdet plot retinanet-r50-rlo/5e6f7a8b/seed0      one run
    msdet plot retinanet-r50 retinanet-r50-rlo --out paper/figures
    msdet plot --curves retinanet-r50 retinanet-r50-rlo
    """
    from experiments.reporting.figures import draw_runs, draw_training_curves, make_stem

    configs: dict[Path, list[Path]] = {}
    for run in select(runs, results, has_all=True):
        path = run.path.resolve()
        configs.setdefault(path.parent, []).append(path)
    used: set[str] = set()

    def draw(folders: list[Path]) -> tuple[list[Picture], list[str]]:
        stem = "-".join(folders[0].parts[-3 : None if len(folders) == 1 else -1])
        return draw_runs(folders, make_stem(stem, used))

    each_config = list(configs.values())
    made = [draw_training_curves(each_config, "curves")] if curves else map(draw, each_config)
    problems, has_drawn = [], False
    for pictures, found in made:
        for picture in pictures:
            write_all(picture.files(), out)
            Console().print(Padding(Text(picture.caption, "dim"), (0, 0, 0, 2), expand=False))
        has_drawn |= bool(pictures)
        problems += found
    if not has_drawn:
        raise UserError(problems[0].rstrip(".") if problems else "nothing was traced", "msdet runs")
    for text in problems:
        print_note(text)
