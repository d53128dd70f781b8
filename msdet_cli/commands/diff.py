"""`msdet diff`: what sets two runs apart."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from rich.text import Text

from experiments.common.printable import printable
from experiments.runs.lookup import resolve
from experiments.runs.run_folder import RunFolder
from msdet_cli.completion import complete_runs
from msdet_cli.console.output import make_console, print_json, print_line
from msdet_cli.options import RESULTS, JsonOpt, ResultsOpt, argument

if TYPE_CHECKING:
    from experiments.reporting.run_diff import Change

MAX_VALUE_CHARACTERS = 70  # on the console; --json has all


def diff(
    first: Annotated[str, argument("RUN", "A run, or the path of its folder.", complete_runs)],
    second: Annotated[str, argument("RUN", "Another; from any results folder, by path.", complete_runs)],
    as_json: JsonOpt = False,
    results: ResultsOpt = RESULTS,
) -> None:
    """Show what differs between two runs, and nothing that is equal.

    Recipe (or, where that is the same, config), data, code, environment, execution and result.

    \b
    msdet diff retinanet-r50/1a2b3c4d/seed0 retinanet-r50-rlo/5e6f7a8b/seed0
    msdet diff 1a2b3c4d/seed0 /other/results/runs/retinanet-r50/1a2b3c4d/seed0
    """
    from experiments.reporting.run_diff import run_diff

    runs = [resolve(reference, results) for reference in (first, second)]
    sections = run_diff(*runs)
    if as_json:
        differences = {name: [dataclasses.asdict(c) for c in changes] for name, changes in sections.items()}
        print_json({"runs": [str(run.path) for run in runs], "differences": differences})
    else:
        _print(runs, sections)


def _print(runs: list[RunFolder], sections: dict[str, list[Change]]) -> None:
    console = make_console()
    for sign, run in zip(("-", "+"), runs):
        print_line(console, printable(f"{sign} {run.path}"))
    if not sections:
        print_line(console, "No difference in recipe, config, data, code, environment, execution or result.")
    for name, changes in sections.items():
        console.print()
        console.print(Text(name, "bold"))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        for _ in range(3):
            grid.add_column(overflow="fold")
        for change in changes:
            grid.add_row(
                Text(printable(f"  {change.key}")),
                Text(printable(f"{_shown(change.old)} → {_shown(change.new)}")),
                Text(printable(change.remark), "dim"),
            )
        console.print(grid)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        text = f"{value:.8g}"
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[: MAX_VALUE_CHARACTERS - 4]} ..."
