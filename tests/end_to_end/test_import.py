"""A baseline trained for real by MMDetection's own script, taken in by msdet and evaluated again."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.runs.lookup import iterate

from .conftest import Place, rows

EPOCHS = 2
OPTIONS = ["-p", "tiny", "--dataset", "few.yaml"]
for _assignment in ("schedule.iterations=null", f"schedule.epochs={EPOCHS}", "schedule.images_per_gpu=2",
                    "schedule.warmup=5"):  # fmt: skip
    OPTIONS += ["--set", _assignment]


def stock(page: str) -> str:
    """The config that msdet would train, with everything of its own replaced by MMDetection's."""
    from mmengine import Config

    config = Config.fromstring(page, ".py")
    config.custom_imports = dict(
        imports=["experiments.detection"], allow_failed_imports=False
    )  # mmcv's operators
    config.model.type = config.model.type.removeprefix("LevelWeighted")
    config.model.pop("weighting")
    config.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=EPOCHS, val_interval=1)
    train = config.train_dataloader
    train.sampler = dict(type="DefaultSampler", shuffle=True)
    train.batch_sampler = dict(type="AspectRatioBatchSampler")
    train.dataset.type = config.val_dataloader.dataset.type = "CocoDataset"
    config.default_hooks = dict(
        checkpoint=dict(type="CheckpointHook", interval=1),
        logger=dict(type="LoggerHook", interval=5),
        param_scheduler=dict(type="ParamSchedulerHook"),
        sampler_seed=dict(type="DistSamplerSeedHook"),
        timer=dict(type="IterTimerHook"),
    )
    config.custom_hooks = []
    config.val_evaluator = dict(type="CocoMetric", ann_file=config.val_evaluator.ann_file, metric="bbox")
    config.test_evaluator = config.val_evaluator
    config.pop("work_dir")
    config.randomness = dict(seed=3)
    text = config.pretty_text
    assert "experiments.training" not in text and "Exact" not in text and "Resumable" not in text
    return text


@pytest.mark.slow
def test_a_stock_training_is_taken_in(place: Place) -> None:
    import mmdet

    place.extra = {"OMP_NUM_THREADS": "1"}
    assert place.msdet("data", "make", "few.yaml").returncode == 0
    page = place.msdet("show", "retinanet-r50", *OPTIONS, "--config").stdout
    (place.folder / "stock.py").write_text(stock(page))
    script = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    said = place.python(str(script), "stock.py", "--work-dir", "work")
    assert said.returncode == 0, said.stdout + said.stderr

    said = place.msdet("import", "work", "--recipe", "retinanet-r50", *OPTIONS, "--copy-checkpoint")
    assert said.returncode == 0, said.stdout + said.stderr
    (run,) = iterate(place.folder / "results")
    record = run.read()
    assert record.imported is not None
    assert (record.notes, record.imported["differs"]) == ([], [])  # it is what msdet would have trained
    assert (record.seed, record.iterations, record.dataset["images"]["train"]) == (3, EPOCHS * 12, 24)
    assert record.environment["packages"]["torch"]
    assert len(rows(run.metrics)) == EPOCHS

    # The copied weights, evaluated by msdet, give the metrics that MMDetection logged with three digits.
    said = place.msdet("eval", run.name)
    assert said.returncode == 0, said.stderr
    words = said.stdout.split(": ")[-1].split()
    again = dict(zip(words[::2], map(float, words[1::2])))
    assert again.keys() == record.metrics.keys()
    for name, value in record.metrics.items():
        assert value == pytest.approx(again[name], abs=0.051), name

    said = place.msdet("run", "retinanet-r50", *OPTIONS, "--seed", "3")  # is no reason to skip our own
    assert said.returncode == 0, said.stdout + said.stderr
    taken_in, own = iterate(place.folder / "results")
    assert taken_in.read() == record
    assert (own.read().imported, own.read().status) == (None, "done")
    report = place.msdet("report", "--format", "csv").stdout.splitlines()
    header = report[0].split(",")
    ours = [dict(zip(header, line.split(","))) for line in report if "imported-retinanet-r50" in line]
    assert ours and all(line["imported"] == "1" for line in ours)
