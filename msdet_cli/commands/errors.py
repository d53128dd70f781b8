"""`msdet errors`: AP by class, object size and pyramid level, beside a baseline's."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from experiments.common.errors import UserError
from experiments.runs.lookup import fits, iterate, resolve, results_dir
from experiments.runs.run_folder import RunFolder
from msdet_cli.console.file_output import write_all
from msdet_cli.console.text_lines import print_lines
from msdet_cli.options import RESULTS, DataRootOpt, JsonOpt, ResultsOpt

if TYPE_CHECKING:
    from experiments.reporting.breakdown.comparison import BreakdownGroup


def errors(
    baseline: Annotated[
        str, typer.Argument(metavar="BASELINE", help="A run, or a recipe/hash: all its finished seeds.")
    ],
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="What to compare with it, likewise.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Draw the differences there, PNG and SVG.")
    ] = None,
    data_root: DataRootOpt = None,
    results: ResultsOpt = RESULTS,
    as_json: JsonOpt = False,
) -> None:
    """Show where AP differs from a baseline: class, level, size.

    Computed from the detections that each run's final evaluation kept, and checked against the AP of its record. What
    was computed is remembered beside the detections. By level means by object size: objects belong to the level that
    the detector's own assignment gives them, whichever level found them.

    \b
    msdet errors retinanet-r50 retinanet-r50-rlo
    msdet errors retinanet-r50/1a2b3c4d retinanet-r50-avw/2b3c4d5e retinanet-r50-rlo/5e6f7a8b
    msdet errors retinanet-r50/1a2b3c4d/seed0 retinanet-r50-rlo/5e6f7a8b/seed0 --out drawn
    """
    from experiments.reporting.breakdown.comparison import comparison_problem, load_group

    folder = results_dir(results)
    chosen = [_runs_of(reference, folder) for reference in [baseline, *runs]]
    groups = [
        load_group(_label(one, chosen), one, data_root, lambda text: print(text, file=sys.stderr))
        for one in chosen
    ]
    for text in (text for one in groups for text in one.problems):
        print(f"left out: {text}", file=sys.stderr)
    for other in groups[1:]:
        why_not = comparison_problem(groups[0], other)
        if why_not:
            raise UserError(why_not, "msdet runs")
    if as_json:
        print(json.dumps(_as_json(groups), indent=2))
    else:
        _print(groups)
    if out is not None:
        _draw(groups, out)


def _runs_of(reference: str, results: Path) -> list[RunFolder]:
    """Return one run, or the finished runs of one config, by name or folder.

    Raises:
        UserError: There is none, or they are of more than one config.
    """
    folders = [Path(reference), Path(results) / "runs" / reference]
    seeds = next((found for f in folders if (found := sorted(f.glob("seed*/record.json")))), [])
    if seeds:
        fitting = [RunFolder(record.parent) for record in seeds]
    elif any((f / "record.json").is_file() for f in folders):
        return [resolve(reference, results)]
    else:
        fitting = [run for run in iterate(results) if fits(reference, run.name)]
    if not fitting:
        return [resolve(reference, results)]  # which says what there is
    done = [run for run in fitting if run.state() == "done"]
    if not done:
        raise UserError(f"'{reference}': none of its {len(fitting)} runs is done", "msdet runs")
    configs = list(dict.fromkeys("/".join(run.path.parts[-3:-1]) for run in done))
    if len(configs) > 1:
        some = ", ".join(configs[:3]) + (", ..." if len(configs) > 3 else "")
        raise UserError(f"'{reference}' fits {len(configs)} configs: {some}", "name one of them")
    return done


def _label(runs: list[RunFolder], chosen: list[list[RunFolder]]) -> str:
    """Return the recipe's name, with the hash where another group has the same name."""
    recipe, digest = runs[0].path.resolve().parts[-3:-1]
    alike = sum(other[0].path.resolve().parts[-3] == recipe for other in chosen)
    return recipe if alike == 1 else f"{recipe}/{digest}"


def _print(groups: list[BreakdownGroup]) -> None:
    from experiments.reporting.breakdown.breakdown_page import remarks
    from experiments.reporting.breakdown.comparison import KINDS, comparison_grid

    console = Console(highlight=False, markup=False)
    for kind in KINDS:
        made = comparison_grid(groups[0], groups[1:], kind)
        if made is not None:
            console.print(made.title, style="bold")
            print_lines(console, made.header, made.rows, right=made.header[made.texts :])
            console.print()
    for other in groups[1:]:
        if len(groups) > 2:
            console.print(f"{other.label}:", soft_wrap=True)
        for text in remarks(groups[0], other):
            console.print(text, soft_wrap=True)


def _as_json(groups: list[BreakdownGroup]) -> dict[str, Any]:
    from experiments.reporting.breakdown.comparison import KINDS, part_difference

    content: dict[str, Any] = {"baseline": groups[0].label, "sides": {}, "differences": {}}
    for one in groups:
        by_seed = {seed: dataclasses.asdict(made) for seed, made in one.by_seed.items()}
        content["sides"][one.label] = {"runs": [str(f) for f in one.folders], "by_seed": by_seed}
    for other in groups[1:]:
        changes = content["differences"].setdefault(other.label, {})
        for kind in KINDS:
            found = {part: part_difference(other, groups[0], kind, part) for part in groups[0].parts(kind)}
            changes[kind] = {part: dataclasses.asdict(c) for part, c in found.items() if c is not None}
    return content


def _draw(groups: list[BreakdownGroup], out: Path) -> None:
    from experiments.reporting.breakdown.breakdown_figures import class_picture, level_picture

    files: dict[str, bytes] = {}
    for other in groups[1:]:
        stem = other.label.replace("/", "-")
        drawn = [
            class_picture(groups[0], other, f"{stem}-classes"),
            level_picture(groups[0], other, f"{stem}-levels"),
        ]
        for picture in filter(None, drawn):
            files |= picture.files()
    write_all(files, out, on_stderr=True)  # standard output may be JSON
