"""Runs in the hands of a real Slurm of the tests' own: capped, queued again, cancelled, failed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.runs.run_folder import RunFolder
from tests.children import search_path

from .broken_off import assert_same, result
from .conftest import MODULES, Place, small, wait_until
from .slurm_node import Slurm, missing, one_node

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")

SLURM = ["--slurm", "partition=main,time=10m,max=2"]
RUN = ["run", "retinanet-r50-rlo", *small(iterations=26)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with one_node() as node:
        yield node


@pytest.fixture
def cluster(place: Place, slurm: Slurm) -> Place:
    """A place to type commands in, where Slurm is."""
    return replace(place, extra=slurm.env)


@pytest.fixture
def with_stand_in(cluster: Place) -> Place:
    """Where jobs start a short script in the place of the worker."""
    return replace(cluster, extra={**cluster.extra, "PYTHONPATH": search_path(MODULES)})


def submitted(place: Place, *words: str) -> list[str]:
    """Job ids, in the order of the seeds."""
    said = place.msdet(*RUN, *words, "--json")
    assert said.returncode == 0, said.stderr
    assert [line for line in said.stderr.splitlines() if "making data set" not in line] == []
    return [row["job"] for row in json.loads(said.stdout)]


def listed(place: Place) -> dict[str, dict[str, Any]]:
    said = place.msdet("runs", "--json")
    assert said.returncode == 0, said.stderr
    return {row["run"].rpartition("/")[2]: row for row in json.loads(said.stdout)}


def hold(place: Place, seeds: int) -> list[Path]:
    """Have the stand-ins of the first seeds wait, once they run, as long as these files are there."""
    folder = place.folder / "hold"
    folder.mkdir()
    files = [folder / f"seed{seed}" for seed in range(seeds)]
    for file in files:
        file.touch()
    return files


def start_now(slurm: Slurm, job: str) -> None:
    """A job that is queued again otherwise waits a minute, so that what is left of it on its node has ended."""
    wait_until(lambda: job in slurm.jobs("PENDING"), f"job {job} in the queue again")
    time.sleep(2)
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")


def test_an_array_keeps_its_cap_and_a_run_that_slurm_takes_back_goes_on(
    with_stand_in: Place, slurm: Slurm
) -> None:
    place = with_stand_in
    holds = hold(place, seeds=4)
    jobs = submitted(place, "--seeds", "4", *SLURM)
    assert len({job.partition("_")[0] for job in jobs}) == 1 and len(set(jobs)) == 4
    at_once: list[int] = []

    def running() -> list[str]:
        found = slurm.jobs("RUNNING")
        at_once.append(len(found))
        return found

    wait_until(lambda: len(running()) == 2, "two jobs at work")
    assert [row["state"] for row in listed(place).values()] == ["running", "running", "queued", "queued"]
    again = place.msdet(*RUN, "--seeds", "4", *SLURM)
    assert again.stdout.count("in Slurm already") == 4, again.stdout + again.stderr
    for held in holds[:3]:
        held.unlink()
    run = place.runs()[3]
    wait_until(lambda: running() == [jobs[3]] and run.read().status == "running", "the last of them, alone")

    slurm("scancel", "--signal=USR2", jobs[3])
    wait_until(lambda: run.read().status == "interrupted", "a checkpoint")
    holds[3].unlink()
    start_now(slurm, jobs[3])
    wait_until(lambda: not slurm.jobs(), "the end of all")
    assert max(at_once) == 2
    records = [one.read() for one in place.runs()]
    assert [record.status for record in records] == ["done"] * 4
    assert [len(record.attempts) for record in records] == [1, 1, 1, 2]
    before, after = records[3].attempts
    assert 0 < before.last_iteration == after.first_iteration < after.last_iteration == 20


def test_cancelled_jobs_show_as_cancelled(with_stand_in: Place, slurm: Slurm) -> None:
    place = with_stand_in
    hold(place, seeds=1)
    at_work, waiting = submitted(place, "--seeds", "2", "--slurm", "time=10m,max=1")
    run = place.runs()[0]
    wait_until(lambda: run.read().status == "running", "a worker")
    slurm("scancel", waiting)
    slurm("scancel", at_work)
    wait_until(lambda: not slurm.jobs(), "the end of both")
    states = listed(place)
    assert [row["state"] for row in states.values()] == ["cancelled", "cancelled"]
    assert run.read().status == "interrupted"  # it has saved, and can go on
    assert len(run.read().attempts) == 1  # and was not started once more in its last moments


def test_a_job_that_cannot_begin_says_why(cluster: Place, slurm: Slurm) -> None:
    elsewhere = ("-c", "import sys; sys.path.pop(0); sys.argv[0] = 'msdet'; sys.executable = '/no/such/python';"
                       " from msdet_cli.main import main; main()")  # fmt: skip
    submitted(replace(cluster, script=(sys.executable, *elsewhere)), *SLURM)
    wait_until(lambda: not slurm.jobs(), "its end")
    (row,) = listed(cluster).values()
    assert row["state"] == "failed"
    assert "/no/such/python: No such file or directory" in row["why"]
    said = cluster.msdet("runs").stdout
    assert "/no/such/python" in said


def test_what_slurm_refuses_is_one_line(cluster: Place, slurm: Slurm) -> None:
    said = cluster.msdet(*RUN, "--slurm", "partition=mian,time=1h")
    assert said.returncode == 2
    assert "error: sbatch rejected the job" in said.stderr and "invalid partition" in said.stderr
    assert "Traceback" not in said.stderr and cluster.runs() == []


@pytest.mark.slow
def test_real_runs_broken_off_by_slurm_end_as_if_they_never_were(
    cluster: Place, slurm: Slurm, make_place: Callable[[str], Place]
) -> None:
    """The whole way: an array of four trainings, two at a time, one of them queued again twice."""
    jobs = submitted(cluster, "--seeds", "4", *SLURM)
    run = cluster.runs()[3]  # the last: Slurm 22 takes a signal badly while others of the array wait
    for iterations in (6, 14):
        wait_until(lambda least=iterations: iteration(run) >= least, f"iteration {iterations}", 300)
        assert len(slurm.jobs("RUNNING")) <= 2
        slurm("scancel", "--signal=USR2", jobs[3])
        start_now(slurm, jobs[3])
    deadline = time.monotonic() + 600
    while slurm.jobs():
        assert len(slurm.jobs("RUNNING")) <= 2
        assert time.monotonic() < deadline
        time.sleep(0.5)
    records = [one.read() for one in cluster.runs()]
    assert [record.status for record in records] == ["done"] * 4
    assert len(records[3].attempts) == 3
    unbroken = make_place("unbroken-by-slurm")
    said = unbroken.msdet(*RUN, "--seed", "3")
    assert said.returncode == 0, said.stderr
    assert_same(result(run, 26), result(unbroken.only_run(), 26))


def iteration(run: RunFolder) -> int:
    try:
        return json.loads(run.progress.read_text()).get("iteration") or 0
    except (OSError, ValueError):
        return 0
