"""Checkpoints, and training that goes on from them as if it had never stopped: on a toy model, in MMEngine's loop."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pickle
import random
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from experiments.common.errors import INTERRUPTED, UserError
from experiments.runs.run_folder import RunFolder
from experiments.training import components  # noqa: F401  (registers loop, sampler and hook)
from experiments.training.engine.checkpoints import find_latest_checkpoint, read_checkpoint
from experiments.training.engine.runner import StrictRunner
from experiments.training.engine.stopping import STOP, Interrupted
from experiments.training.outcome import classify_outcome

pytestmark = pytest.mark.gpu
IMAGES, BATCH = 10, 4  # so three batches an epoch, the last one smaller


class ToyImages(torch.utils.data.Dataset):
    """Numbers in place of images, augmented by all three generators; of both orientations, as photographs are."""

    metainfo: dict = {}  # noqa: RUF012

    def __len__(self) -> int:
        return IMAGES

    def get_data_info(self, index: int) -> dict[str, int]:
        return {"width": 3, "height": 2 + 2 * (index % 3 == 0)}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        jitter = random.random() + np.random.rand() + torch.rand(()).item()
        return {"batch": torch.tensor([float(index), jitter])}


class ToyModel(BaseModel):
    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(2, width)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[float] = []

    def forward(self, batch: torch.Tensor, mode: str) -> Any:
        self.seen += batch[:, 0].tolist()
        return {"loss": self.dropout(self.linear(batch / IMAGES)).square().mean()}


class StopAfter(Hook):
    """Asks for the end during one iteration, as a signal would."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == self.iteration:
            STOP.set()


@pytest.fixture(autouse=True)
def _nobody_asked_to_stop() -> Iterator[None]:
    STOP.clear()
    yield
    STOP.clear()


def toy(
    work_dir: Path,
    every: int = 4,
    length: dict[str, int] | None = None,
    accumulation: int = 1,
    hooks: tuple[Hook, ...] = (),
    load_from: Path | None = None,
    resume: bool = False,
    model: nn.Module | None = None,
    seed: int = 5,
) -> StrictRunner:
    work_dir.mkdir(exist_ok=True)
    torch.manual_seed(0)  # of the model's first weights: the runner seeds only what comes later
    return StrictRunner(
        model=model or ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=ToyImages(),
            batch_size=BATCH,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=True),
            batch_sampler=dict(type="ResumableBatchSampler", inner=dict(type="AspectRatioBatchSampler")),
            collate_fn=dict(type="default_collate"),
        ),
        train_cfg=dict(type="ResumableTrainLoop", **(length or {"max_epochs": 4})),
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.05, momentum=0.9), accumulative_counts=accumulation
        ),
        param_scheduler=dict(type="MultiStepLR", milestones=[2, 3], by_epoch=True, gamma=0.1),
        default_hooks=dict(checkpoint=dict(type="ResumableCheckpointHook", every=every)),
        custom_hooks=list(hooks),
        load_from=None if load_from is None else str(load_from),
        resume=resume,
        default_scope="mmdet",
        log_level="ERROR",
        randomness=dict(seed=seed),
        experiment_name=f"{work_dir.name}-{os.urandom(4).hex()}",  # MMEngine refuses a name it has seen
    )


def saved(work_dir: Path) -> list[str]:
    return sorted(path.name for path in (work_dir / "checkpoints").iterdir())


def state_of(runner: StrictRunner) -> dict[str, Any]:
    content = {f"model.{k}": v for k, v in runner.model.state_dict().items()}
    for i, entry in runner.optim_wrapper.optimizer.state_dict()["state"].items():
        content[f"momentum.{i}"] = entry["momentum_buffer"]
    return content


# ---------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("stop_after", [1, 3, 11])
def test_a_stopped_training_goes_on_as_if_nothing_had_happened(stop_after: int, tmp_path: Path):
    unbroken = toy(tmp_path / "unbroken")
    unbroken.train()
    assert len(unbroken.model.seen) == 4 * IMAGES

    stopped = toy(tmp_path / "stopped", hooks=(StopAfter(stop_after),))
    with pytest.raises(Interrupted) as caught:
        stopped.train()
    assert caught.value.exit_code == INTERRUPTED
    assert str(stop_after) in caught.value.message
    STOP.clear()
    last = RunFolder(tmp_path / "stopped").last_checkpoint()
    assert last is not None
    assert last.name == f"iter_{stop_after}.pth"

    torch.rand(7), np.random.rand(7), random.random()  # a new process would be elsewhere, too
    resumed = toy(tmp_path / "stopped", load_from=last, resume=True)
    resumed.train()
    assert stopped.model.seen + resumed.model.seen == unbroken.model.seen  # the same images, each once
    assert resumed.iter == unbroken.iter == 12
    expected = state_of(unbroken)
    assert expected.keys() == state_of(resumed).keys()
    for name, value in state_of(resumed).items():
        assert torch.equal(value, expected[name]), name
    assert resumed.optim_wrapper.get_lr() == unbroken.optim_wrapper.get_lr()


def test_without_randomness_by_position_it_would_be_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """That the test above can fail."""
    unbroken = toy(tmp_path / "unbroken")
    unbroken.train()
    stopped = toy(tmp_path / "stopped", hooks=(StopAfter(5),))
    with pytest.raises(Interrupted):
        stopped.train()
    STOP.clear()
    monkeypatch.setattr("experiments.training.engine.loop.seed_micro_batch", lambda *position: None)
    resumed = toy(tmp_path / "stopped", load_from=tmp_path / "stopped/checkpoints/iter_5.pth", resume=True)
    resumed.train()
    assert not torch.equal(resumed.model.linear.weight, unbroken.model.linear.weight)


def test_a_wrapper_that_steps_every_second_iteration_is_saved_behind_its_steps(tmp_path: Path):
    """A user's own `accumulative_counts`, which MMEngine counts in iterations."""
    stopped = toy(tmp_path / "run", every=3, accumulation=2, hooks=(StopAfter(5),))
    with pytest.raises(Interrupted):
        stopped.train()
    assert saved(tmp_path / "run") == ["iter_6.pth"]  # not 3, not 5


def test_a_length_in_iterations_ends_there_and_is_saved(tmp_path: Path):
    runner = toy(tmp_path / "run", length={"max_iters": 7}, every=100)
    runner.train()
    assert (runner.iter, runner.max_iters, runner.max_epochs) == (7, 7, 3)
    assert saved(tmp_path / "run") == ["iter_7.pth"]
    assert len(runner.model.seen) == 2 * IMAGES + BATCH


@pytest.mark.parametrize("length", [{}, {"max_epochs": 1, "max_iters": 1}])
def test_a_loop_takes_exactly_one_length(length: dict[str, int], tmp_path: Path):
    runner = toy(tmp_path / "run")
    runner._train_loop = {"type": "ResumableTrainLoop", **length}
    with pytest.raises(ValueError, match="exactly one of max_epochs and max_iters"):
        runner.train()


# ------------------------------------------------------------------------------------------ the files


def test_the_last_two_stay(tmp_path: Path):
    toy(tmp_path / "run", every=4).train()
    assert saved(tmp_path / "run") == ["iter_12.pth", "iter_8.pth"]


def test_a_write_that_fails_leaves_the_older_ones_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put = LocalBackend.put

    def full_disk(self: LocalBackend, content: bytes, path: str) -> None:
        if "iter_8" in str(path):
            Path(path).write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, content, path)

    monkeypatch.setattr(LocalBackend, "put", full_disk)
    with pytest.raises(UserError, match=r"iteration 8 cannot be .* No space .* iter_4\.pth") as caught:
        toy(tmp_path / "run", every=4).train()
    assert classify_outcome(caught.value).code == INTERRUPTED
    run = RunFolder(tmp_path / "run")
    assert run.last_checkpoint() == run.checkpoints / "iter_4.pth"
    assert read_checkpoint(run.last_checkpoint())["meta"]["iter"] == 4
    assert saved(tmp_path / "run") == ["iter_4.pth"]  # no half file takes the space that is left
    (run.checkpoints / "iter_8.pth.tmp").write_bytes(b"half a file, from a process that was killed")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    toy(tmp_path / "run", every=4, load_from=run.last_checkpoint(), resume=True).train()
    assert saved(tmp_path / "run") == ["iter_12.pth", "iter_8.pth"]  # and the half is gone


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB of its own, where this user may have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_is_full_interrupts_a_training_that_then_resumes_to_the_same_bits(
    small_disk: Path, tmp_path: Path
):
    unbroken = toy(tmp_path / "unbroken")
    unbroken.train()
    run = RunFolder(small_disk / "run")
    saved_first = stopped(run, 3)
    content = saved_first.read_bytes()
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1000))
    assert os.statvfs(small_disk).f_bavail == 0
    with pytest.raises(UserError, match="No space left on device; the last good one is iter_3") as caught:
        toy(run.path, load_from=saved_first, resume=True).train()
    assert classify_outcome(caught.value).code == INTERRUPTED
    assert saved_first.read_bytes() == content and saved(run.path) == ["iter_3.pth"]
    (small_disk / "filler").unlink()
    resumed = toy(run.path, load_from=find_latest_checkpoint(run)[0], resume=True)
    resumed.train()
    for name, value in state_of(resumed).items():
        assert torch.equal(value, state_of(unbroken)[name]), name


def test_a_checkpoint_holds_weights_and_plain_values_only(tmp_path: Path):
    toy(tmp_path / "run").train()
    content = torch.load(tmp_path / "run/checkpoints/iter_12.pth", weights_only=True)
    assert set(content["state_dict"]) == {"linear.weight", "linear.bias"}
    assert {"optimizer", "param_schedulers", "meta"} <= set(content)


MARK = Path("executed")


class Malicious:
    def __reduce__(self) -> Any:
        return MARK.write_text, ("code from a checkpoint was run",)


@pytest.mark.parametrize("format_", ["zip", "old", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_never_run(format_: str):
    path = Path("evil.pth")
    content = {"state_dict": {"linear.weight": torch.ones(1, 2)}, "extra": Malicious()}
    if format_ == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=format_ == "zip")
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert caught.value.message.startswith("evil.pth ")
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2
    with pytest.raises(UserError):
        toy(Path("run"), load_from=path).train()
    assert not MARK.exists()
    assert "weights_only" not in caught.value.message and "trust" not in caught.value.message
    if format_ != "pickle":  # torch does not read that one in any way
        assert "it names getattr, which is not run" in caught.value.message
        assert "is no checkpoint of weights and plain values" in caught.value.message
        torch.load(path, weights_only=False)
        assert MARK.exists()  # it would have been run


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_named(share: float):
    whole = Path("whole.pth")
    torch.save({"state_dict": {"a": torch.rand(1000)}}, whole)
    assert read_checkpoint(whole)["state_dict"]["a"].shape == (1000,)
    content = whole.read_bytes()
    Path("cut.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError) as caught:
        read_checkpoint(Path("cut.pth"))
    assert caught.value.message.startswith("cut.pth ")
    assert "\n" not in caught.value.message


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def test_a_single_changed_bit_of_a_weight_is_noticed():
    """torch itself reads such a file without a word."""
    path, values = Path("x.pth"), torch.rand(1000)
    torch.save({"state_dict": {"a": values}}, path)
    flipped(path, path.read_bytes().index(values.numpy().tobytes()[:32]) + 2000)
    read = torch.load(path, weights_only=True)["state_dict"]["a"]
    assert (read != values).sum() == 1
    with pytest.raises(UserError, match=r"x\.pth cannot be read.*checksum|CRC"):
        read_checkpoint(path)


@pytest.mark.parametrize("how", ["cut", "bit", "empty"])
def test_a_damaged_newest_checkpoint_is_set_aside_for_the_one_before(how: str, tmp_path: Path):
    unbroken = toy(tmp_path / "unbroken")
    unbroken.train()
    with pytest.raises(Interrupted):
        toy(tmp_path / "run", every=4, hooks=(StopAfter(10),)).train()
    STOP.clear()
    run = RunFolder(tmp_path / "run")
    newest = run.checkpoints / "iter_10.pth"
    whole = newest.read_bytes()
    if how == "bit":
        flipped(newest, whole.index(b"iter") + 1)
    else:
        newest.write_bytes(whole[: len(whole) // 2] if how == "cut" else b"")
    bad = newest.read_bytes()

    chosen, _, notes = find_latest_checkpoint(run)
    assert chosen == run.checkpoints / "iter_8.pth"
    (note,) = notes
    assert "iter_10.pth" in note and note.endswith(
        "aside as iter_10.pth.damaged, iter_8.pth is taken instead"
    )
    assert (run.checkpoints / "iter_10.pth.damaged").read_bytes() == bad
    resumed = toy(tmp_path / "run", load_from=chosen, resume=True)
    resumed.train()
    for name, value in state_of(resumed).items():
        assert torch.equal(value, state_of(unbroken)[name]), name


def stopped(run: RunFolder, iteration: int = 8) -> Path:
    """The checkpoint of a toy run that was asked to stop."""
    with pytest.raises(Interrupted):
        toy(run.path, hooks=(StopAfter(iteration),)).train()
    STOP.clear()
    return run.checkpoints / f"iter_{iteration}.pth"


def test_each_checkpoint_that_stays_has_its_sha256(tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    toy(run.path, every=2).train()
    paths = [run.checkpoints / name for name in ("iter_10.pth", "iter_12.pth")]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  checkpoints/{path.name}" for path in paths]
    assert run.digests.read_text().splitlines() == lines


@pytest.mark.parametrize("how", ["attributes", "legacy", "digest", "text"])
def test_a_file_that_passes_its_own_checksums_is_compared_with_its_digest(how: str, tmp_path: Path):
    """One bit of a zip entry's attributes makes it a folder: `testzip` passes, and torch reads other memory."""
    run = RunFolder(tmp_path / "run")
    path = stopped(run)
    assert find_latest_checkpoint(run)[0] == path
    if how == "attributes":
        flipped(path, path.read_bytes().rindex(b"PK\x01\x02") + 38)
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None and archive.infolist()[-1].external_attr == 0x10
    elif how == "legacy":
        torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    if how in ("attributes", "legacy"):
        with pytest.raises(UserError, match=r"iter_8\.pth cannot be read.* SHA-256"):
            read_checkpoint(path)
        assert find_latest_checkpoint(run)[0] == run.checkpoints / "iter_4.pth"
        return
    run.digests.unlink() if how == "digest" else run.digests.write_bytes(b"\xff no digests")
    assert find_latest_checkpoint(run)[0] == path  # as of a run that was made before there were any


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
                                   PermissionError(errno.EACCES, "Permission denied")])  # fmt: skip
def test_a_checkpoint_that_cannot_be_read_now_is_not_set_aside(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = RunFolder(tmp_path / "run")
    path = stopped(run)

    def load(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(type(error)):
        find_latest_checkpoint(run)
    assert path.exists()


@pytest.mark.parametrize("how", ["name", "run", "weights", "iteration", "folder"])
def test_what_is_no_checkpoint_of_this_run_is_set_aside_with_a_note(how: str, tmp_path: Path):
    run = RunFolder(tmp_path / "0123abcd" / "seed0")
    run.path.parent.mkdir()
    good, other = stopped(run), run.checkpoints / "iter_9.pth"
    content = torch.load(good, weights_only=True)
    content["meta"] |= {
        "iter": 9,
        "cfg": f"x = 1\nwork_dir = '/results/runs/rlo/{run.path.parent.name}/seed0'\n",
    }
    torch.save(content, other)
    assert find_latest_checkpoint(run) == (other, content["meta"]["epoch"], [])  # moved, but this run's
    if how == "name":
        other = other.rename(run.checkpoints / "iter_abc.pth")
    elif how == "run":
        content["meta"]["cfg"] = "work_dir = '/results/runs/rlo/89abcdef/seed0'"
        torch.save(content, other)
    elif how == "weights":
        torch.save({"state_dict": content["state_dict"]}, other)
    elif how == "iteration":
        other = other.rename(run.checkpoints / "iter_500.pth")
    else:
        other.unlink()
        other.mkdir()
    chosen, _, notes = find_latest_checkpoint(run)
    assert chosen == good
    assert notes[0].startswith(str(other)) and f"set aside as {other.name}.damaged" in notes[0]
    assert {path.name for path in run.checkpoints.iterdir()} == {
        "iter_4.pth", "iter_8.pth", f"{other.name}.damaged"
    }  # fmt: skip
    assert find_latest_checkpoint(run)[2] == []


def test_with_no_whole_checkpoint_left_the_run_begins_anew_and_says_so(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    for number in (4, 8):
        (run.checkpoints / f"iter_{number}.pth").write_bytes(b"")
    chosen, _, notes = find_latest_checkpoint(run)
    assert chosen is None
    assert [note.split(" ")[0] for note in notes] == [str(run.checkpoints / f"iter_{n}.pth") for n in (8, 4)]
    assert notes[-1].endswith("no other is left: the run begins anew")
    assert saved(tmp_path) == ["iter_4.pth.damaged", "iter_8.pth.damaged"]


@pytest.mark.parametrize("content", ["text", "list", "absent", "folder"])
def test_what_is_no_checkpoint_at_all_says_so(content: str):
    path = Path("x.pth")
    if content == "text":
        path.write_text("hello, I am no checkpoint\n")
    elif content == "list":
        torch.save([torch.ones(2)], path)
    elif content == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"x\.pth"):
        read_checkpoint(path)


# --------------------------------------------------------------------------- weights of another model


def weights(path: str = "weights.pth", **changes: Any) -> Path:
    state = {"linear.weight": torch.full((1, 2), 0.25), "linear.bias": torch.full((1,), 0.5), **changes}
    torch.save({"state_dict": {k: v for k, v in state.items() if v is not None}}, path)
    return Path(path)


def loaded(path: Path, resume: bool = False) -> ToyModel:
    runner = toy(Path("run"), load_from=path, resume=resume)
    runner.load_or_resume()
    return runner.model


def test_a_start_from_given_weights_takes_what_fits():
    assert loaded(weights()).linear.weight.tolist() == [[0.25, 0.25]]
    torch.manual_seed(0)
    model = loaded(weights(**{"linear.weight": torch.ones(7, 2), "other.weight": torch.ones(1)}))
    assert model.linear.bias.tolist() == [0.5]
    assert model.linear.weight.shape == (1, 2)  # a head for other classes stays as initialised
    model = loaded(weights(**{"linear.bias": None}))
    assert model.linear.weight.tolist() == [[0.25, 0.25]]
    bare = Path("bare.pth")
    torch.save({"linear.weight": torch.zeros(1, 2), "linear.bias": torch.zeros(1)}, bare)
    assert loaded(bare).linear.bias.tolist() == [0.0]


def test_weights_none_of_which_fit_are_refused():
    with pytest.raises(UserError, match="holds none of the model's weights"):
        loaded(weights(**{"linear.weight": None, "linear.bias": torch.ones(3), "x": torch.ones(1)}))


@pytest.mark.parametrize(
    "changes",
    [{"linear.bias": None}, {"other": torch.ones(1)}, {"linear.weight": torch.ones(7, 2)}],
)
def test_a_run_resumes_only_its_own_model(changes: dict[str, Any]):
    with pytest.raises(UserError, match=r"weights\.pth is of another model"):
        loaded(weights(**changes), resume=True)
