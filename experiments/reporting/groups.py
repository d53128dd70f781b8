"""Runs that may be averaged, kept apart from those that only look alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.marks import IMPORTED, REDUCED, joined
from experiments.reporting.collect import metric_names
from experiments.reporting.statistics import Difference, Spread, difference, spread

STATES = ("done", "running", "queued", "interrupted", "failed", "cancelled")


@dataclass(frozen=True)
class Group:
    """One recipe on the same data, executed in the same way, each seed once; imported runs never with our own.

    Attributes:
        runs: Rows of the collected frame, finished or not.
        metrics: Over the finished ones; a metric that none has is absent.
        apart: What sets it apart from the groups beside it; empty where it is alone.
    """

    runs: pd.DataFrame
    metrics: dict[str, Spread]
    apart: str = ""

    @property
    def states(self) -> dict[str, int]:
        counted = Counter(self.runs["state"])
        return {state: counted[state] for state in STATES if counted[state]}

    @property
    def execution(self) -> str:
        return next((text for text in self.runs["execution"] if text), "")

    @property
    def marks(self) -> str:
        """What the runs' number is marked with in every table; see `experiments.marks`."""
        return joined(list(self.runs["marks"]))

    @property
    def is_imported(self) -> bool:
        return IMPORTED in self.marks

    def by_seed(self, metric: str) -> dict[int, float]:
        """A metric of the finished runs, by seed; empty where none has it."""
        if metric not in self.runs:
            return {}
        found = self.runs.dropna(subset=[metric])
        return {int(seed): float(value) for seed, value in zip(found["seed"], found[metric])}

    def marked(self, mark: str) -> list[int]:
        """The seeds of the runs with a mark."""
        return sorted(self.runs.loc[self.runs["marks"].str.contains(mark, regex=False), "seed"])

    @property
    def fingerprint(self) -> str:
        return str(self.runs["fingerprint"].iloc[0])

    @property
    def folders(self) -> list[Path]:
        """The run folders, by seed."""
        return [Path(path) for path in self.runs.sort_values("seed")["path"]]

    @property
    def finished_folders(self) -> list[Path]:
        """Those of finished runs, by seed."""
        runs = self.runs.sort_values("seed")
        return [Path(path) for path, state in zip(runs["path"], runs["state"]) if state == "done"]

    def counts(self) -> str:
        """`2 done, 1 failed`."""
        return ", ".join(f"{n} {state}" for state, n in self.states.items())

    def remark(self) -> str:
        """What a reader must know beside the numbers: runs without, how it was run, what sets it apart."""
        counts = "" if set(self.states) == {"done"} else self.counts()
        way = f"run as {self.execution}" if self.execution and "run as" not in self.apart else ""
        return "; ".join(
            text for text in (counts, way, self.apart, *self._marks_in_words(), *self.notes()) if text
        )

    def _marks_in_words(self) -> list[str]:
        reduced = self.marked(REDUCED)
        texts = [f"{REDUCED} halved batch: seed {', '.join(map(str, reduced))}"] if reduced else []
        return texts + ([f"{IMPORTED} imported"] if self.is_imported else [])

    def notes(self) -> list[str]:
        """What the records say that a reader must know, each sentence with the seeds that it is about."""
        about: dict[str, list[str]] = {}
        for seed, notes in sorted(zip(self.runs["seed"], self.runs["notes"])):
            if notes:
                about.setdefault(notes, []).append(str(seed))
        return [f"seed {', '.join(seeds)}: {note}" for note, seeds in about.items()]


def split(runs: pd.DataFrame) -> list[Group]:
    """Groups runs of one table row: by recipe, data, trainer and execution, and copies of a seed never together.

    A run that never came to load data belongs to those of its recipe and data that most were executed like.
    """
    groups: list[tuple[dict[str, str], pd.DataFrame]] = []
    imported = runs["marks"].str.contains(IMPORTED, regex=False)
    for _, alike in runs.groupby(["recipe_id", "fingerprint", imported.rename("imported")], sort=False):
        recipe, data, ways = alike["recipe_id"].iloc[0], alike["fingerprint"].iloc[0], alike["execution"]
        usual = ways[ways != ""].mode()
        ways = ways.where(ways != "", usual.iloc[0] if len(usual) else "")
        for way, members in alike.groupby(ways, sort=False):
            marks = {"recipe": recipe, "data": data[:12] or "unknown", "run as": str(way)}
            for copy, part in _without_copies(members):
                groups.append(({**marks, "folder": copy}, part))
    return [_group(part, _apart(marks, [m for m, _ in groups])) for marks, part in groups]


def _group(runs: pd.DataFrame, apart: str) -> Group:
    found = {name: spread(runs[name]) for name in metric_names(runs)}
    return Group(runs, {name: s for name, s in found.items() if s is not None}, apart)


def _without_copies(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs as one part where every seed is there once; else one part per folder and copy, named by it."""
    if not runs["seed"].duplicated().any():
        return [("", runs)]
    parents = runs["path"].map(lambda path: Path(path).parent.as_posix())
    copies = runs.groupby([parents, runs["seed"]]).cumcount()
    return [
        (parent if copy == 0 else f"{parent} (copy {copy + 1})", part)
        for (parent, copy), part in runs.groupby([parents, copies], sort=False)
    ]


def _apart(marks: dict[str, str], all_marks: list[dict[str, str]]) -> str:
    """Those marks in which the groups differ."""
    differing = [key for key in marks if len({other[key] for other in all_marks}) > 1 and marks[key]]
    return ", ".join(f"{key} {marks[key]}" for key in differing)


def against(group: Group, baselines: list[Group], metric: str) -> tuple[Difference | None, str]:
    """The difference of a group to its baseline row, and a remark where the two were not executed alike.

    Only a baseline on the same data is compared; among several the one trained by the same program, executed alike
    and with most seeds in common. An imported run drew other random numbers than ours of the same seed: not paired.
    """
    candidates = [b for b in baselines if b.fingerprint == group.fingerprint and metric in b.metrics]
    if metric not in group.metrics or not candidates:
        return None, ""
    mine = group.by_seed(metric)
    best = min(
        candidates,
        key=lambda b: (
            b.is_imported != group.is_imported,
            b.execution != group.execution,
            -len(mine.keys() & b.by_seed(metric).keys()),
            -b.metrics[metric].n,
        ),
    )
    theirs = best.by_seed(metric)
    if best.is_imported != group.is_imported:
        remark = "baseline imported" if best.is_imported else "baseline not imported"
        return difference(_renumbered(mine, 0), _renumbered(theirs, len(mine))), remark
    remarks = [f"baseline run as {best.execution}"] if best.execution not in ("", group.execution) else []
    change = difference(mine, theirs)
    if change is not None:
        remarks += _left_out(change, len(mine), len(theirs))
    return change, "; ".join(remarks)


def _renumbered(values: dict[int, float], first: int) -> dict[int, float]:
    """With seeds that match nobody's."""
    return dict(enumerate(values.values(), start=first))


def _left_out(change: Difference, mine: int, theirs: int) -> list[str]:
    if change.paired:
        alone = mine + theirs - 2 * change.n
        return [f"Δ over the {change.n} seeds that both have"] if alone else []
    return ["no two seeds match: Δ unpaired"] if mine > 1 and theirs > 1 else []
