"""`--fast`: what it sets, that a resumed training is exact with it, and that it waits for the device less often."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine import Config
from mmengine.hooks import RuntimeInfoHook
from mmengine.model import BaseModel
from torch import nn

from benchmarks.dispatch import OperationCounter
from experiments.training import components  # noqa: F401  (registers loop, sampler and hooks)
from experiments.training.engine.fast import make_fast, move_ahead
from experiments.training.engine.runner import StrictRunner
from experiments.training.engine.stopping import STOP, Interrupted
from tests.unit.training.test_checkpoints import StopAfter, ToyImages, state_of
from tests.unit.training.test_config import built

pytestmark = pytest.mark.gpu
# On a GPU --fast sets TF32, of 10 bits after the point.
ROUNDING = dict(rtol=1e-3, atol=1e-4) if torch.cuda.is_available() else dict(rtol=1e-4, atol=1e-5)


class ConvModel(BaseModel):
    """Convolutions whose weights have more than one memory layout, drawn anew by `init_weights`."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

    def init_weights(self) -> None:
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, batch: torch.Tensor, mode: str) -> Any:
        images = batch[:, :, None, None] * torch.linspace(0, 0.1, 36, device=batch.device).view(1, 1, 6, 6)
        return {"loss": self.convs(images).square().mean(), "loss_other": batch.mean() * 0}


def runner_of(work_dir: Path, fast: bool, load_from: Path | None = None, hooks: tuple = ()) -> StrictRunner:
    work_dir.mkdir(exist_ok=True)
    optimizer: dict[str, Any] = dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-3)
    default_hooks: dict[str, Any] = dict(
        checkpoint=dict(type="ResumableCheckpointHook", every=4), logger=dict(type="LoggerHook", interval=2)
    )
    config = Config(
        dict(
            model=dict(),
            optim_wrapper=dict(optimizer=optimizer, clip_grad=dict(max_norm=0.5)),
            default_hooks=default_hooks,
        )
    )
    if fast:
        make_fast(config)
    return StrictRunner(
        model=ConvModel(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=ToyImages(),
            batch_size=4,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=True),
            batch_sampler=dict(type="ResumableBatchSampler"),
            collate_fn=dict(type="default_collate"),
        ),
        train_cfg=dict(type="ResumableTrainLoop", max_epochs=4),
        optim_wrapper=config.optim_wrapper.to_dict(),
        default_hooks=config.default_hooks.to_dict(),
        custom_hooks=list(hooks),
        load_from=None if load_from is None else str(load_from),
        resume=load_from is not None,
        default_scope="mmdet",
        log_level="ERROR",
        randomness=dict(seed=5),
        cfg=dict(fast=fast),
        experiment_name=f"{work_dir.name}-{os.urandom(4).hex()}",
    )


def trained(*arguments: Any, **options: Any) -> StrictRunner:
    runner = runner_of(*arguments, **options)
    runner.train()
    return runner


def stopped(work_dir: Path, fast: bool) -> Path:
    STOP.clear()
    try:
        with pytest.raises(Interrupted):
            trained(work_dir, fast, hooks=(StopAfter(5),))
    finally:
        STOP.clear()
    return work_dir / "checkpoints" / "iter_5.pth"


def test_a_resumed_training_is_exact_and_differs_from_an_ordinary_one_by_rounding(tmp_path: Path):
    unbroken = trained(tmp_path / "unbroken", True)
    resumed = trained(tmp_path / "resumed", True, load_from=stopped(tmp_path / "stopped", True))
    expected, found = state_of(unbroken), state_of(resumed)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert unbroken.optim_wrapper.param_groups[0]["fused"] is True
    assert found["model.convs.2.weight"].is_contiguous(memory_format=torch.channels_last)
    assert not found["model.convs.2.weight"].is_contiguous()
    ordinary = state_of(trained(tmp_path / "ordinary", False))
    for name, value in ordinary.items():
        torch.testing.assert_close(found[name], value, **ROUNDING)


@pytest.mark.parametrize("first", [False, True])
def test_a_training_may_be_resumed_with_the_other_choice(first: bool, tmp_path: Path):
    resumed = trained(tmp_path / "resumed", not first, load_from=stopped(tmp_path / "stopped", first))
    assert resumed.optim_wrapper.param_groups[0].get("fused") is (None if first else True)
    weight = resumed.model.convs[2].weight
    momentum = resumed.optim_wrapper.optimizer.state[weight]["momentum_buffer"]
    assert weight.is_contiguous() == first and momentum.stride() == weight.stride()
    ordinary = state_of(trained(tmp_path / "ordinary", False))
    for name, value in state_of(resumed).items():
        torch.testing.assert_close(value, ordinary[name], **ROUNDING)


def test_the_log_has_the_same_numbers_and_reads_them_once_an_interval(tmp_path: Path):
    logged = []
    for fast in (False, True):
        runner = trained(tmp_path / f"{fast}", fast)
        scalars = runner.message_hub.log_scalars
        logged.append(
            {name: scalars[f"train/{name}"].data[0] for name in ("loss", "loss_other", "grad_norm")}
        )
        assert isinstance(runner.hooks[0], RuntimeInfoHook)
    for name, values in logged[0].items():
        assert len(values) == 12  # one an iteration
        assert values == pytest.approx(logged[1][name], rel=ROUNDING["rtol"])
    hook, outputs = runner.hooks[0], {"loss": torch.tensor(1.0), "loss_other": torch.tensor(2.0)}
    with OperationCounter() as counter:
        hook.after_train_iter(runner, 0, outputs=outputs)
    assert not counter.waits


def test_a_config_says_what_is_faster():
    config = built("fcos-r50")
    before = config.to_dict()
    make_fast(config)
    changed = config.to_dict()
    assert changed["fast"] is changed["model"]["fast"] is True
    assert changed["optim_wrapper"]["optimizer"] == {**before["optim_wrapper"]["optimizer"], "fused": True}
    assert changed["default_hooks"]["runtime_info"] == dict(type="DeferredRuntimeInfoHook", every=50)
    own = built("retinanet-r50", "optim_wrapper.optimizer.foreach=true")
    make_fast(own)
    assert "fused" not in own.optim_wrapper.optimizer  # PyTorch allows one of the two


@pytest.mark.parametrize("name", ["retinanet-r50", "retinanet-r50 -p tiny"])
def test_half_precision_trains_on_when_its_first_step_is_skipped(name: str):
    """With float16 the first gradients overflow as a rule: GradScaler skips the step and halves its scale."""
    recipe, _, profile = name.partition(" -p ")
    config = built(recipe, "amp=fp16", profile=profile or None)
    make_fast(config)
    options = {key: value for key, value in config.optim_wrapper.optimizer.items() if key != "type"}
    weight = nn.Parameter(torch.ones(1000))
    optimizer = getattr(torch.optim, config.optim_wrapper.optimizer.type)([weight], **options)
    poison = torch.full((1000,), float("nan"))  # what PyTorch's allocator may hand out next
    del poison
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for gradient in (float("inf"), 1.0, 1.0):
        weight.grad = scaler.scale(torch.full((1000,), gradient))
        scaler.step(optimizer)
        scaler.update()
    assert weight.isfinite().all() and (weight < 1).all()


class Recorder:
    """Stands for `torch.cuda`: notes the order in which streams and events are used."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def Stream(self) -> Any:  # noqa: N802
        return Stream(self, "side")

    def current_stream(self) -> Any:
        return Stream(self, "main")

    def stream(self, stream: Any) -> Any:
        return stream


class Stream:
    def __init__(self, cuda: Recorder, name: str) -> None:
        self.cuda, self.name = cuda, name

    def record_event(self) -> str:
        steps = sum(call.startswith("step") for call in self.cuda.calls)
        return f"{self.name} after {steps} steps"

    def wait_event(self, event: str) -> None:
        self.cuda.calls.append(f"{self.name} waits for {event}")

    def wait_stream(self, other: Stream) -> None:
        self.cuda.calls.append(f"{self.name} waits for {other.name}")

    def __enter__(self) -> None:
        self.cuda.calls.append(f"on {self.name}")

    def __exit__(self, *_: Any) -> None:
        self.cuda.calls.append("on main")


def test_a_batch_is_copied_beside_the_step_before_and_used_when_it_is_there():
    """The order of calls only: no GPU is here."""
    cuda = Recorder()
    for batch in move_ahead(["a", "b", "c"], lambda batch: cuda.calls.append(f"copy {batch}"), cuda):
        assert batch is None
        cuda.calls.append(f"step {sum(call.startswith('step') for call in cuda.calls)}")
    copies = [i for i, call in enumerate(cuda.calls) if call.startswith("copy")]
    assert [cuda.calls[i - 2 : i + 3] for i in copies] == [
        [
            f"side waits for main after {max(0, n - 1)} steps",
            "on side",
            f"copy {name}",
            "on main",
            "main waits for side",
        ]
        for n, name in enumerate("abc")
    ]
