"""One run on several processes: the ranks agree all along, and what is accumulated in one process is the same."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.launching.plan import PlanOptions, claim_run, plan, prepare
from experiments.recipes.loading import load_recipe
from experiments.runs.record import Attempt
from experiments.runs.run_folder import RunFolder

from .broken_off import GATED, assert_same, gated, result, start_held
from .conftest import Place, children, ended, parent, rows, small

ITERATIONS = 14
SETS = ["weighting.alpha=4", "schedule.gpus=2", "set.model.backbone.norm_eval=true",
        "set.+optim_wrapper.clip_grad={max_norm: 10}"]  # fmt: skip


class Trained:
    """A run, and what each rank has seen of it."""

    def __init__(self, run: RunFolder, processes: int) -> None:
        self.run, names = run, [f"{run.path}/rank{rank}" for rank in range(processes)]
        self.ranks: list[dict[str, torch.Tensor]] = [torch.load(f"{n}.pt", weights_only=True) for n in names]
        self.steps: list[list[Any]] = [json.loads(Path(f"{n}.steps").read_text()) for n in names]

    @property
    def attempt(self) -> Attempt:
        (attempt,) = self.run.read().attempts
        return attempt


@pytest.fixture(scope="module")
def train(make_place):
    """Trains RetinaNet with RLO, batches of 2 x 2 images and frozen normalisation, executed in a given way."""

    def trained(name: str, processes: int, micro_batch: int, *sets: str) -> Trained:
        place: Place = make_place(name)
        place.add_module("watch")
        options = small(
            *SETS, "imports=[watch]", "set.+default_hooks.watch={type: Watch}", *sets, iterations=ITERATIONS
        )  # fmt: skip
        return _work(place, options, processes, micro_batch)

    return trained


def _work(place: Place, options: list[str], processes: int, micro_batch: int) -> Trained:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place.folder)
        patched.setenv("HOME", str(place.home))
        recipe = load_recipe("retinanet-r50-rlo", "tiny", [w for w in options if "=" in w], "few.yaml")
        (planned,) = plan([("", recipe)], PlanOptions([0], place.folder / "results"))
        with claim_run(planned):
            prepare(planned, ["test"])
    record = planned.folder.read()
    record.launch.processes, record.launch.micro_batch = processes, micro_batch
    planned.folder.write(record)
    worker = ["-m", "experiments.training.worker", str(planned.folder.path)]
    if processes > 1:
        worker = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *worker]
    place.extra = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    said = ended(place.start_command([sys.executable, *worker]))
    assert said.returncode == 0, said.stdout + said.stderr
    return Trained(planned.folder, processes)


@pytest.fixture(scope="module")
def two_ranks(train) -> Trained:
    return train("two_ranks", 2, 2)


def test_two_ranks_have_one_model_and_one_rule_all_along(two_ranks: Trained) -> None:
    attempt, record = two_ranks.attempt, two_ranks.run.read()
    assert record.status == "done"
    assert (attempt.world_size, attempt.micro_batch, attempt.accumulation) == (2, 2, 1)
    assert all(0 <= value <= 100 for value in record.metrics.values())
    assert len(two_ranks.steps[0]) == ITERATIONS
    assert (
        two_ranks.steps[0] == two_ranks.steps[1]
    )  # weights, probabilities, parameters: to the bit, every step
    assert len({json.dumps(weights) for weights, _, _ in two_ranks.steps[0]}) > 1
    for name, value in two_ranks.ranks[0].items():
        assert torch.equal(value, two_ranks.ranks[1][name]), name
    trace = rows(two_ranks.run.trace)
    assert [int(row["iteration"]) for row in trace] == [t for t in (4, 8, 12) for _ in range(5)]
    probabilities = two_ranks.steps[0][-1][1]
    last = [float(trace[-1][f"p_{a}"]) for a in ("variance", "smallest", "largest", "uniform")]
    assert probabilities == pytest.approx(last, abs=1e-12)


def test_a_rank_that_is_killed_costs_steps_and_changes_nothing(two_ranks: Trained, place: Place) -> None:
    """torchrun ends the others, and the command starts them again: they are held no second time."""
    gated(place).add_module("watch")
    both = ["imports=[gate, watch]", "set.+default_hooks.watch={type: Watch}", *GATED[1:2]]
    command = ["run", "retinanet-r50-rlo", "--gpus", "2", *small(*SETS, *both, iterations=ITERATIONS)]
    process, rank_0 = start_held(place, "checkpoint", 10, command)
    assert rank_0 is not None
    (rank_1,) = set(children(parent(rank_0))) - {rank_0}
    os.kill(rank_1, signal.SIGKILL)
    said = ended(process)
    assert said.returncode == 0, said.stdout + said.stderr
    run = place.only_run()
    first, second = run.read().attempts
    assert (first.exit_code, second.exit_code) == (75, 0)
    assert second.first_iteration in (5, 10)  # torchrun may give rank 0 the time to end its write
    assert_same(result(run, ITERATIONS), result(two_ranks.run, ITERATIONS))
    assert not [
        *place.folder.glob(".dist_test"),
        *run.path.rglob("*.parts"),
    ]  # where ranks hand over detections
    for ours, theirs in zip(Trained(run, 2).steps, two_ranks.steps):
        assert ours == theirs[second.first_iteration :]


@pytest.mark.parametrize(
    ("micro_batch", "accumulation"), [(2, 2), pytest.param(1, 4, marks=pytest.mark.slow)]
)
def test_one_process_accumulates_what_two_ranks_do(
    micro_batch: int, accumulation: int, two_ranks: Trained, train
) -> None:
    """The same images in the same micro-batches give the same losses, weights and parameters, to rounding.

    With one image at a time each loss is normalised by that image's positives: alike, not the same.
    """
    one = train(f"accumulated{micro_batch}", 1, micro_batch)
    attempt = one.attempt
    assert (attempt.world_size, attempt.micro_batch, attempt.accumulation) == (1, micro_batch, accumulation)
    assert one.run.name == two_ranks.run.name  # how it is executed is no part of what it is
    ours, theirs = rows(one.run.trace), rows(two_ranks.run.trace)
    assert len(ours) == len(theirs) == 15
    if micro_batch == 1:
        first = [sum(float(row["loss"]) for row in trace[:5]) for trace in (ours, theirs)]
        assert first[0] == pytest.approx(first[1], rel=0.1)
        return
    for mine, other in zip(ours, theirs):
        assert mine["action"] == other["action"]
        for column in ("loss_cls", "loss_bbox", "loss", "weight", "p_variance"):
            assert float(mine[column]) == pytest.approx(float(other[column]), rel=1e-4), column
    for (weights, _, total), (their_weights, _, their_total) in zip(one.steps[0], two_ranks.steps[0]):
        assert weights == pytest.approx(their_weights, rel=1e-5)
        assert total == pytest.approx(their_total, rel=1e-5, abs=1e-3)
    for name, value in one.ranks[0].items():
        assert torch.allclose(value, two_ranks.ranks[0][name], rtol=1e-3, atol=1e-5), name


@pytest.mark.slow
def test_bfloat16_trains_on_the_cpu_too(train) -> None:
    run = train("bf16", 1, 2, "amp=bf16", "schedule.gpus=1").run
    assert "BFloat16OptimWrapper" in run.config.read_text()
    losses = [float(row["loss"]) for row in rows(run.trace)]
    assert len(losses) == 15
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.slow
def test_out_of_memory_is_tried_once_more_with_half_the_images(place: Place) -> None:
    place.add_module("scarce")
    sets = "imports=[scarce]", "set.+default_hooks.scarce={type: Scarce}"
    said = place.msdet("run", "retinanet-r50-rlo", *small(*sets, iterations=12))
    assert said.returncode == 0, said.stdout + said.stderr
    record = place.only_run().read()
    assert [attempt.exit_code for attempt in record.attempts] == [4, 0]
    assert [(a.micro_batch, a.accumulation) for a in record.attempts] == [(2, 1), (1, 2)]
    assert record.attempts[1].first_iteration == 5  # from the last checkpoint
    assert record.launch.reduced
    report = place.msdet("report")
    assert "†" in report.stdout and "out of memory" in report.stdout
    assert "†" in place.msdet("runs").stdout


@pytest.mark.slow
def test_the_number_of_data_workers_changes_nothing(train) -> None:
    none = train("no_workers", 1, 2)
    two = train(
        "two_workers", 1, 2,
        "set.train_dataloader.num_workers=2", "set.train_dataloader.persistent_workers=true",
    )  # fmt: skip
    assert two.run.trace.read_text() == none.run.trace.read_text()
    assert two.run.metrics.read_text() == none.run.metrics.read_text()
    for name, value in two.ranks[0].items():
        assert torch.equal(value, none.ranks[0][name]), name
