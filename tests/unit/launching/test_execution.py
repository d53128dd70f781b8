"""Workers and their shares of the batch: the product is the recipe's batch, whatever executes it."""

from __future__ import annotations

import pytest

from experiments.common.errors import UserError
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu
from experiments.launching.retry_policy import halve
from experiments.recipes.loading import compute_recipe_id, load_recipe
from experiments.recipes.schema import Recipe

RECIPE = load_recipe("retinanet-r50-rlo")


def recipe(gpus: int, images: int) -> Recipe:
    schedule = RECIPE.schedule.model_copy(update={"gpus": gpus, "images_per_gpu": images})
    return RECIPE.model_copy(update={"schedule": schedule})


def machine(count: int) -> list[Gpu]:
    return [Gpu(index, f"GPU-{index}", "H100") for index in range(count)]


@pytest.mark.parametrize(
    ("schedule", "gpus", "options", "processes", "micro_batch"),
    [
        ((4, 2), 0, {}, 1, 2),  # a lone process on a CPU accumulates 4 x 2
        ((4, 2), 1, {}, 1, 2),
        ((4, 2), 3, {}, 2, 2),  # 3 do not divide 4
        ((4, 2), 8, {}, 4, 2),
        ((6, 2), 4, {}, 3, 2),
        ((4, 2), 8, {"gpus": 8}, 8, 1),  # more workers than GPUs named: they share micro-batches
        ((4, 2), 8, {"gpus": 2}, 2, 2),
        ((4, 2), 8, {"gpus": 4, "gpus_per_run": 2}, 2, 2),
        ((4, 2), 2, {"nodes": 2, "rdzv": "a:1"}, 2, 2),
        ((4, 2), 8, {"nodes": 2, "rdzv": "a:1"}, 2, 2),
        ((1, 8), 0, {"gpus": 2}, 2, 4),
        ((1, 6), 0, {"gpus": 2}, 2, 3),
        ((2, 3), 0, {"gpus": 3}, 3, 1),
    ],
)
def test_shares(schedule: tuple[int, int], gpus: int, options: dict, processes: int, micro_batch: int):
    execution = Execution(**options)
    execution.check()
    launch = execution.launch(recipe(*schedule), machine(gpus))
    assert (launch.processes, launch.micro_batch) == (processes, micro_batch)
    batch, workers = schedule[0] * schedule[1], launch.processes * launch.nodes
    assert batch % (workers * micro_batch) == 0 and schedule[1] % micro_batch == 0


@pytest.mark.parametrize(
    ("gpus", "options", "says"),
    [
        (0, {"gpus": 3}, "--scale-lr"),
        (2, {"gpus": 4}, "this machine has 2"),
        (4, {"gpus": 2, "gpus_per_run": 4}, "--gpus-per-run 4 exceeds --gpus 2"),
        (0, {"nodes": 2}, "--rdzv HOST:PORT"),
        (0, {"nodes": 2, "rdzv": "host"}, "not HOST:PORT"),
        (0, {"nodes": 2, "rdzv": "host:29500"}, "29500"),
        (0, {"rdzv": "host:1"}, "--nodes 2"),
        (0, {"scale_lr": True}, "--gpus 8 --scale-lr"),
    ],
)
def test_what_cannot_be(gpus: int, options: dict, says: str):
    with pytest.raises(UserError) as caught:
        execution = Execution(**options)
        execution.check()
        execution.launch(recipe(4, 2), machine(gpus))
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_options_that_make_another_experiment():
    plain = recipe(4, 2)
    assert Execution(gpus=2).changed(plain) == plain
    scaled = Execution(gpus=8, scale_lr=True).changed(plain)
    assert (scaled.schedule.batch, scaled.schedule.lr) == (16, 2 * plain.schedule.lr)
    assert Execution(gpus=8, scale_lr=True).launch(scaled, []).micro_batch == 2
    half = Execution(amp="bf16").changed(plain)
    assert len({compute_recipe_id(one) for one in (plain, scaled, half)}) == 3


def test_halving_leaves_a_divisor():
    assert [halve(n) for n in (1, 2, 3, 4, 6, 8, 9)] == [None, 1, 1, 2, 3, 4, 3]
