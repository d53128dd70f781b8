"""What every format says of a report in the same words: claims, what stands behind a row, names, links."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.reporting.collect import METRICS
from experiments.reporting.groups import Group
from experiments.reporting.sections import Grid, Picture
from experiments.reporting.statistics import Difference, Verdict, signed
from experiments.reporting.tables import Line, MeasuredTable, Report

if TYPE_CHECKING:
    from experiments.reporting.controls import Control

OTHER_TITLE = "Other runs: they fit no row of any table"
AS_PUBLISHED = "full size, as published"
COLUMN_PT = 300  # a column of a two-column paper has about 240
_MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")
VERDICTS: tuple[Verdict, ...] = (
    "gain",
    "loss",
    "within noise",
    "too few seeds",
)  # the order in which claims are listed
RANKS = "Bold is the best value of a block, underlined the second; equal values share the mark."


@dataclass(frozen=True)
class Made:
    """When a report was made, with what, of which results folders."""

    when: datetime
    version: str
    folders: Sequence[Path]


@dataclass(frozen=True)
class Claim:
    """A difference to a baseline, once, however many tables show it.

    Attributes:
        baseline: The baseline row's label.
        tables: Those that show it, the first one first.
    """

    line: Line
    difference: Difference
    baseline: str
    tables: list[MeasuredTable]

    @property
    def metric(self) -> str:
        return self.tables[0].columns[0]

    @property
    def name(self) -> str:
        return label(self.line)

    @property
    def how(self) -> str:
        """`paired, 3 seeds`."""
        seeds = f"{self.difference.n} seed{'' if self.difference.n == 1 else 's'}"
        return f"paired, {seeds}" if self.difference.paired else f"not paired, {seeds}"

    @property
    def context(self) -> str:
        return self.tables[0].common or AS_PUBLISHED

    def __str__(self) -> str:
        where = ", ".join(short_title(table) for table in self.tables)
        text = (
            f"{self.name} ({where}; {self.context}): {self.metric} {self.difference} against {self.baseline}"
        )
        return f"{text}, {self.how}. {controls_in_words(controls_to_show(self.line))}".strip()


def claims(tables: Sequence[MeasuredTable]) -> list[Claim]:
    """All measured differences: those at full size first, by verdict, then in the order of the tables."""
    found: dict[object, Claim] = {}
    for table in tables:
        for line in table.lines:
            if line.difference is None or line.group is None:
                continue
            baselines = [other for other in table.lines if other.row.id == line.row.baseline]
            behind = [path for other in baselines if other.group for path in other.group.folders]
            key = (tuple(line.group.folders), tuple(behind), table.context)
            if key not in found:
                name = label(baselines[0]) if baselines else "its baseline"
                found[key] = Claim(line, line.difference, name, [])
            if table not in found[key].tables:
                found[key].tables.append(table)
    contexts = list(dict.fromkeys(claim.context for claim in found.values()))
    contexts.sort(key=lambda context: context != AS_PUBLISHED)
    return sorted(
        found.values(), key=lambda c: (contexts.index(c.context), VERDICTS.index(c.difference.verdict))
    )


def balance(made: Sequence[Claim]) -> str:
    """How many comparisons came out how, and how many of them chance alone would let stand out."""
    if not made:
        return "No measured row has a measured baseline yet: nothing can be claimed."
    counted = Counter(claim.difference.verdict for claim in made)
    several = {"gain": "gains", "loss": "losses"}
    parts = ", ".join(
        f"{n} {verdict if n == 1 else several.get(verdict, verdict)}"
        for verdict in VERDICTS
        if (n := counted[verdict])
    )
    text = f"{len(made)} {'row is' if len(made) == 1 else 'rows are'} compared with a baseline: {parts}."
    judged = len(made) - counted["too few seeds"]
    if judged > 1:
        text += (
            f" With {judged} intervals at 95 %, {0.05 * judged:.1f} would be expected to leave out 0 even if no"
            " row differed from its baseline."
        )
    return text


def controls_to_show(line: Line) -> list[Control]:
    """All controls beside a gain, run or not; beside anything else those that were run."""
    if line.difference is not None and line.difference.verdict == "gain":
        return list(line.controls)
    return [control for control in line.controls if control.spread is not None]


def controls_in_brief(line: Line) -> str:
    """`above 1 of 2 controls, 2 not run`, for a gain that needs controls; else empty."""
    if not line.controls or line.difference is None or line.difference.verdict != "gain":
        return ""
    run = [control for control in line.controls if control.spread is not None]
    if not run:
        return "its controls were not run"
    above = sum(control.difference is not None and control.difference.verdict == "gain" for control in run)
    absent = len(line.controls) - len(run)
    return f"above {above} of {len(run)} controls" + (f", {absent} not run" if absent else "")


def controls_in_words(controls: Sequence[Control]) -> str:
    """Each control with the row's difference to it, in sentences; empty without any."""
    there = [f"{c.name} {c.difference} ({c.difference.verdict})" for c in controls if c.difference]
    absent = [c.name for c in controls if c.spread is None]
    texts = [f"Minus its controls: {'; '.join(there)}."] if there else []
    if absent:
        texts.append(
            f"{'Controls not run' if there else 'None of its controls was run'}: {'; '.join(absent)}."
        )
    return " ".join(texts)


def control_grid(table: MeasuredTable) -> Grid | None:
    """The controls of all rows of a table that have any."""
    rows = [
        [
            label(line),
            control.name,
            str(control.spread or "not run"),
            str(control.difference or ""),
            control.difference.verdict if control.difference else "",
            " ".join(map(str, control.missing)),
        ]
        for line in table.lines
        for control in controls_to_show(line)
    ]
    metric = table.columns[0]
    header = ["Row", "Control", metric, "Row - control [95 %]", "Verdict", "Seeds missing"]
    return Grid(header, rows, 2, "Controls: the same seeds without what the rule learns") if rows else None


def control_commands(table: MeasuredTable) -> list[str]:
    """What to type for the controls that are missing."""
    commands = [command for line in table.lines for c in controls_to_show(line) for command in c.commands]
    return list(dict.fromkeys(commands))


def row_notes(table: MeasuredTable) -> list[tuple[str, str]]:
    """What stands behind each measured row, its label first; what holds for all of them is said once."""
    lines = [line for line in table.lines if line.group]
    ways = {line.group.execution for line in lines if line.group} - {""}
    shared = f"run as {ways.pop()}" if len(lines) > 1 and len(ways) == 1 else ""
    notes = [(label(line), "; ".join(text for text in evidence(line) if text != shared)) for line in lines]
    common = [("Unless said otherwise", shared)] if shared else []
    return common + [(name, text) for name, text in notes if text]


def evidence(line: Line) -> list[str]:
    """What a reader must know of a measured row beside its number, in phrases."""
    texts = line.remark.split("; ") if line.remark else []
    return texts + differences_in_words(line)


def differences_in_words(line: Line) -> list[str]:
    """The difference seed by seed, its bootstrap interval, and what it would have taken."""
    change, texts = line.difference, []
    if change is not None and change.paired:
        texts.append(f"differences by seed: {', '.join(signed(pair) for pair in change.pairs)}")
        resampled = bootstrap(change)
        if resampled is not None:
            texts.append(f"bootstrap interval [{signed(resampled[0])}, {signed(resampled[1])}]")
    return texts + ([str(line.power)] if line.power else [])


@lru_cache(maxsize=4096)
def bootstrap(change: Difference) -> tuple[float, float] | None:
    """Its bootstrap interval; drawn once, however many tables and formats show it."""
    return change.bootstrap()


def value(line: Line, metric: str, n: bool = True) -> str:
    """`36.9 ± 0.2 (3)†`, or what the row has instead, `no runs`, `2 failed`; "" where other metrics say it."""
    group = line.group
    found = group.metrics.get(metric) if group else None
    if group is None or found is None:
        return ""
    text = str(found) if n else str(found).rpartition(" (")[0]
    return f"{text}{group.marks}"


def absence(line: Line) -> str:
    """Why there is no number, or that some runs gave none: `no runs`, `1 failed`; mostly empty."""
    if line.group is None:
        return line.remark
    return ", ".join(f"{n} {state}" for state, n in line.group.states.items() if state != "done")


def standing(report: Report, folders: Sequence[Path]) -> str:
    """The sentence for a report that has no measured number; empty where it has."""
    where = " and ".join(map(str, folders))
    groups = groups_of(report)
    if any(group.metrics for group in groups):
        return ""
    if report.has_runs:
        states: Counter[str] = Counter()
        for group in groups:
            states.update(group.states)
        counts = f": {', '.join(f'{n} {state}' for state, n in states.items())}" if states else ""
        return f"No run in {where} that belongs here has finished{counts}. Their states, and why: msdet runs"
    if report.problems:
        return f"No run in {where} can be read."
    return f"There are no runs in {where} yet. For a first one: msdet run retinanet-r50-rlo -p tiny"


def groups_of(report: Report) -> list[Group]:
    """Every group of runs in the report, once."""
    lines = [line.group for table in report.tables for line in table.lines if line.group]
    found = {tuple(group.runs["path"]): group for group in [*lines, *(runs.group for runs in report.other)]}
    return list(found.values())


def run_count(report: Report) -> str:
    """`18 runs (17 done, 1 failed)`."""
    states = {path: state for g in groups_of(report) for path, state in zip(g.runs["path"], g.runs["state"])}
    counted = Counter(states.values())
    parts = ", ".join(f"{n} {state}" for state, n in counted.most_common())
    return f"{len(states)} run{'' if len(states) == 1 else 's'}" + (f" ({parts})" if parts else "")


def commits(report: Report) -> list[str]:
    """Of the code that the runs were made by."""
    found = (commit for group in groups_of(report) for commit in group.runs["commit"] if commit)
    return list(dict.fromkeys(found))


def made_line(report: Report, made: Made) -> str:
    """`Made 2026-01-01 10:00 UTC with msdet 0.1.0 from 18 runs in results; code of commit 0123456789ab.`"""
    where, by = ", ".join(map(str, made.folders)), commits(report)
    code = f"; code of commit {', '.join(commit[:12] for commit in by)}" if by else ""
    began = f"Made {made.when:%Y-%m-%d %H:%M} UTC with msdet {made.version}"
    return f"{began} from {run_count(report)} in {where}{code}."


def metrics_of(groups: Iterable[Group]) -> list[str]:
    """All metrics that some group has, in the order in which tables show them."""
    names = dict.fromkeys(name for group in groups for name in group.metrics)
    return sorted(names, key=lambda n: METRICS.index(n) if n in METRICS else len(METRICS))


def label(line: Line) -> str:
    """A row's name, with the paper's own mark of what its authors trained themselves."""
    return line.row.label + ("*" if line.row.reimplemented else "")


def short_title(table: MeasuredTable) -> str:
    """`Table 1`, `Variants of retinanet-r50-rlo`."""
    return table.title.partition(":")[0].partition(", ")[0]


def short_heading(table: MeasuredTable) -> str:
    """The title without its warning in brackets, for lists."""
    return table.title.partition(" (NOT")[0]


def long_name(table: MeasuredTable) -> str:
    """A name that no other table of a report has: `table1`, `table1, profile tiny on shapes`."""
    return table.name if table.common in table.name else f"{table.name}, {table.common}"


def is_first(line: Line, table: MeasuredTable) -> bool:
    """Whether published values belong beside this line: a row with several groups of runs has them once."""
    return line is next(other for other in table.lines if other.row.id == line.row.id)


def published_change(line: Line) -> str:
    return "" if line.published_difference is None else signed(line.published_difference)


def minus(text: str) -> str:
    """With a minus sign before numbers in place of the hyphen, as print has it."""
    return _MINUS.sub("−", text)


def is_wide(picture: Picture) -> bool:
    """Whether a picture is wider than a column of a paper; a page puts the others side by side."""
    width = re.search(r'<svg[^>]*\swidth="([\d.]+)pt"', picture.svg[:2000])
    return width is None or float(width[1]) > COLUMN_PT


def file_name(table: str) -> str:
    """A table's name as the stem of a file, wherever the table came from."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", table).strip(".-") or "table"


def stems(names: Iterable[str], taken: Iterable[str] = ("report", "other-runs")) -> dict[str, str]:
    """Name to stem of a file, no stem twice, whatever the file system thinks of capitals."""
    used, found = {stem.lower() for stem in taken}, {}
    for name in dict.fromkeys(names):
        stem, number = file_name(name), 2
        while stem.lower() in used:
            stem, number = f"{file_name(name)}-{number}", number + 1
        used.add(stem.lower())
        found[name] = stem
    return found


def link(folder: Path, base: Path) -> str:
    """A relative URL from the page's folder; a colon in it is quoted, so that it never names a scheme."""
    relative = _relative(folder.parent, base)
    return urllib.parse.quote(f"{relative}/{folder.name}" if relative != "." else folder.name)


@lru_cache(maxsize=65536)
def _relative(folder: Path, base: Path) -> str:
    """Of a config's folder, which many seeds share: to look for symbolic links takes its time."""
    try:
        return Path(os.path.relpath(folder.resolve(), base.resolve())).as_posix()
    except ValueError:  # another drive
        return folder.resolve().as_posix()
