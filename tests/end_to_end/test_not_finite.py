"""Trainings that break: each says where and why, keeps what it had, and leaves the others alone."""

from __future__ import annotations

import math
import re

import pytest
import torch
import yaml

from .conftest import Place, rows, small


def recipe(place: Place, name: str, **content: object) -> str:
    (place.folder / f"{name}.yaml").write_text(yaml.safe_dump({"extends": "retinanet-r50-rlo", **content}))
    return f"{name}.yaml"


def broken(place: Place, name: str, how: str, **content: object) -> str:
    place.add_module("breaks")
    hook = {"+default_hooks.breaking": {"type": "Break", "how": how}}
    return recipe(place, name, imports=["breaks"], set=hook, **content)


@pytest.mark.slow
def test_a_broken_training_says_where_and_the_rest_goes_on(place: Place) -> None:
    names = [broken(place, "turns-nan", "nan"), recipe(place, "sound")]
    options = small("weighting.alpha=4")
    said = place.msdet("run", *names, *options)
    runs = {run.path.parts[-3]: run for run in place.runs()}
    broke, sound = runs["turns-nan"], runs["sound"]
    last = broke.read().attempts[-1]
    assert (last.exit_code, sound.read().attempts[-1].exit_code) == (3, 0), said.stdout
    assert said.returncode == 3
    assert "Traceback" not in said.stdout + said.stderr

    # the finest level's regression is the first to meet the broken bias; the interval ends with iteration 8
    assert last.message == "loss_bbox of level P3 (bbox_head) became NaN at iteration 8"
    assert last.exit_class == "not finite"
    assert last.message in said.stdout
    assert [path.name for path in broke.checkpoints.iterdir()] == ["iter_5.pth"]
    whole = torch.load(broke.last_checkpoint(), weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in whole.values())
    assert {row["interval"] for row in rows(broke.trace)} == {"1"}
    assert all(math.isfinite(float(row["loss"])) for row in rows(broke.trace))
    assert len(sound.read().metrics) > 0

    # a failed run is told of, not tried again
    began = broke.record_file.stat().st_mtime_ns
    said = place.msdet("run", "turns-nan.yaml", *options)
    assert said.returncode == 3
    assert last.message in said.stdout and "--retry-failed" in said.stdout
    assert broke.record_file.stat().st_mtime_ns == began

    (place.folder / "mended").touch()
    said = place.msdet("run", "turns-nan.yaml", *options, "--retry-failed")
    assert said.returncode == 0, said.stdout
    assert [(a.first_iteration, a.exit_code) for a in broke.read().attempts] == [(0, 3), (5, 0)]
    # nothing of the broken attempt is left: the sound run has the same trace
    assert broke.trace.read_text() == sound.trace.read_text()


@pytest.mark.slow
def test_what_is_infinite_is_found_before_a_checkpoint_is_written(place: Place) -> None:
    """The interval is longer than the run: only the save at iteration 10 can notice."""
    name = broken(place, "turns-infinite", "inf")
    said = place.msdet("run", name, *small("weighting.alpha=100"))
    assert said.returncode == 3, said.stdout
    run = place.only_run()
    # a level without positives has the loss inf * 0
    pattern = r"loss_bbox of level P3 \(bbox_head\) became (infinite|NaN) at iteration 8"
    assert re.fullmatch(pattern, run.read().attempts[-1].message)
    assert [path.name for path in run.checkpoints.iterdir()] == ["iter_5.pth"]


@pytest.mark.slow
def test_a_learning_rate_far_too_high_is_named_as_the_cause(place: Place) -> None:
    name = recipe(place, "diverges", set={"optim_wrapper.optimizer.lr": 1e12})
    said = place.msdet("run", name, *small("weighting.alpha=4"))
    assert said.returncode == 3, said.stdout
    pattern = r"loss_(cls|bbox) of level P[3-7] \(bbox_head\) became (NaN|infinite) at iteration (\d+)"
    found = re.fullmatch(pattern, place.only_run().read().attempts[-1].message)
    assert found and 1 < int(found[3]) <= 12
    assert "lower schedule.lr" in said.stdout
