"""From recipes and seeds to run folders: what is left to do of each, and what becomes of what is there."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from experiments.common import files
from experiments.common.errors import UserError
from experiments.common.processes import process_started
from experiments.launching import plan as planning
from experiments.launching.plan import PlannedRun, PlanOptions, Todo, claim_run, plan
from experiments.recipes.loading import compute_config_hash, load_recipe
from experiments.runs.record import Attempt
from experiments.runs.run_folder import InUseError, RunFolder, acquire_lock

RECIPE = "retinanet-r50-rlo"
NOBODY = 2**22 + 1  # above any process number


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    return tmp_path / "results"


def planned(results: Path, *sets: str, seeds: tuple[int, ...] = (0,), **options: Any) -> list[PlannedRun]:
    recipe = load_recipe(RECIPE, "tiny", sets)
    return plan([("", recipe)], PlanOptions(seeds, results, generate=False, **options))


def prepare(run: PlannedRun, command: list[str], **options: Any) -> Todo:
    """As the queue does it."""
    try:
        with claim_run(run):
            return planning.prepare(run, command, **options)
    except InUseError:
        return "running"


def one(results: Path, *sets: str, **options: Any) -> PlannedRun:
    (run,) = planned(results, *sets, **options)
    return run


def an_attempt(**changes: Any) -> Attempt:
    own = {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": process_started(os.getpid())}
    return Attempt(**{"started": "2026-01-01T10:00:00+00:00", **own, **changes})


def left_behind(results: Path, status: str, checkpoint: bool = False, **attempt: Any) -> RunFolder:
    """A run as an earlier command left it."""
    run = one(results)
    assert prepare(run, ["msdet", "earlier"]) == "start"
    record = run.folder.read()
    record.status = status
    record.attempts = [an_attempt(**{"pid": NOBODY, "message": "earlier", **attempt})]
    run.folder.write(record)
    run.folder.trace.write_text("of the earlier attempt\n")
    if checkpoint:
        run.folder.checkpoints.mkdir()
        (run.folder.checkpoints / "iter_50.pth").write_text("weights")
    return run.folder


def content(folder: Path) -> dict[str, bytes]:
    kept = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


# -------------------------------------------------------------------------------------- which runs


def test_every_recipe_with_every_seed_once(results: Path):
    rlo, avw = load_recipe(RECIPE, "tiny"), load_recipe("retinanet-r50-avw", "tiny")
    runs = plan([("a", rlo), ("b", avw), ("c", rlo)], PlanOptions([0, 1, 0], results, generate=False))
    assert [(run.label, run.recipe.name, run.seed) for run in runs] == [
        ("a", RECIPE, 0),
        ("a", RECIPE, 1),
        ("b", "retinanet-r50-avw", 0),
        ("b", "retinanet-r50-avw", 1),
    ]
    assert len({run.folder.path for run in runs}) == 4
    assert not results.exists()  # planning writes nothing
    assert not Path("data").exists()  # and here makes no data


def test_where_a_run_lives_follows_from_recipe_data_and_seed(results: Path):
    run = one(results)
    digest = compute_config_hash(run.recipe, run.data.fingerprint)
    assert run.folder.path == results / "runs" / RECIPE / digest / "seed0"
    other_data = one(results, "dataset.generate.train_images=399")
    assert other_data.folder.path.parent != run.folder.path.parent
    elsewhere = one(results, data_root=Path("elsewhere"))
    assert elsewhere.folder.path == run.folder.path  # the same data in another place is the same experiment
    assert elsewhere.data.root == Path("elsewhere").absolute()


@pytest.mark.parametrize("where", ["nowhere.pth", "a-run-that-is-not-there"])
def test_weights_to_start_from_are_looked_for_first(results: Path, where: str):
    with pytest.raises(UserError, match=f"init_from: .*{where}"):
        planned(results, f"init_from={where}")


# ------------------------------------------------------------------------------ what is left to do

ALIVE = {"pid": os.getpid()}
STATES = [
    # status, checkpoint, changes of the attempt: then plain, --retry-failed, --force
    ("queued", False, {}, "start", "start", "start"),
    ("queued", True, {}, "resume", "resume", "start"),
    ("running", False, ALIVE, "running", "running", "running"),
    ("running", True, {}, "resume", "resume", "start"),  # its process is gone
    ("running", False, {}, "start", "start", "start"),
    ("running", True, {**ALIVE, "pid_started": "1"}, "resume", "resume", "start"),  # number used again
    ("running", True, {"host": "another"}, "resume", "resume", "start"),  # without a heartbeat
    ("interrupted", True, {}, "resume", "resume", "start"),
    ("interrupted", False, {}, "start", "start", "start"),
    ("done", True, {}, "skip", "skip", "start"),
    ("failed", True, {}, "failed", "resume", "start"),
    ("failed", False, {}, "failed", "start", "start"),
    ("cancelled", True, {}, "failed", "resume", "start"),
]


@pytest.mark.parametrize(("status", "checkpoint", "attempt", "plain", "retried", "forced"), STATES)
def test_what_is_left_to_do(
    results: Path, status: str, checkpoint: bool, attempt: dict, plain: str, retried: str, forced: str
):
    if attempt.get("pid_started") and process_started(os.getpid()) is None:
        pytest.skip("this system does not tell when a process began")
    left_behind(results, status, checkpoint, **attempt)
    assert one(results).todo == plain
    assert one(results, retry_failed=True).todo == retried
    assert one(results, force=True).todo == forced
    assert one(results, retry_failed=True, force=True).todo == forced
    assert planned(results, seeds=(1,))[0].todo == "start"  # another seed is another run


def test_a_run_on_another_host_is_left_alone_while_its_heart_beats(results: Path):
    folder = left_behind(results, "running", True, host="another")
    folder.progress.write_text("{}")
    assert one(results).todo == one(results, force=True).todo == "running"


@pytest.mark.parametrize("content", ["", '{"schema_version": 2, "recipe"', "[]", '{"schema_version": 2}'])
def test_a_damaged_record_is_kept_and_the_run_goes_on_from_its_checkpoint(results: Path, content: str):
    folder = left_behind(results, "failed", checkpoint=True)
    folder.record_file.write_text(content)
    (folder.path / "record.json.damaged").write_text("an earlier one")
    before = {path: path.read_bytes() for path in (folder.trace, *folder.checkpoints.iterdir())}
    run = one(results)
    assert run.todo == "resume"
    assert prepare(run, ["msdet"]) == "resume"
    record = folder.read()
    assert (record.status, record.recipe, record.seed, record.attempts) == ("queued", RECIPE, 0, [])
    assert record.config_hash == folder.path.parent.name
    (note,) = record.notes
    assert "record.json.damaged2" in note
    assert (folder.path / "record.json.damaged2").read_text() == content
    assert (folder.path / "record.json.damaged").read_text() == "an earlier one"
    assert {path: path.read_bytes() for path in before} == before
    assert prepare(one(results), ["msdet"]) == "resume" and folder.read().notes == [note]


def test_a_record_that_was_deleted_costs_no_checkpoint(results: Path):
    folder = left_behind(results, "interrupted", checkpoint=True)
    folder.record_file.unlink()
    assert prepare(one(results), ["msdet"]) == "resume"
    assert folder.last_checkpoint().read_text() == "weights"
    assert "is missing" in folder.read().notes[0]


def test_a_newer_msdets_record_is_left_alone(results: Path):
    folder = left_behind(results, "interrupted", checkpoint=True)
    folder.record_file.write_text('{"schema_version": 99}')
    run = one(results)
    assert run.todo == prepare(run, ["msdet"]) == "unreadable"
    assert folder.record_file.read_text() == '{"schema_version": 99}'
    assert prepare(one(results, force=True), ["msdet"]) == "start"
    assert folder.read().status == "queued"


def test_an_old_request_to_cancel_does_not_reach_the_next_attempt(results: Path):
    folder = left_behind(results, "cancelled", checkpoint=True)
    folder.cancel.touch()
    assert prepare(one(results, retry_failed=True), ["msdet"]) == "resume"
    assert not folder.cancel.exists()


# ------------------------------------------------------------------------------- making it ready


def test_a_new_run_says_all_that_a_worker_needs(results: Path):
    run = one(results, seeds=(3,), data_root=Path("my-data"))
    assert prepare(run, ["msdet", "run", RECIPE]) == "start"
    assert load_recipe(str(run.folder.recipe)) == run.recipe
    record = run.folder.read()
    assert (record.status, record.seed, record.recipe, record.profile) == ("queued", 3, RECIPE, "tiny")
    assert record.command == ["msdet", "run", RECIPE]
    assert record.config_hash == run.folder.path.parent.name
    assert record.dataset == {
        "name": "shapes",
        "format": "coco",
        "root": str(Path("my-data").absolute()),
        "fingerprint": run.data.fingerprint,
        "images": {"train": 400, "val": 150},
        "classes": ["disc", "square", "triangle", "star"],
        "problems": {},
        "warning": "",
    }


@pytest.mark.parametrize(("status", "options"), [("interrupted", {}), ("failed", {"retry_failed": True})])
def test_going_on_keeps_all_that_is_there(results: Path, status: str, options: dict):
    folder = left_behind(results, status, checkpoint=True)
    before, attempts = content(folder.path), folder.read().attempts
    run = one(results, data_root=Path("moved"), **options)
    assert prepare(run, ["msdet", "again"]) == "resume"
    record = folder.read()
    assert record.attempts == attempts
    assert (record.status, record.command) == ("queued", ["msdet", "again"])
    assert record.dataset["root"] == str(Path("moved").absolute())
    after = content(folder.path)
    del before["record.json"], after["record.json"]
    assert after == before


def test_force_throws_away_what_is_there(results: Path):
    folder = left_behind(results, "done", checkpoint=True)
    assert prepare(one(results, force=True), ["msdet"]) == "start"
    assert set(content(folder.path)) == {"recipe.yaml", "record.json"}
    assert folder.read().attempts == []


@pytest.mark.parametrize("status", ["done", "failed"])
def test_what_another_command_has_ended_meanwhile_is_left_as_it_is(results: Path, status: str):
    run = one(results)  # nothing there yet
    folder = left_behind(results, status)
    before = content(folder.path)
    assert run.todo == "start"
    assert prepare(run, ["msdet", "late"]) == {"done": "skip", "failed": "failed"}[status]
    assert content(folder.path) == before


@pytest.mark.parametrize("options", [{}, {"force": True}])
def test_a_run_that_another_process_holds_is_left_as_it_is(results: Path, options: dict):
    folder = left_behind(results, "interrupted", checkpoint=True)
    before = content(folder.path)
    run = one(results, **options)
    with acquire_lock(folder):
        assert prepare(run, ["msdet", "late"]) == "running"
        assert content(folder.path) == before
    assert prepare(run, ["msdet", "late"]) == ("start" if options else "resume")


# -------------------------------------------------------------------- folders that cannot be written


@pytest.mark.parametrize("taken", ["results", "results/runs", f"results/runs/{RECIPE}"])
def test_a_file_where_a_folder_should_be(results: Path, taken: str):
    Path(taken).parent.mkdir(parents=True, exist_ok=True)
    Path(taken).write_text("mine")
    run = one(results)
    with pytest.raises(UserError, match="cannot be written") as caught:
        prepare(run, ["msdet"])
    assert str(results) in caught.value.message
    assert "\n" not in caught.value.message
    assert "--results-dir" in caught.value.hint
    assert Path(taken).read_text() == "mine"


def test_a_full_disk_leaves_the_earlier_run_as_it_was(results: Path, monkeypatch: pytest.MonkeyPatch):
    folder = left_behind(results, "interrupted", checkpoint=True)
    before = content(folder.path)
    run = one(results)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=f"cannot be written: {os.strerror(errno.ENOSPC)}"):
        prepare(run, ["msdet"])
    assert content(folder.path) == before  # no half-written file either
    assert json.loads(folder.record_file.read_text())["status"] == "interrupted"


def test_renamed_recipe_uses_the_runs_that_are_there(results: Path):
    left_behind(results, "done")
    Path("copy.yaml").write_text("extends: retinanet-r50-rlo\n")
    copy = load_recipe("copy.yaml", "tiny")
    notes: list[str] = []
    options = PlanOptions((0, 1), results, generate=False, notify=notes.append)
    done, new = plan([("", copy)], options)
    assert done.folder.name == one(results).folder.name
    assert (done.todo, done.recipe.name) == ("skip", RECIPE)
    assert (new.folder.path.parts[-3], new.todo) == ("copy", "start")
    digest = done.folder.path.parts[-2]
    assert notes == [f"copy is the same experiment as {RECIPE}/{digest}, whose runs are used"]
    forced = PlanOptions((0,), results, generate=False, force=True, notify=notes.append)
    (again,) = plan([("", copy)], forced)  # never deletes the runs of another name
    assert (again.folder.path.parts[-3], again.todo) == ("copy", "start")


def test_an_imported_run_does_not_take_the_place_of_ones_own(results: Path):
    folder = left_behind(results, "done")
    record = folder.read()
    record.imported = {"source": "work_dirs/r50"}
    folder.write(record)
    folder.path.parents[1].rename(folder.path.parents[2] / f"imported-{RECIPE}")
    run = one(results)
    assert (run.folder.path.parts[-3], run.todo) == (RECIPE, "start")


def test_two_names_of_one_experiment_are_planned_once(results: Path):
    Path("copy.yaml").write_text("extends: retinanet-r50-rlo\n")
    recipes = [("", load_recipe(name, "tiny")) for name in (RECIPE, "copy.yaml")]
    notes: list[str] = []
    runs = plan(recipes, PlanOptions((0, 1), results, generate=False, notify=notes.append))
    assert [run.recipe.name for run in runs] == [RECIPE, RECIPE]
    assert len(notes) == 1


def test_more_runs_than_one_command_plans_are_refused_at_once(results: Path):
    with pytest.raises(UserError, match="1000000 seeds of each recipe: one command plans at most 10000 runs"):
        planned(results, seeds=range(1_000_000))  # type: ignore[arg-type]
