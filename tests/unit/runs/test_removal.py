"""`msdet rm`, and what it has in common with all that writes in run folders: no link is followed."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.common.processes import process_started
from experiments.launching.cancel import Cancel
from experiments.launching.plan import PlanOptions, plan, prepare
from experiments.recipes.loading import load_recipe
from experiments.runs.record import Attempt, Record
from experiments.runs.run_folder import RunFolder, acquire_lock
from msdet_cli.app import app
from msdet_cli.commands import rm
from msdet_cli.run_options import RunOptions
from msdet_cli.run_plan import run_plan


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MSDET_RESULTS", raising=False)


def a_run(seed: int = 0, status: str = "done", recipe: str = "r50", **more: object) -> RunFolder:
    run = RunFolder.of(Path("results"), recipe, "aaaa1111", seed)
    run.path.mkdir(parents=True)
    run.write(
        Record(recipe=recipe, recipe_id="1" * 8, config_hash="aaaa1111", seed=seed, status=status, **more)
    )
    return run


def running(seed: int) -> RunFolder:
    me = Attempt(started="2026-01-01T10:00:00+00:00", host=socket.gethostname(), pid=os.getpid(),
                 pid_started=process_started(os.getpid()))  # fmt: skip
    return a_run(seed, "running", attempts=[me])


def checkpoint(run: RunFolder, iteration: int, is_whole: bool = True) -> Path:
    run.checkpoints.mkdir(exist_ok=True)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 1000)
    path = run.checkpoints / f"iter_{iteration}.pth"
    path.write_bytes(stream.getvalue() if is_whole else stream.getvalue()[:500])
    return path


def typed(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["rm", *words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def refusal(*words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, ["rm", *words], catch_exceptions=False)
    return caught.value


def test_rm_says_what_it_frees_and_deletes_with_empty_folders_above():
    gone, kept, other = a_run(0), a_run(1), a_run(0, recipe="r101")
    with open(gone.path / "log.txt", "wb") as stream:
        stream.truncate(2_000_000)
    text = typed("r50/aaaa1111/seed0", "--yes")
    assert "r50/aaaa1111/seed0  done   2.0 MB" in text
    assert "freed 2.0 MB" in text
    assert not gone.path.exists()
    assert kept.record_file.exists()
    typed("r101", "--yes")
    assert not other.path.parents[1].exists()
    typed("seed1", "-y")
    assert os.listdir("results/runs") == []  # noqa: PTH208


def test_rm_asks(monkeypatch: pytest.MonkeyPatch):
    run = a_run()
    error = refusal("seed0")
    assert "deletes 1 run, 1 of them done, and frees " in error.message
    assert error.hint.endswith(" --yes")
    for answer in ("n\n", "", "yes please\n"):
        stdin = io.StringIO(answer)
        stdin.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(typer.Exit):
            rm.rm(["seed0"])
    assert run.record_file.exists()
    monkeypatch.setattr(stdin, "readline", lambda: "y\n")
    rm.rm(["seed0"])
    assert not run.path.exists()


def test_rm_by_state_leaves_what_is_at_work():
    failed, done, busy = [a_run(0, "failed"), a_run(3, "failed")], a_run(1), running(2)
    typed("--state", "failed", "--yes")
    assert not any(run.path.exists() for run in failed)
    assert done.path.exists()
    text = typed("--all", "--yes")
    assert "skipped: r50/aaaa1111/seed2 is running" in text
    assert busy.path.exists()
    assert not done.path.exists()
    error = refusal("seed2", "--yes")
    assert (error.message, error.hint) == (f"run {busy.name} is running", f"msdet cancel {busy.name}")
    assert "did you mean 'failed'" in refusal("--state", "faild").message


def test_rm_of_several_needs_all():
    runs = [a_run(0), a_run(1)]
    error = refusal("r50", "--yes")
    assert "fits 2 runs" in error.message
    assert "--all" in error.hint
    assert "name a RUN" in refusal("--yes").message
    typed("r50", "--all", "--yes")
    assert not any(run.path.exists() for run in runs)
    assert "nothing to delete" in typed("--all")


def test_rm_skips_a_locked_run():
    locked, free = a_run(0), a_run(1)
    with acquire_lock(locked):
        text = typed("--all", "--yes", code=1)
    assert f"skipped: run {locked.name} is locked" in text
    assert locked.record_file.exists()
    assert not free.path.exists()


def test_rm_takes_a_run_whose_record_is_broken():
    run = a_run()
    run.record_file.write_text("{")
    assert "unreadable" in typed("seed0", "--yes")
    assert not run.path.exists()


def test_checkpoints_keeps_the_last_whole_one():
    run = a_run()
    old, last = checkpoint(run, 100), checkpoint(run, 200)
    cut_short = checkpoint(run, 1000, is_whole=False)
    left = run.checkpoints / ".iter_50.pth.x.tmp"
    left.write_bytes(b"x")
    own = run.checkpoints / "best.pth"
    own.write_bytes(b"x")
    run.digests.write_text("".join(f"{'0' * 64}  checkpoints/{path.name}\n" for path in (old, last)))
    assert "old checkpoints of 1 run" in refusal("seed0", "--checkpoints").message
    typed("seed0", "--checkpoints", "--yes")
    assert [path.exists() for path in (old, last, cut_short, left, own)] == [False, True, False, False, True]
    assert run.digests.read_text() == f"{'0' * 64}  checkpoints/{last.name}\n"
    assert run.record_file.exists()
    assert "nothing to delete" in typed("seed0", "--checkpoints")
    broken = a_run(1)
    only = checkpoint(broken, 100, is_whole=False)
    assert "nothing to delete" in typed("seed1", "--checkpoints")
    assert only.exists()


def test_rm_follows_no_link(tmp_path: Path):
    run = a_run()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("mine")
    (run.path / "notes").symlink_to(outside)
    run.path.joinpath("thesis.tex").symlink_to(outside / "thesis.tex")
    (Path("results/runs/linked")).symlink_to(tmp_path / "results/runs/r50")
    for name in ("linked/aaaa1111/seed0", "r50/aaaa1111/seed0"):
        assert "is a link" in typed(name, "--yes", code=1)
        assert run.record_file.exists()
    assert (outside / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("name", [".lock", ".cancel", "record.json", "log.txt"])
@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_cancel_writes_through_no_link(tmp_path: Path, name: str, status: str):
    run = running(0) if status == "running" else a_run(0, status)
    target = tmp_path / "thesis.tex"
    target.write_text("mine" if name != "record.json" else run.record_file.read_text())
    before = target.read_text()
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(target)
    with pytest.raises(UserError, match="is a link"):
        Cancel(run).step()
    assert target.read_text() == before
    assert run.read().status == status


def test_a_run_that_cannot_be_cancelled_does_not_stop_the_others(tmp_path: Path):
    bad, good = a_run(0, "interrupted"), a_run(1, "interrupted")
    (bad.path / "notes.txt").symlink_to(tmp_path)
    result = CliRunner().invoke(app, ["cancel", "seed0", "seed1"])
    assert result.exit_code == 1
    first, second, *_ = result.stdout.splitlines()
    assert first.startswith(f"{bad.name}: not cancelled; ") and "is a link" in first
    assert second == f"{good.name}: cancelled"
    assert good.read().status == "cancelled"


def test_a_link_made_while_the_lock_is_opened_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, target = a_run(), tmp_path / "thesis.tex"
    target.write_text("mine")
    monkeypatch.setattr("experiments.runs.run_folder.refuse_links", lambda run: run.lock.symlink_to(target))
    with pytest.raises(OSError, match="symbolic links"), acquire_lock(run):
        pass
    assert target.read_text() == "mine"


def test_force_asks_where_finished_runs_would_go(monkeypatch: pytest.MonkeyPatch):
    """In a script, where nobody can be asked, it is refused with the command to type."""
    started: list[str] = []
    monkeypatch.setattr("msdet_cli.run_plan.execute", lambda runs, *rest: started.extend(map(str, runs)) or 0)
    recipe = load_recipe("retinanet-r50", "tiny")
    options = PlanOptions([0], Path("results"), force=True, generate=False)
    (run,) = planned = plan([("", recipe)], options)
    run.folder.path.mkdir(parents=True)
    prepare(run, [])

    def try_force(**more: bool) -> None:
        with pytest.raises(typer.Exit):
            run_plan(planned, RunOptions(force=True, as_json=True, **more), lambda *_: None)

    try_force()  # a queued run is no loss
    assert len(started) == 1
    record = run.folder.read()
    record.status = "done"
    run.folder.write(record)
    monkeypatch.setattr("sys.argv", ["msdet", "run", "retinanet-r50", "--force"])
    with pytest.raises(UserError, match=f"--force deletes 1 finished run, {run.folder.name}: ") as caught:
        run_plan(planned, RunOptions(force=True), lambda *_: None)
    assert caught.value.hint == "msdet run retinanet-r50 --force --yes"
    try_force(dry_run=True)
    assert len(started) == 1
    try_force(yes=True)
    assert len(started) == 2
