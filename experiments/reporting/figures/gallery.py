"""Which figures a report gets: a set for each context of its tables, and Figure 4 for each machine with a bench."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments import recipes
from experiments.errors import UserError
from experiments.recipes import Recipe
from experiments.reporting.bench import newest
from experiments.reporting.figures import traces as trace_files
from experiments.reporting.figures.forest import differences
from experiments.reporting.figures.levels import level_curves
from experiments.reporting.figures.policy import policy
from experiments.reporting.figures.sweeps import curves
from experiments.reporting.figures.timing import ap_against_time, inference_time
from experiments.reporting.groups import Group
from experiments.reporting.matching import Context
from experiments.reporting.sections import Picture, Section
from experiments.reporting.tables import Line, MeasuredTable, Report
from experiments.runs import RunFolder

MOST_TABLES = 12  # of one context that are drawn: what a page can bear


def sections(report: Report, bench: Sequence[dict[str, Any]]) -> list[Section]:
    """The figures of a report; a set with nothing to draw is not there.

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
    """Level curves and policy of the runs of one config, each head apart; and what is wrong with their traces.

    Args:
        name: Stem of the pictures' names.
    """
    traces, what = trace_files.read(folders), _whose(folders[0])
    pictures = []
    for head in traces.heads:
        of, stem, whose = traces.of(head), name, what
        if len(traces.heads) > 1:
            stem, whose = f"{name}-{head}", f"{what}, {head}"
        found = (level_curves(of, f"{stem}-levels", whose), policy(of, f"{stem}-policy", whose))
        pictures += [picture for picture in found if picture is not None]
    return pictures, traces.problems


def _whose(folder: Path) -> str:
    """`retinanet-r50-rlo (bae2048e: rlo, alpha 10, n 2; profile tiny on shapes)`: as a caption must name runs."""
    recipe, digest = folder.parts[-3:-1]
    try:
        own = _recipe(folder)
    except UserError:
        return f"{recipe} ({digest})"
    options = [f"{key} {own.weighting[key]}" for key in ("alpha", "n", "gamma") if key in own.weighting]
    rule = ", ".join([str(own.weighting.get("rule")), *options])
    where = f"profile {own.profile} on {own.dataset.name}" if own.profile else own.dataset.name
    return f"{recipe} ({digest}: {rule}; {where})"


def _recipe(folder: Path) -> Recipe:
    """What a run was started from.

    Raises:
        UserError: Its page is lost or wrong.
    """
    return recipes.load_recipe(str(RunFolder(folder).recipe.resolve()))


def _of_context(tables: Sequence[MeasuredTable], names: Names) -> Section | None:
    drawn = [table for table in tables if table.folders]
    pictures: list[Picture] = []
    seen: set[str] = set()
    for table in drawn[:MOST_TABLES]:
        stem = names.new(f"{table.name}-{table.common}" if table.common not in table.name else table.name)
        compared = {f"{line.row.baseline} {folder}" for line in table.lines for folder in _folders_of(line)}
        if not compared <= seen and (forest := differences(table, f"{stem}-differences")) is not None:
            pictures.append(forest)
        seen |= compared
        pictures += curves(table, stem)
    texts = []
    if len(drawn) > MOST_TABLES:
        texts.append(
            f"Figures of the first {MOST_TABLES} tables; {len(drawn) - MOST_TABLES} more are not drawn."
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
    """What went on in the trainings of a baseline and of RLO: of the first table that has both."""
    all_problems: list[str] = []
    for table in tables:
        for line in table.lines:
            base = _baseline(table, line)
            if line.group is None or base is None or not _is_rlo(line.group):
                continue
            pictures, folders = [], []
            for group in (base, line.group):
                recipe, digest = (str(group.runs[column].iloc[0]) for column in ("recipe", "config_hash"))
                own = _with_results(group)
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


def _folders_of(line: Line) -> list[Path]:
    return line.group.folders if line.group is not None and line.difference is not None else []


def _baseline(table: MeasuredTable, line: Line) -> Group | None:
    """The runs that a line is compared with, as far as the table shows them."""
    if line.group is None or line.row.baseline is None:
        return None
    groups = [other.group for other in table.lines if other.row.id == line.row.baseline]
    return next((g for g in groups if g is not None and g.fingerprint == line.group.fingerprint), None)


def _is_rlo(group: Group) -> bool:
    """Whether its rule is RLO, and learns: gamma = 0 is a control."""
    try:
        weighting = _recipe(group.folders[0]).weighting
    except UserError:
        return False
    return weighting.get("rule") == "rlo" and weighting.get("gamma") != 0


def _with_results(group: Group) -> list[Path]:
    """The folders of its finished runs; of all while none is."""
    runs = group.runs.sort_values("seed")
    done = [Path(path) for path, state in zip(runs["path"], runs["state"]) if state == "done"]
    return done or group.folders


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
