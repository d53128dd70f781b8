"""What only a GPU can show, run by `make test-gpu`: exact resuming there, memory that runs out, mixed precision."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable

import pytest
import torch

from .broken_off import GATED, assert_same, gated, result, start_held
from .conftest import Place, ended, rows, small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make test-gpu"),
]
ITERATIONS = 14
DETERMINISTIC = "set.+randomness.deterministic=true"


@pytest.mark.parametrize(("recipe", "more"), [("retinanet-r50-rlo", ["--fast"]), ("faster-rcnn-r50-rlo", [])])
def test_with_deterministic_algorithms_a_broken_off_run_ends_with_the_same_bits(
    make_place: Callable[[str], Place], recipe: str, more: list[str]
) -> None:
    words = small("weighting.alpha=4", DETERMINISTIC, *GATED, iterations=ITERATIONS)
    command = ["run", recipe, *words, *more]
    unbroken, broken = gated(make_place("unbroken")), gated(make_place("broken"))
    said = unbroken.msdet(*command)
    assert said.returncode == 0, said.stdout + said.stderr
    process, _ = start_held(broken, "train", 6, command)
    process.send_signal(signal.SIGINT)
    assert ended(process).returncode == 75
    assert broken.msdet(*command).returncode == 0
    assert unbroken.only_run().read().attempts[0].device != "cpu"
    assert len(broken.only_run().read().attempts) == 2
    assert_same(result(unbroken.only_run(), ITERATIONS), result(broken.only_run(), ITERATIONS))


def test_memory_that_runs_out_is_tried_once_more_with_half_the_images(place: Place) -> None:
    place.add_module("less_memory")
    sets = "imports=[less_memory]", "set.+default_hooks.less={type: LessMemory}", "schedule.images_per_gpu=16"
    said = place.msdet("run", "retinanet-r50-rlo", *small(*sets))
    assert said.returncode == 0, said.stdout + said.stderr
    record = place.only_run().read()
    assert [attempt.exit_code for attempt in record.attempts] == [4, 0]
    assert "CUDA out of memory" in record.attempts[0].message
    assert [(a.micro_batch, a.accumulation) for a in record.attempts] == [(16, 1), (8, 2)]
    assert record.launch.reduced


def test_float16_with_fast_trains_and_is_evaluated(place: Place) -> None:
    said = place.msdet("run", "retinanet-r50-rlo", *small("weighting.alpha=4"), "--fast", "--amp", "fp16")
    assert said.returncode == 0, said.stdout + said.stderr
    run = place.only_run()
    assert run.read().status == "done" and "AP" in run.read().metrics
    assert all(math.isfinite(float(row["loss"])) for row in rows(run.trace))
