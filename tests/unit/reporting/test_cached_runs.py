"""What a report keeps of the files it has read: with it, without it and with it spoilt, a report says the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.common import cache
from experiments.recipes import loading as recipes
from experiments.reporting import build_report, collect
from experiments.reporting.collect import Collected
from experiments.reporting.tables.matching import Matcher
from experiments.runs.lookup import iterate
from experiments.runs.record import Attempt
from experiments.runs.run_folder import RunFolder

from .conftest import MakeRun

BASE, RLO = "retinanet-r50", "retinanet-r50-rlo"
HOUR = 3600


@pytest.fixture(autouse=True)
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the results folder's facts, in a cache of the test's own where a few are worth a file."""
    monkeypatch.setattr(cache, "MIN_FACTS", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache._file(["runs", str(tmp_path / "results")])


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as left alone as soon as they are written."""
    monkeypatch.setattr(cache, "_MIN_AGE_S", -HOUR)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs whose record or recipe is read, as it is read."""
    names: list[str] = []
    read, resolved = RunFolder.read, recipes.load_resolved

    def counted(run: RunFolder):
        names.append(run.name)
        return read(run)

    def counted_page(path: Path):
        names.append(f"{RunFolder(path.parent).name}/{path.name}")
        return resolved(path)

    monkeypatch.setattr(RunFolder, "read", counted)
    monkeypatch.setattr(recipes, "load_resolved", counted_page)
    return names


def fresh(results: Path) -> Collected:
    """As collected without a cache."""
    os.environ["MSDET_NO_CACHE"] = "1"
    try:
        return collect(results)
    finally:
        del os.environ["MSDET_NO_CACHE"]


def same(one: Collected, two: Collected) -> bool:
    return repr(one.runs) == repr(two.runs) and one.problems == two.problems  # of numbers that may be NaN


def rewrite(run: RunFolder, **changes: object) -> None:
    record = run.read()
    run.write(record.model_copy(update=changes))


@pytest.mark.usefixtures("settled")
def test_what_has_not_changed_is_not_read_again(make_run: MakeRun, results: Path, reads: list[str]):
    one, two = (make_run(RLO, seed, {"AP": 50.0 + seed}, profile="tiny") for seed in (0, 1))
    first = collect(results)
    Matcher(first).save()
    assert reads == [one.name, two.name, f"{one.name}/recipe.yaml"]
    reads.clear()
    again = collect(results)
    matcher = Matcher(again)
    assert reads == []
    assert same(again, first)
    own = matcher.recipe_by_id[again.runs[0]["recipe_id"]]
    page = recipes.load_recipe(str(one.recipe))
    assert own == page
    assert recipes.compute_recipe_id(own) == recipes.compute_recipe_id(page) == one.read().recipe_id
    assert own.weighting["alpha"] == 10


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("seed", range(3))
def test_random_changes_show_at_once(make_run: MakeRun, results: Path, seed: int, entry: Path):
    """Adding, removing, rewriting, damaging and repairing records, in any order."""
    chance = random.Random(seed)
    texts: dict[Path, str] = {}
    number = 0
    for _ in range(20):
        runs = list(iterate(results))
        move = chance.choice(
            ["add", "add", "add", "remove", "rewrite", "damage", "repair", "in place", "newer"]
        )
        if move == "add" or not runs:
            status = chance.choice(["done", "done", "failed", "running", "interrupted"])
            make_run(chance.choice([BASE, RLO]), number, {"AP": chance.random()}, status=status)
            number += 1
            continue
        run = chance.choice(runs)
        text = run.record_file.read_text(encoding="utf-8")
        if move == "remove":
            shutil.rmtree(run.path)
        elif move == "damage":
            texts[run.path] = text
            run.record_file.write_text(text[: len(text) // 2], encoding="utf-8")
        elif move == "repair" and run.path in texts:
            run.record_file.write_text(texts[run.path], encoding="utf-8")
        elif move == "in place":  # of the same size, in the same file, and its time set back
            before = run.record_file.stat()
            run.record_file.write_text(
                text.replace('"iterations": 400', '"iterations": 500'), encoding="utf-8"
            )
            os.utime(run.record_file, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif move == "newer":
            run.record_file.write_text(
                text.replace('"schema_version": 2', '"schema_version": 9'), encoding="utf-8"
            )
        elif move == "rewrite" and text.endswith("}\n") and '"schema_version": 2' in text:
            rewrite(run, status=chance.choice(["done", "failed", "running"]), metrics={"AP": chance.random()})
        assert same(collect(results), fresh(results)), move
    assert entry.exists()


def test_what_was_written_a_moment_ago_is_read_again(
    make_run: MakeRun, results: Path, reads: list[str], entry: Path
):
    make_run(RLO, 0, {"AP": 50.0})
    collect(results)
    collect(results)
    assert len(reads) == 2
    assert not entry.exists()


@pytest.mark.usefixtures("settled")
def test_live_runs_are_looked_at_each_time(make_run: MakeRun, results: Path, reads: list[str]):
    lived = Attempt(started="2026-01-01T10:00:00+00:00", host=socket.gethostname(), pid=os.getpid())
    dead = lived.model_copy(update={"pid": 2**22 + 1})
    far = lived.model_copy(update={"host": "elsewhere"})
    runs = [make_run(RLO, seed, status="running") for seed in range(3)]
    for run, attempt in zip(runs, (lived, dead, far)):
        rewrite(run, attempts=[attempt])
    runs[2].progress.write_text("{}", encoding="utf-8")
    queued = make_run(RLO, 3, status="queued")
    reads.clear()
    assert [run["state"] for run in collect(results).runs] == ["running", "interrupted", "running", "queued"]
    os.utime(runs[2].progress, (time.time() - HOUR,) * 2)  # its heart stops; no record changes
    rewrite(queued, queue={"host": socket.gethostname(), "pid": 2**22 + 1, "pid_started": None})
    reads.clear()
    assert [run["state"] for run in collect(results).runs] == [
        "running",
        "interrupted",
        "interrupted",
        "interrupted",
    ]
    assert len(reads) == 4


def flip(path: Path) -> None:
    """One digit of a result in the cache changes, which stays JSON."""
    text = path.read_text(encoding="utf-8")
    assert "50.25" in text
    path.write_text(text.replace("50.25", "51.25"), encoding="utf-8")


def rewrite_entry(path: Path, change: Callable[[dict], None]) -> None:
    """The content changes, with a checksum that fits."""
    head, body = path.read_text(encoding="utf-8").splitlines()
    content = json.loads(body)
    change(content)
    text = json.dumps(content)
    head = json.dumps({**json.loads(head), "digest": cache._digest(text.encode())})
    path.write_text(f"{head}\n{text}\n", encoding="utf-8")


def other_code(path: Path) -> None:
    def change(content: dict) -> None:
        content["answer"]["version"] = "0" * 16
        for _, row in content["answer"]["facts"].values():
            row["metrics"]["AP"] = 51.25

    rewrite_entry(path, change)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "spoil",
    [
        flip, other_code, lambda path: rewrite_entry(path, lambda content: content.update(answer=[1])),
        lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\xff\n\x00"),
        lambda path: path.write_bytes(path.read_bytes()[:-20]), lambda path: path.write_text("[]\n{}"),
        lambda path: (path.unlink(), path.mkdir()), lambda path: path.unlink(),
    ],
)  # fmt: skip
def test_a_spoilt_cache_changes_nothing(
    make_run: MakeRun, results: Path, spoil: Callable[[Path], object], entry: Path
):
    make_run(RLO, 0, {"AP": 50.25})
    first = collect(results)
    spoil(entry)
    assert same(collect(results), first)
    if entry.is_file():
        assert "50.25" in entry.read_text(encoding="utf-8")  # made anew


@pytest.mark.usefixtures("settled")
def test_a_cache_that_may_not_be_written_changes_nothing(
    make_run: MakeRun, results: Path, monkeypatch: pytest.MonkeyPatch
):
    make_run(RLO, 0, {"AP": 50.0})

    def refused(*_: object, **__: object):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("experiments.common.files.tempfile.mkstemp", refused)
    assert [run["metrics"]["AP"] for run in collect(results).runs] == [50.0]
    assert [path.name for path in results.iterdir()] == ["runs"]


@pytest.mark.usefixtures("settled")
def test_a_few_runs_get_no_file(
    make_run: MakeRun, results: Path, entry: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "MIN_FACTS", 2)
    make_run(RLO, 0, {"AP": 50.0})
    collect(results)
    assert not entry.exists()
    make_run(RLO, 1, {"AP": 50.0})
    collect(results)
    assert entry.exists()


@pytest.mark.usefixtures("settled")
def test_what_is_gone_leaves_the_cache(make_run: MakeRun, results: Path, entry: Path):
    one, two = (make_run(RLO, seed, {"AP": 50.0}) for seed in (0, 1))
    found = collect(results)
    Matcher(found).save()
    shutil.rmtree(one.path)
    collect(results)
    kept = json.loads(entry.read_text(encoding="utf-8").splitlines()[1])["answer"]["facts"]
    assert list(kept) == [f"{two.name}/record.json"]


@pytest.mark.usefixtures("settled")
def test_a_recipe_that_rests_on_other_files_is_read_each_time(
    make_run: MakeRun, results: Path, tmp_path: Path
):
    run = make_run(RLO, 0, {"AP": 50.0})
    base = tmp_path / "base.yaml"
    base.write_text(run.recipe.read_text(encoding="utf-8"), encoding="utf-8")
    run.recipe.write_text(f"extends: {base}\nname: mine\n", encoding="utf-8")
    digest = run.read().recipe_id
    for gamma in (0.01, 0.25):
        text = base.read_text(encoding="utf-8").replace("gamma: 0.01", f"gamma: {gamma}")
        base.write_text(text, encoding="utf-8")
        found = collect(results)
        assert Matcher(found).recipe_by_id[digest].weighting["gamma"] == gamma


@pytest.mark.usefixtures("settled")
def test_traces_are_read_once_and_again_when_they_change(make_run: MakeRun, results: Path):
    runs = [make_run(RLO, seed, {"AP": 50.0}) for seed in (0, 1)]

    def write(run: RunFolder, weight: float) -> None:
        rows = [f"1,100,bbox_head,{level},{weight}\n" for level in ("P3", "P4")]
        run.trace.write_text("interval,iteration,head,level,weight\n" + "".join(rows), encoding="utf-8")

    def means() -> list[list[float]]:
        found = collect(results)
        matcher = Matcher(found)
        weights = matcher.mean_weights([run.path for run in runs], "level")
        matcher.save()
        return weights

    write(runs[0], 1.0)
    write(runs[1], 2.0)
    assert means() == means() == [[1.0, 1.0], [1.5, 1.5]]
    write(runs[1], 4.0)
    assert means() == [[1.0, 1.0], [2.5, 2.5]]


def _collect_often(results: Path, times: int) -> None:
    cache.MIN_FACTS, cache._MIN_AGE_S = 1, -HOUR
    for _ in range(times):
        rows = collect(results).runs
        assert [row["metrics"]["AP"] for row in rows] == [float(row["seed"]) for row in rows]


@pytest.mark.usefixtures("settled")
def test_several_processes_share_a_results_folder(make_run: MakeRun, results: Path, entry: Path):
    made = [make_run(RLO, seed, {"AP": float(seed)}) for seed in range(6)]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_collect_often, args=(results, 15)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for seed in range(6, 12):  # runs come and go meanwhile
        make_run(RLO, seed, {"AP": float(seed)})
        entry.unlink(missing_ok=True)
        shutil.move(made[seed - 6].path, results / f"gone{seed}")
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert same(collect(results), fresh(results))
    assert not list(entry.parent.glob("*.tmp"))


@pytest.mark.usefixtures("settled")
def test_a_whole_report_is_the_same_with_and_without(make_run: MakeRun, results: Path, entry: Path):
    for seed in range(2):
        make_run(BASE, seed, {"AP": 50.0 + seed}, profile="tiny")
        make_run(RLO, seed, {"AP": 51.0 + seed}, profile="tiny")
        make_run(RLO, seed, {"AP": 52.0 + seed}, profile="tiny", sets=("weighting.gamma=0.5",))
    first = _shown(results)
    assert entry.exists()
    assert _shown(results) == first
    assert "gamma" in repr(first)


def _shown(results: Path) -> list[tuple[str, str, str, list[tuple[str, str, str, str]]]]:
    report = build_report(collect(results))
    return [
        (table.name, table.title, table.common, [
            (line.full_label, line.remark, str(line.difference), str(line.group and line.group.metrics))
            for line in table.rows
        ])
        for table in report.tables
    ]  # fmt: skip
