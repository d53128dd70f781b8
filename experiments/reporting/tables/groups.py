"""Groups of runs that may be averaged."""

from __future__ import annotations

import functools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from experiments.reporting.collect import Run, list_metrics
from experiments.reporting.stats.statistics import Difference, Spread, compute_difference, compute_spread
from experiments.runs.run_flags import IMPORTED, REDUCED, merge_marks

STATES = ("done", "running", "queued", "interrupted", "failed", "cancelled")


@dataclass(frozen=True)
class Group:
    """One recipe on the same data, executed in the same way, each seed once; imported runs never with our own.

    Attributes:
        runs: At least one, finished or not.
        metrics: Over the finished ones; a metric that none has is absent.
        distinguishing_label: What sets it apart from the groups beside it; empty where it is alone.
    """

    runs: list[Run]
    metrics: dict[str, Spread]
    distinguishing_label: str = ""

    @property
    def states(self) -> dict[str, int]:
        counted = Counter(run["state"] for run in self.runs)
        return {state: counted[state] for state in STATES if counted[state]}

    @property
    def execution(self) -> str:
        return next((run["execution"] for run in self.runs if run["execution"]), "")

    @functools.cached_property
    def marks(self) -> str:
        """What the runs' number is marked with in every table; see `experiments.runs.run_flags`."""
        return merge_marks({run["marks"] for run in self.runs})

    @property
    def is_imported(self) -> bool:
        return IMPORTED in self.marks

    def by_seed(self, metric: str) -> dict[int, float]:
        """Return a metric of the finished runs by seed; empty where none has it."""
        return {run["seed"]: run[metric] for run in self.runs if metric in run}

    def marked(self, mark: str) -> list[int]:
        """Return the seeds of the runs with a mark."""
        return sorted(run["seed"] for run in self.runs if mark in run["marks"])

    def seeds_added_later(self) -> list[int]:
        """Return the seeds planned after another seed had ended: somebody may have looked at the result before.

        A run is planned when its record is made: for all seeds of one command before the first of them begins.
        """
        first = min((run["ended"] for run in self.runs if run["ended"]), default=None)
        return sorted(run["seed"] for run in self.runs if first is not None and run["created"] > first)

    @property
    def recipe_id(self) -> str:
        return self.column("recipe_id")

    @property
    def fingerprint(self) -> str:
        return self.column("fingerprint")

    @property
    def folders(self) -> list[Path]:
        """The run folders, by seed."""
        return [Path(path) for _, path, _ in self._in_order()]

    @property
    def finished_folders(self) -> list[Path]:
        """Those of finished runs, by seed."""
        return [Path(path) for _, path, state in self._in_order() if state == "done"]

    @property
    def configs(self) -> list[Path]:
        """The folders that the run folders lie in, each once."""
        parents = (path.rpartition(os.sep)[0] for _, path, _ in self._in_order())
        return [Path(path) for path in dict.fromkeys(parents)]

    @property
    def patterns(self) -> list[str]:
        """`results/runs/<recipe>/<hash>/seed*`, one for each config."""
        return [(config / "seed*").as_posix() for config in self.configs]

    def _in_order(self) -> list[tuple[int, str, str]]:
        """Return seed, path and state, by seed."""
        return sorted((run["seed"], run["path"], run["state"]) for run in self.runs)

    def counts(self) -> str:
        """Return `2 done, 1 failed`."""
        return ", ".join(f"{n} {state}" for state, n in self.states.items())

    def describe_absence(self) -> str:
        """Return which runs gave no number: `1 failed`; mostly empty."""
        return ", ".join(f"{n} {state}" for state, n in self.states.items() if state != "done")

    def column(self, name: str) -> str:
        """Return what the first run has in a column of text: recipe, profile, dataset, config_hash."""
        return str(self.runs[0][name])

    def remark(self) -> str:
        """Return what a reader must know: runs without a result, execution, distinguishing label."""
        counts = "" if set(self.states) == {"done"} else self.counts()
        way = (
            f"run as {self.execution}" if self.execution and "run as" not in self.distinguishing_label else ""
        )
        return "; ".join(
            text
            for text in (counts, way, self.distinguishing_label, *self._marks_in_words(), *self.notes())
            if text
        )

    def _marks_in_words(self) -> list[str]:
        reduced = self.marked(REDUCED)
        texts = [f"{REDUCED} halved batch: seed {', '.join(map(str, reduced))}"] if reduced else []
        return texts + ([f"{IMPORTED} imported"] if self.is_imported else [])

    def notes(self) -> list[str]:
        """Return the records' notes, each with the seeds that it is about."""
        about: dict[str, list[str]] = {}
        for seed, notes in sorted((run["seed"], run["notes"]) for run in self.runs):
            if notes:
                about.setdefault(notes, []).append(str(seed))
        return [f"seed {', '.join(seeds)}: {note}" for note, seeds in about.items()]


def group_runs(runs: list[Run]) -> list[Group]:
    """Group runs of a row by recipe, data, trainer and execution; copies of a seed never together.

    A run that never came to load data belongs to those of its recipe and data that most were executed like.
    """
    if not runs:
        return []
    groups: list[tuple[dict[str, str], list[Run]]] = []
    for (recipe, data, _, way), members in _alike(runs).items():
        marks = {"recipe": recipe, "data": data[:12] or "unknown", "run as": way}
        groups += [
            ({**marks, "": copy}, part) for copy, part in _without_copies([runs[place] for place in members])
        ]
    differing = [key for key in groups[0][0] if len({marks[key] for marks, _ in groups}) > 1]
    return [
        _group(
            part,
            ", ".join(f"{key} {marks[key]}".strip() for key in differing if marks[key]),
        )
        for marks, part in groups
    ]


def _alike(runs: list[Run]) -> dict[tuple[str, str, bool, str], list[int]]:
    """Return places of runs by recipe, data, whether imported, and execution, in their order."""
    ways = [run["execution"] for run in runs]
    keys = [(run["recipe_id"], run["fingerprint"], IMPORTED in run["marks"]) for run in runs]
    known = Counter((key, way) for key, way in zip(keys, ways) if way)
    usual: dict[tuple[str, str, bool], str] = {}
    for (key, way), _ in sorted(known.items(), key=lambda item: (-item[1], item[0][1])):
        usual.setdefault(key, way)
    found: dict[tuple[str, str, bool, str], list[int]] = {}
    for place, (key, way) in enumerate(zip(keys, ways)):
        found.setdefault((*key, way or usual.get(key, "")), []).append(place)
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    return dict(sorted(found.items(), key=lambda item: (first[item[0][:3]], item[1][0])))


def _group(runs: list[Run], distinguishing_label: str) -> Group:
    found = {name: compute_spread(run.get(name) for run in runs) for name in list_metrics(runs)}
    return Group(runs, {name: s for name, s in found.items() if s is not None}, distinguishing_label)


def _without_copies(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    """Split runs so that each part has a seed once; none of a seed's copies joins the seeds without a copy.

    Which of several copies counts cannot be known here. Those with copies are split by folder and copy.
    """
    counted = Counter(run["seed"] for run in runs)
    alone = [run for run in runs if counted[run["seed"]] == 1]
    if len(alone) == len(runs):
        return [("", runs)]
    parts = {"seeds without a copy": alone} if alone else {}
    copies: Counter[tuple[str, int]] = Counter()
    for run in runs:
        if counted[run["seed"]] > 1:
            parent = run["path"].rpartition(os.sep)[0]
            copies[parent, run["seed"]] += 1
            copy = copies[parent, run["seed"]]
            name = f"folder {parent}" + (f" (copy {copy})" if copy > 1 else "")
            parts.setdefault(name, []).append(run)
    return list(parts.items())


def compare_groups(group: Group, baseline: Group, metric: str) -> tuple[Difference | None, str]:
    """Return the difference of two groups, and a remark where they were not executed alike.

    An imported run drew other random numbers than ours of the same seed: not paired.
    """
    mine, theirs = group.by_seed(metric), baseline.by_seed(metric)
    if baseline.is_imported != group.is_imported:
        remark = "baseline imported" if baseline.is_imported else "baseline not imported"
        return compute_difference(_renumbered(mine, 0), _renumbered(theirs, len(mine))), remark
    other_way = baseline.execution not in ("", group.execution)
    remarks = [f"baseline run as {baseline.execution}"] if other_way else []
    change = compute_difference(mine, theirs)
    if change is not None and change.paired:
        if len(mine) + len(theirs) > 2 * change.n:
            remarks.append(f"Δ over the {change.n} seeds that both have")
    elif change is not None and len(mine) > 1 and len(theirs) > 1:
        remarks.append("no two seeds match: Δ unpaired")
    return change, "; ".join(remarks)


def select_baseline(group: Group, baselines: list[Group], metric: str) -> Group | None:
    """Return the baseline runs to compare a group with; None where either side has no result.

    Only those on the same data; among several groups the one trained by the same program, executed alike and with
    most seeds in common.
    """
    candidates = [b for b in baselines if b.fingerprint == group.fingerprint and metric in b.metrics]
    if metric not in group.metrics or not candidates:
        return None
    mine = group.by_seed(metric)
    return min(
        candidates,
        key=lambda b: (
            b.is_imported != group.is_imported,
            b.execution != group.execution,
            -len(mine.keys() & b.by_seed(metric).keys()),
            -b.metrics[metric].n,
        ),
    )


def _renumbered(values: dict[int, float], first: int) -> dict[int, float]:
    """Return values under seeds that match nobody's."""
    return dict(enumerate(values.values(), start=first))
