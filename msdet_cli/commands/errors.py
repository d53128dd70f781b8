"""`msdet errors`: AP by class, object size and pyramid level, beside a baseline's."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.text import Text

from experiments.common.errors import UserError
from experiments.runs.lookup import find_runs
from experiments.runs.run_folder import RunFolder
from msdet_cli.completion import complete_runs
from msdet_cli.console.file_output import write_all
from msdet_cli.console.output import print_json, print_line, print_lines
from msdet_cli.options import RESULTS, DataRootOpt, JsonOpt, ResultsOpt, argument, option

if TYPE_CHECKING:
    from experiments.reporting.breakdown.comparison import BreakdownGroup


def errors(
    baseline: Annotated[str, argument("BASELINE", "A run, or a recipe/hash: all its finished seeds.")],
    runs: Annotated[list[str], argument("RUN...", "What to compare with it, likewise.", complete_runs)],
    out: Annotated[Path | None, option("--out DIR", "Draw the differences there, PNG and SVG.")] = None,
    data_root: DataRootOpt = None,
    results: ResultsOpt = RESULTS,
    as_json: JsonOpt = False,
) -> None:
    """Show where AP differs from a baseline: class, level, size.

    Computed from the detections that each run's final evaluation kept, and checked against the AP of its record. What
    was computed is cached. By level means by object size: objects belong to the level that the detector's own
    assignment gives them, whichever level found them.

    \b
    msdet errors retinanet-r50 retinanet-r50-rlo
    msdet errors retinanet-r50/1a2b3c4d retinanet-r50-avw/2b3c4d5e retinanet-r50-rlo/5e6f7a8b
    msdet errors retinanet-r50/1a2b3c4d/seed0 retinanet-r50-rlo/5e6f7a8b/seed0 --out drawn
    """
    from experiments.reporting.breakdown.comparison import draw_breakdown, find_comparison_problem, load_group
    from experiments.reporting.figures import make_labels, make_stem

    chosen = [_runs_of(reference, results) for reference in [baseline, *runs]]
    labels = make_labels([[run.path.resolve() for run in one] for one in chosen])
    first, *others = [load_group(label, one, data_root) for label, one in zip(labels, chosen)]
    for text in (text for one in (first, *others) for text in one.problems):
        print(f"left out: {text}", file=sys.stderr)
    for other in others:
        if why_not := find_comparison_problem(first, other):
            raise UserError(why_not, "msdet runs")
    if as_json:
        print_json(_as_json(first, others))
    else:
        _print(first, others)
    if out is not None:
        used: set[str] = set()
        for other in others:
            for picture in draw_breakdown(first, other, make_stem(other.label, used)):
                write_all(picture.files(), out, on_stderr=True)  # standard output may be JSON


def _runs_of(reference: str, results: Path) -> list[RunFolder]:
    """Return the finished runs that a reference fits.

    Raises:
        UserError: There is none, or they are of more than one config.
    """
    fitting = find_runs(reference, results)
    done = [run for run in fitting if len(fitting) == 1 or run.state() == "done"]
    if not done:
        raise UserError(f"'{reference}': none of its {len(fitting)} runs is done", "msdet runs")
    configs = list(dict.fromkeys("/".join(run.path.resolve().parts[-3:-1]) for run in done))
    if len(configs) > 1:
        some = ", ".join(configs[:3]) + (", ..." if len(configs) > 3 else "")
        raise UserError(
            f"'{reference}' fits {len(configs)} configs: {some}", f"msdet errors {configs[0]} RUN"
        )
    return done


def _print(baseline: BreakdownGroup, others: list[BreakdownGroup]) -> None:
    from experiments.reporting.breakdown.breakdown_page import list_remarks
    from experiments.reporting.breakdown.comparison import build_comparison_grids

    console = Console()
    for made in build_comparison_grids(baseline, others):
        console.print(Text(made.title, "bold"))
        print_lines(console, made.header, made.rows, right=made.header[made.texts :])
        console.print()
    for other in others:
        if len(others) > 1:
            print_line(console, f"{other.label}:")
        for text in list_remarks(baseline, other):
            print_line(console, text)


def _as_json(baseline: BreakdownGroup, others: list[BreakdownGroup]) -> dict[str, Any]:
    from experiments.reporting.breakdown.comparison import KINDS

    content: dict[str, Any] = {"baseline": baseline.label, "sides": {}, "differences": {}}
    for one in (baseline, *others):
        by_seed = {seed: dataclasses.asdict(made) for seed, made in one.by_seed.items()}
        content["sides"][one.label] = {"runs": [str(f) for f in one.folders], "by_seed": by_seed}
    for other in others:
        content["differences"][other.label] = {
            kind: {part: dataclasses.asdict(c) for part, c in other.differences(baseline, kind).items() if c}
            for kind in KINDS
        }
    return content
