"""Groups of runs that may be averaged."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from experiments.reporting.collect import Run, find_parent, list_metrics, split_by
from experiments.reporting.stats.statistics import Difference, Spread, compute_difference, compute_spread
from experiments.runs.run_flags import IMPORTED, REDUCED, merge_marks

STATES = ("done", "running", "queued", "interrupted", "failed", "cancelled")


@dataclass(frozen=True)
class Group:
    """One recipe on the same data, executed in the same way, each seed once; imported runs never with our own."""

    runs: list[Run]  # at least one, finished or not
    metrics: dict[str, Spread]  # over the finished ones; a metric that none has is absent
    distinguishing_label: str = ""  # what sets it apart from the groups beside it; empty where it is alone

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
        return {run["seed"]: run["metrics"][metric] for run in self.runs if metric in run["metrics"]}

    def marked(self, mark: str) -> list[Run]:
        """Return the runs with a mark, by seed."""
        return [run for run in self._by_seed if mark in run["marks"]]

    def seeds_added_later(self) -> list[int]:
        """Return the seeds planned after another seed had ended: somebody may have looked at the result before.

        A run is planned when its record is made: for all seeds of one command before the first of them begins.
        """
        first = min((run["ended"] for run in self.runs if run["ended"]), default=None)
        return [run["seed"] for run in self._by_seed if first is not None and run["created"] > first]

    @property
    def recipe_id(self) -> str:
        return self.runs[0]["recipe_id"]

    @property
    def fingerprint(self) -> str:
        return self.runs[0]["fingerprint"]

    @property
    def folders(self) -> list[Path]:
        """The run folders, by seed."""
        return [Path(run["path"]) for run in self._by_seed]

    @property
    def finished_folders(self) -> list[Path]:
        """Those of finished runs, by seed."""
        return [Path(run["path"]) for run in self._by_seed if run["state"] == "done"]

    @property
    def configs(self) -> list[Path]:
        """The folders that the run folders lie in, each once."""
        return [Path(path) for path in dict.fromkeys(map(find_parent, self._by_seed))]

    @property
    def patterns(self) -> list[str]:
        """`results/runs/<recipe>/<hash>/seed*`, one for each config."""
        return [(config / "seed*").as_posix() for config in self.configs]

    @functools.cached_property
    def _by_seed(self) -> list[Run]:
        return sorted(self.runs, key=lambda run: run["seed"])

    def counts(self, without: str = "") -> str:
        """Return `2 done, 1 failed`, leaving out the state `without`; empty where no other state is left."""
        return ", ".join(f"{n} {state}" for state, n in self.states.items() if state != without)

    def remark(self) -> str:
        """Return what a reader must know: runs without a result, execution, distinguishing label."""
        texts = [self.counts()] if self.counts(without="done") else []
        if self.execution and "run as" not in self.distinguishing_label:
            texts.append(f"run as {self.execution}")
        if self.distinguishing_label:
            texts.append(self.distinguishing_label)
        if reduced := self.marked(REDUCED):
            texts.append(f"{REDUCED} halved batch: {_list_seeds(reduced)}")
        if self.is_imported:
            texts.append(f"{IMPORTED} imported")
        noted = split_by((run for run in self._by_seed if run["notes"]), lambda run: run["notes"])
        return "; ".join([*texts, *(f"{_list_seeds(runs)}: {runs[0]['notes']}" for runs in noted)])


def _list_seeds(runs: list[Run]) -> str:
    return f"seed {', '.join(str(run['seed']) for run in runs)}"


def group_runs(runs: list[Run]) -> list[Group]:
    """Group runs of a row by recipe, data, trainer and execution; copies of a seed never together.

    A run that never came to load data belongs to those of its recipe and data that most were executed like.
    """
    parts: list[tuple[dict[str, str], list[Run]]] = []
    for alike in split_by(runs, lambda run: (run["recipe_id"], run["fingerprint"], IMPORTED in run["marks"])):
        marks = {"recipe": alike[0]["recipe_id"], "data": alike[0]["fingerprint"][:12] or "unknown"}
        for way, members in _split_by_execution(alike):
            parts += [({**marks, "run as": way, "": copy}, part) for copy, part in _without_copies(members)]
    values = {key: {marks[key] for marks, _ in parts} for key in ("recipe", "data", "run as", "")}
    groups = []
    for marks, part in parts:
        spreads = {
            name: compute_spread(run["metrics"].get(name) for run in part) for name in list_metrics(part)
        }
        label = ", ".join(
            f"{key} {marks[key]}".strip() for key in marks if len(values[key]) > 1 and marks[key]
        )
        groups.append(Group(part, {name: spread for name, spread in spreads.items() if spread}, label))
    return groups


def _split_by_execution(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    """Split runs by execution, with those whose execution is unknown among the most frequent one."""
    known = Counter(run["execution"] for run in runs if run["execution"])
    usual = min(known, key=lambda way: (-known[way], way), default="")
    parts = split_by(runs, lambda run: run["execution"] or usual)
    return [(part[0]["execution"] or usual, part) for part in parts]


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
            place = (find_parent(run), run["seed"])
            copies[place] += 1
            name = f"folder {place[0]}" + (f" (copy {copies[place]})" if copies[place] > 1 else "")
            parts.setdefault(name, []).append(run)
    return list(parts.items())


def compare_groups(group: Group, baseline: Group, metric: str) -> tuple[Difference | None, str]:
    """Return the difference of two groups, and a remark where they were not executed alike.

    An imported run drew other random numbers than ours of the same seed: not paired.
    """
    mine, theirs = group.by_seed(metric), baseline.by_seed(metric)
    if baseline.is_imported != group.is_imported:
        remark = "baseline imported" if baseline.is_imported else "baseline not imported"
        # under seeds that do not match
        return compute_difference(mine, dict(enumerate(theirs.values(), max(mine, default=0) + 1))), remark
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
