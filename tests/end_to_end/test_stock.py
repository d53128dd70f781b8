"""The same weighting outside msdet: MMDetection's own training script, MMEngine's own resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.children import search_path

from .conftest import Place, rows, small

EPOCH = 12  # iterations
ALPHA = 5  # so that an epoch ends in mid-interval
# Random flips off: MMEngine's own resuming does not restore random states.
SETS = ["schedule.iterations=null", "schedule.epochs=2", f"weighting.alpha={ALPHA}",
        "set.train_dataloader.dataset.pipeline.3.prob=0.0"]  # fmt: skip


@pytest.fixture(scope="module")
def ours(make_place) -> tuple[Place, Path]:
    """A run of msdet, and the config of its run folder."""
    place = make_place("ours")
    said = place.msdet("run", "retinanet-r50-rlo", *small(*SETS))
    assert said.returncode == 0, said.stdout + said.stderr
    return place, place.only_run().config


def stock_config(config_file: Path, **changes: Any) -> Any:
    """The config of a run with everything of msdet's own replaced by MMEngine's, but for the three lines."""
    from mmengine import Config

    config = Config.fromfile(config_file, import_custom_modules=False)
    config.custom_imports = dict(imports=["experiments.detection"], allow_failed_imports=False)
    assert config.model.type == "LevelWeightedRetinaNet"
    assert config.model.weighting.rule == "rlo"
    config.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2)
    assert config.train_dataloader.batch_sampler.type == "ResumableBatchSampler"
    config.train_dataloader.batch_sampler = config.train_dataloader.batch_sampler.inner
    config.train_dataloader.dataset.type = "CocoDataset"
    config.default_hooks.checkpoint = dict(type="CheckpointHook", interval=1)
    config.default_hooks.logger.interval = 1
    config.log_processor.window_size = 1
    config.custom_hooks = [dict(type="LevelWeightingHook")]
    for part in ("val", "test"):
        for kind in ("dataloader", "evaluator", "cfg"):
            config[f"{part}_{kind}"] = None
    config.merge_from_dict(changes)
    text = config.pretty_text
    assert "experiments.training" not in text and "Resumable" not in text and "Progress" not in text
    return config


def train(place: Place, *words: str, expected: int = 0) -> str:
    """MMDetection's own `tools/train.py`, as its package ships it."""
    import mmdet

    script = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    said = place.python(str(script), "stock.py", "--work-dir", "work", *words)
    assert said.returncode == expected, said.stdout + said.stderr
    return said.stdout + said.stderr


@pytest.mark.slow
def test_mmdetections_own_script_gives_the_same_trace_also_stopped_and_resumed(
    ours: tuple[Place, Path], place: Place
) -> None:
    trace = ours[0].only_run().trace.read_text()
    assert len(trace.splitlines()) == 1 + 5 * (2 * EPOCH // ALPHA)
    config = stock_config(ours[1])
    config.custom_imports["imports"].append("stop_between_epochs")
    config.custom_hooks.append(dict(type="StopBetweenEpochs"))
    config.dump(place.folder / "stock.py")
    place.add_module("stop_between_epochs")
    place.extra = {"PYTHONPATH": search_path(place.folder), "STOP": "1"}
    train(place, expected=3)
    written = (place.folder / "work" / "trace.csv").read_text()
    assert trace.startswith(written)
    assert len(written.splitlines()) == 1 + 5 * (EPOCH // ALPHA)
    del place.extra["STOP"]
    assert "resumed epoch: 1" in train(place, "--resume")
    assert (place.folder / "work" / "trace.csv").read_text() == trace


@pytest.mark.slow
def test_with_accumulated_gradients_the_rule_counts_optimizer_steps(
    ours: tuple[Place, Path], place: Place
) -> None:
    changes = {"optim_wrapper.accumulative_counts": 2, "default_hooks.checkpoint.interval": 5}
    stock_config(ours[1], **changes).dump(place.folder / "stock.py")
    train(place)
    trace = rows(place.folder / "work" / "trace.csv")
    steps = 2 * EPOCH // 2
    assert [int(row["iteration"]) for row in trace[::5]] == list(range(ALPHA, steps + 1, ALPHA))
    (scalars,) = (place.folder / "work").glob("*/vis_data/scalars.json")
    logged = [entry for entry in map(json.loads, scalars.read_text().splitlines()) if "loss_cls" in entry]
    assert len(logged) == 2 * EPOCH  # MMEngine's own log: the losses of every micro-batch
    for interval in range(steps // ALPHA):
        part = logged[interval * ALPHA * 2 : (interval + 1) * ALPHA * 2]
        levels = trace[interval * 5 : interval * 5 + 5]
        for term in ("loss_cls", "loss_bbox"):
            mean = sum(entry[term] for entry in part) / len(part)
            assert sum(float(row[term]) for row in levels) == pytest.approx(mean, rel=1e-5)
