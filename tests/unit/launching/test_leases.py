"""Which GPUs there are, and that of all processes one at a time has one of them."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.common import processes
from experiments.common.errors import UserError
from experiments.common.processes import count_cores, count_cores_per_process
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu, list_visible_gpus
from experiments.launching.leases import ResourcePool, lease
from experiments.runs.record import Launch

GPUS = [Gpu(0, "GPU-aa11", "H100"), Gpu(1, "GPU-bb22", "H100"), Gpu(2, "GPU-ab33", "T4, small")]
SAID = "".join(f"{g.index}, {g.uuid}, {g.name}\n" for g in GPUS)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSDET_LEASES", str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def nvidia_smi(place: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int = 0) -> None:
    (place / "bin").mkdir()
    (place / "said").write_text(said)
    program = place / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat {place}/said\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("1", [1]),
        ("0,7,1", [0]),  # CUDA sees nothing behind a name of nothing
        ("-1", []),
        ("GPU-bb22", [1]),
        ("GPU-b, GPU-aa", [1, 0]),
        ("GPU-a", []),  # more than one
        ("0,0", [0]),
    ],
)
def test_the_gpus_that_cuda_would_see(
    place: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, indices: list[int]
):
    nvidia_smi(place, monkeypatch, SAID)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert list_visible_gpus() == [GPUS[index] for index in indices]


def test_slices_of_a_gpu_are_taken_by_their_names(place: Path, monkeypatch: pytest.MonkeyPatch):
    nvidia_smi(place, monkeypatch, SAID)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2")
    assert [gpu.uuid for gpu in list_visible_gpus()] == ["MIG-1", "MIG-2"]


def test_no_driver_or_a_broken_one_is_no_gpu(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(place))
    assert list_visible_gpus() == []
    monkeypatch.undo()
    nvidia_smi(
        place, monkeypatch, "NVIDIA-SMI has failed because it couldn't communicate with the driver\n", 9
    )
    assert list_visible_gpus() == []


def test_a_gpu_is_leased_once():
    first = lease(GPUS, 2)
    assert first is not None and first.gpus == tuple(GPUS[:2])
    assert first.environment() == {"CUDA_VISIBLE_DEVICES": "GPU-aa11,GPU-bb22"}
    assert lease(GPUS, 2) is None  # and the third is not kept either
    second = lease(GPUS, 1)
    assert second is not None and second.gpus == (GPUS[2],)
    first.release()
    third = lease(GPUS, 2)
    assert third is not None and third.gpus == tuple(GPUS[:2])


def test_a_lease_outlives_the_command_that_took_it_and_ends_with_its_worker():
    command = """
import subprocess, sys
from experiments.launching.gpus import Gpu
from experiments.launching.leases import lease
taken = lease([Gpu(0, "GPU-aa11", "H100")], 1)
worker = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=0, pass_fds=taken.descriptors)
print(worker.pid, flush=True)
worker.wait()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    worker = int(process.stdout.readline())
    assert lease(GPUS[:1], 1) is None
    process.kill()
    process.wait()
    os.kill(worker, 0)  # it lives
    assert lease(GPUS[:1], 1) is None
    process.stdin.close()  # which ends it
    wait_for_end(worker)
    assert lease(GPUS[:1], 1) is not None


def wait_for_end(pid: int) -> None:
    import time

    for _ in range(1000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("it goes on")


def test_the_folder_is_open_to_all_users_and_no_link_is_followed(place: Path):
    lease(GPUS, 1)
    assert (place / "leases").stat().st_mode & 0o7777 == 0o1777
    assert (place / "leases" / "GPU-aa11.lock").stat().st_mode & 0o044 == 0o044
    (place / "precious").write_text("mine")
    (place / "leases" / "GPU-bb22.lock").symlink_to(place / "precious")
    with pytest.raises(UserError, match="cannot be leased"):
        lease(GPUS[1:2], 1)
    assert (place / "precious").read_text() == "mine"


def test_places_on_gpus():
    slots = ResourcePool(Execution(gpus=2, gpus_per_run=1), GPUS)
    one = Launch(processes=1)
    first, second = slots.take(one), slots.take(one)
    assert first is not None and second is not None and slots.take(one) is None  # two are allowed, of three
    slots.give_back(first)
    third = slots.take(one)
    assert third is not None and third.gpus == (GPUS[0],)
    assert ResourcePool(Execution(jobs=1), GPUS).jobs == 1


def test_places_without_gpus():
    slots = ResourcePool(Execution(jobs=2), [])
    taken = [slots.take(Launch()) for _ in range(3)]
    assert [place is not None for place in taken] == [True, True, False]
    assert ResourcePool(Execution(), []).jobs == 1


def test_threads_are_shared_by_what_works_at_once_and_left_alone_for_a_lone_run():
    assert ResourcePool(Execution(), []).threads(Launch()) is None
    assert ResourcePool(Execution(), GPUS[:1]).threads(Launch()) is None
    assert ResourcePool(Execution(jobs=2), []).threads(Launch()) == max(1, count_cores() // 2)
    assert ResourcePool(Execution(), []).threads(Launch(processes=2)) == max(1, count_cores() // 2)
    assert ResourcePool(Execution(jobs=1000), []).threads(Launch()) == 1
    assert ResourcePool(Execution(), GPUS).threads(Launch()) == max(1, count_cores() // 3)


def test_cores_are_those_of_affinity_container_and_slurm_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(processes, "CPU_QUOTA", tmp_path / "cpu.max")
    for name in ("SLURM_CPUS_PER_TASK", "MSDET_CORES", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert count_cores() == count_cores_per_process() == 16
    for quota, expected in (("max 100000", 16), ("550000 100000", 6), ("20000 100000", 1)):
        (tmp_path / "cpu.max").write_text(quota + "\n")
        assert count_cores() == expected
    (tmp_path / "cpu.max").unlink()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert count_cores_per_process() == 4
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    assert (count_cores(), count_cores_per_process()) == (7, 1)
    monkeypatch.setenv("MSDET_CORES", "3")  # the launcher knows of the runs beside this one
    assert count_cores_per_process() == 3


def test_a_folder_without_locks_is_refused_in_a_sentence(place: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"GPUs cannot be leased: .*: its file system has no locks") as error:
        lease(GPUS, 1)
    assert "export MSDET_LEASES=DIR" in error.value.hint
