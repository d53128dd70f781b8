"""Runs that are broken off in every way a machine or a person can: the same command goes on, to the same bits."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from experiments.common.processes import is_alive
from experiments.runs.record import Attempt
from experiments.runs.run_folder import RunFolder

from .broken_off import GATED, assert_same, gated, held, hold, result, start_held
from .conftest import Place, ended, rows, small, wait_until

ITERATIONS = 26
RUN = ["run", "retinanet-r50-rlo", *small("weighting.alpha=4", *GATED, iterations=ITERATIONS)]


def lasted(attempt: Attempt) -> float:
    """Seconds, rounded down; an attempt that was killed has no end."""
    if attempt.ended is None:
        return 0.0
    return (datetime.fromisoformat(attempt.ended) - datetime.fromisoformat(attempt.started)).total_seconds()


@pytest.fixture
def unbroken(make_place) -> Iterator[Callable[[], RunFolder]]:
    """The same run left alone. It is worked on beside the test, which calls for it in the end."""
    place = gated(make_place("unbroken"))
    process = place.start(*RUN)

    def finished() -> RunFolder:
        said = ended(process)
        assert said.returncode == 0, said.stdout + said.stderr
        return place.only_run()

    yield finished
    process.terminate()
    process.communicate(timeout=60)


def test_a_run_broken_off_four_times_ends_as_if_it_never_was(
    place: Place, unbroken: Callable[[], RunFolder]
) -> None:
    gated(place)

    # Ctrl-C: the iteration under way is finished and saved, in mid-epoch and mid-interval
    process, _ = start_held(place, "train", 6, RUN)
    run = place.only_run()
    assert run.state() == "running"
    process.send_signal(signal.SIGINT)
    said = ended(process)
    assert said.returncode == 75, said.stderr
    assert "type the same command to resume it" in said.stdout
    assert "Traceback" not in said.stdout + said.stderr + run.log.read_text()
    assert run.state() == run.read().status == "interrupted"
    assert run.last_checkpoint().name == "iter_7.pth"

    # SIGTERM, as a batch system sends it, in an evaluation: what was trained is saved, and evaluated again
    process, _ = start_held(place, "evaluation", 12, RUN)
    process.send_signal(signal.SIGTERM)
    assert ended(process).returncode == 75
    assert run.last_checkpoint().name == "iter_12.pth"
    assert not run.metrics.exists()

    # the worker is killed while it saves: what came after the last checkpoint (interval 5, say) is done again
    process, worker = start_held(place, "checkpoint", 20, RUN)
    assert [row["interval"] for row in rows(run.trace)][-1] == "5"
    assert (run.last_checkpoint().name, len(list(run.checkpoints.glob("*.tmp")))) == ("iter_15.pth", 1)
    assert worker == run.read().attempts[-1].pid
    (run.path / ".record.json.of-a-killed-writer.tmp").write_text("half")
    os.kill(worker, signal.SIGKILL)
    hold(place, "train", 21)
    wait_until(lambda: held(place), "the run taken up by the same command")

    # the command itself is killed: its worker saves and ends without it; the next command waits for that
    stay = place.folder / "stay"
    stay.touch()
    process.kill()
    said_before, _ = process.communicate()
    assert "SIGKILL" in said_before
    assert run.state() == "running"
    process = place.start(*RUN)
    assert any("locked by another msdet process" in line for line in process.stdout)
    stay.unlink()
    said = ended(process)
    assert said.returncode == 0, said.stdout + said.stderr

    attempts = run.read().attempts
    assert [a.exit_code for a in attempts] == [75, 75, None, 75, 0]
    assert [a.first_iteration for a in attempts] == [0, 7, 12, 15, 22]
    assert [a.last_iteration for a in attempts] == [7, 12, None, 22, ITERATIONS]
    assert run.state() == "done" and run.read().notes == []
    assert run.read().timings["total_s"] >= sum(map(lasted, attempts)) - len(attempts)
    assert [row["iteration"] for row in rows(run.metrics)] == ["12", "24", "26"]  # each once
    reference = unbroken()
    assert run.path.parts[-3:] == reference.path.parts[-3:]
    assert_same(result(run, ITERATIONS), result(reference, ITERATIONS))
    for folder in (run, reference):  # the last two with their digests, and nothing of an unfinished write
        names = ["iter_25.pth", f"iter_{ITERATIONS}.pth"]
        assert sorted(path.name for path in folder.checkpoints.iterdir()) == names
        digests = [hashlib.sha256((folder.checkpoints / name).read_bytes()).hexdigest() for name in names]
        assert [line.split()[0] for line in folder.digests.read_text().splitlines()] == digests
        assert not list(folder.path.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_with_fast_is_resumed_to_the_same_bits(
    processes: int, place: Place, make_place: Callable[[str], Place]
) -> None:
    few = small("weighting.alpha=4", *GATED, f"schedule.gpus={processes}", iterations=10)
    words = ["run", "retinanet-r50-rlo", "--fast", "--gpus", str(processes), *few]
    reference = gated(make_place("unbroken"))
    said = reference.msdet(*words)
    assert said.returncode == 0, said.stdout + said.stderr
    process, _ = start_held(gated(place), "train", 6, words)
    process.send_signal(signal.SIGINT)
    assert ended(process).returncode == 75
    (place.folder / "hold").unlink()
    said = place.msdet(*words)
    assert said.returncode == 0, said.stdout + said.stderr
    run = place.only_run()
    assert [attempt.fast for attempt in run.read().attempts] == [True, True]
    assert_same(result(run, 10), result(reference.only_run(), 10))


def test_a_worker_ends_when_its_command_is_killed_while_it_loads(place: Place) -> None:
    process = place.start("run", "retinanet-r50-rlo", *small("weighting.alpha=4", iterations=500))
    run = wait_until(lambda: [r for r in place.runs() if r.read().attempts], "a worker at work")[0]
    process.kill()
    process.communicate()
    worker = run.read().attempts[-1]
    try:
        what = "the end of a worker without its command"
        wait_until(lambda: not is_alive(worker.pid, worker.pid_started), what)
    finally:
        if is_alive(worker.pid, worker.pid_started):
            os.kill(worker.pid, signal.SIGKILL)
    assert run.state() == "interrupted"


@pytest.mark.slow
def test_two_commands_at_once_do_a_run_once(place: Place) -> None:
    command = ["run", "retinanet-r50-rlo", *small("weighting.alpha=4")]
    first, second = [place.start(*command) for _ in range(2)]
    for said in (ended(first), ended(second)):
        assert said.returncode == 0, said.stdout + said.stderr
        assert "done" in said.stdout
    run = place.only_run()
    assert run.state() == "done"
    assert [attempt.exit_code for attempt in run.read().attempts] == [0]
    assert len(rows(run.trace)) == 5 * 3
    assert len(rows(run.metrics)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["checkpoint", "trace", "metrics", "record"])
def test_what_was_lost_while_a_run_was_stopped_is_named_and_survived(
    what: str, place: Place, unbroken: Callable[[], RunFolder]
) -> None:
    gated(place)
    process, _ = start_held(place, "train", 13, RUN)
    process.send_signal(signal.SIGTERM)
    assert ended(process).returncode == 75
    (place.folder / "hold").unlink()
    run = place.only_run()
    newest = run.last_checkpoint()
    assert newest.name == "iter_14.pth"
    if what == "checkpoint":
        newest.write_bytes(newest.read_bytes()[:-1000])
    elif what == "record":
        run.record_file.write_text(run.record_file.read_text()[:300])
    else:
        getattr(run, what).write_text("")
    said = place.msdet(*RUN)
    assert said.returncode == 0, said.stdout + said.stderr
    record = run.read()
    assert record.attempts[-1].first_iteration == (12 if what == "checkpoint" else 14)
    assert len(record.attempts) == (1 if what == "record" else 2)
    if what == "checkpoint":
        assert record.notes[0].endswith("set aside as iter_14.pth.damaged, iter_12.pth is taken instead")
    else:
        assert f"{what}.{'json' if what == 'record' else 'csv'}.damaged" in record.notes[0]
        assert len(record.notes) == (1 if what == "record" else 2)
    ours, theirs = result(run, ITERATIONS), result(unbroken(), ITERATIONS)
    if what in ("trace", "metrics"):
        assert set(ours.pop(what).splitlines()) < set(theirs.pop(what).splitlines())
    assert_same(ours, theirs)
