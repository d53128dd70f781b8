"""The figures of a report: a set for each context, and Figure 4 for each machine with a bench."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.common.errors import UserError
from experiments.recipes import loading as recipes
from experiments.recipes.schema import Recipe
from experiments.reporting.bench.results import newest
from experiments.reporting.figures import traces as trace_files
from experiments.reporting.figures.forest import differences
from experiments.reporting.figures.levels import level_curves
from experiments.reporting.figures.policy import policy
from experiments.reporting.figures.sweeps import curves
from experiments.reporting.figures.timing import ap_against_time, inference_time
from experiments.reporting.tables.matching import Context
from experiments.reporting.tables.report_model import MeasuredTable, Report
from experiments.reporting.tables.sections import Picture, Section
from experiments.runs.run_folder import RunFolder

MAX_TABLES = 12  # of one context that are drawn: what a page can bear


def sections(report: Report, bench: Sequence[dict[str, Any]]) -> list[Section]:
    """Return the figures of a report; a set with nothing to draw is left out.

    Args:
        bench: As `experiments.reporting.bench.read` gives it.
    """
    contexts: dict[Context | None, list[MeasuredTable]] = {}
    for table in report.tables:
        contexts.setdefault(table.context, []).append(table)
    names = Names()
    made = [_of_context(tables, names) for tables in contexts.values()]
    return [section for section in (*made, _of_bench(report, bench, names)) if section is not None]


def pictures_of_runs(folders: Sequence[Path], name: str) -> tuple[list[Picture], list[str]]:
    """Draw level curves and policy of one config's runs, by head; return problems of traces, too.

    Args:
        name: Stem of the pictures' names.
    """
    traces, what = trace_files.read(folders), _whose(folders)
    pictures = []
    for head in traces.heads:
        of, stem, whose = traces.of(head), name, what
        if len(traces.heads) > 1:
            stem, whose = f"{name}-{head}", f"{what}, {head}"
        found = (level_curves(of, f"{stem}-levels", whose), policy(of, f"{stem}-policy", whose))
        pictures += [picture for picture in found if picture is not None]
    return pictures, traces.problems


def _whose(folders: Sequence[Path]) -> str:
    """Return `retinanet-r50-rlo (bae2048e: rlo, alpha 10, n 2; profile tiny on shapes)`."""
    recipe, digest = folders[0].parts[-3:-1]
    own = _recipe_of(folders)
    if own is None:
        return f"{recipe} ({digest})"
    options = [f"{key} {own.weighting[key]}" for key in ("alpha", "n", "gamma") if key in own.weighting]
    rule = ", ".join([str(own.weighting.get("rule")), *options])
    where = f"profile {own.profile} on {own.dataset.name}" if own.profile else own.dataset.name
    return f"{recipe} ({digest}: {rule}; {where})"


def _recipe_of(folders: Sequence[Path]) -> Recipe | None:
    """Return the first of the runs' recipes that can be read; None where none can be."""
    for folder in folders:
        with contextlib.suppress(UserError):
            return recipes.load_recipe(str(RunFolder(folder).recipe.resolve()))
    return None


def _of_context(tables: Sequence[MeasuredTable], names: Names) -> Section | None:
    drawn = [table for table in tables if table.folders]
    pictures: list[Picture] = []
    for table in drawn[:MAX_TABLES]:
        stem = names.new(f"{table.name}-{table.common}" if table.common not in table.name else table.name)
        forest = differences(table, f"{stem}-differences") if _says_more(table, drawn) else None
        pictures += [forest] if forest is not None else []
        pictures += curves(table, stem)
    texts = []
    if len(drawn) > MAX_TABLES:
        texts.append(
            f"Figures of the first {MAX_TABLES} tables; {len(drawn) - MAX_TABLES} more are not drawn."
        )
    of_training, problems, folders = _training(drawn, names)
    texts += problems
    if not pictures and not of_training and not texts:
        return None
    common = tables[0].common
    return Section(
        "Figures" + (f", {common}" if common else ""), texts, (), [*pictures, *of_training], folders
    )


def _training(tables: Iterable[MeasuredTable], names: Names) -> tuple[list[Picture], list[str], list[Path]]:
    """Draw the trainings of a baseline and of RLO, of the first table that has both."""
    all_problems: list[str] = []
    for table in tables:
        for row in table.rows:
            if row.group is None or row.baseline is None or not row.is_rlo:
                continue
            pictures, folders = [], []
            for group in (row.baseline, row.group):
                recipe, digest = (str(group.runs[column].iloc[0]) for column in ("recipe", "config_hash"))
                own = group.finished_folders
                drawn, problems = pictures_of_runs(own, names.new(f"{recipe}-{digest}"))
                pictures += drawn
                folders += own
                all_problems += [problem for problem in problems if problem not in all_problems]
            if pictures:
                return pictures, all_problems, folders
    return [], all_problems, []


def _of_bench(report: Report, bench: Sequence[dict[str, Any]], names: Names) -> Section | None:
    pictures = []
    for part in newest(bench, "inference"):
        stem = names.new(f"fig4-{part['host']}-{part['result']['device']}")
        pictures.append(inference_time(part, f"{stem}-time"))
        against = ap_against_time(part, report, f"{stem}-ap")
        pictures += [against] if against is not None else []
    return Section("Figure 4: inference time", (), (), pictures) if pictures else None


def _says_more(table: MeasuredTable, tables: Sequence[MeasuredTable]) -> bool:
    """Return whether no other table shows all of its differences, nor an earlier one the same."""
    own, before = _compared(table), True
    for other in tables if table.context is not None else ():
        if other is table:
            before = False
        elif own < (theirs := _compared(other)) or (before and own == theirs):
            return False
    return True


def _compared(table: MeasuredTable) -> set[tuple[Path, Path]]:
    """Return the configs that have a difference, each with that of its baseline."""
    pairs = [(row.group, row.baseline) for row in table.rows]
    return {(one.folders[0].parent, base.folders[0].parent) for one, base in pairs if one and base}


class Names:
    """Stems of file names, each used once."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def new(self, text: str) -> str:
        stem = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure"
        name, number = stem, 2
        while name in self.used:
            name, number = f"{stem}-{number}", number + 1
        self.used.add(name)
        return name
