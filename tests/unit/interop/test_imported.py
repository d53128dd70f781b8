"""`msdet import`: work folders written here by hand, in the form that MMEngine gives them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.interop import stock_recipe
from experiments.interop.import_run import MatchedTraining, write_run
from experiments.interop.stock_run import StockRun, read_stock_run
from experiments.recipes.loading import compute_config_hash, load_recipe
from experiments.runs.lookup import iterate
from experiments.runs.run_folder import RunFolder
from experiments.training.engine.checkpoints import copy_weights
from msdet_cli.app import app

HEADER = """\
2026/01/02 10:00:00 - mmengine - INFO -
------------------------------------------------------------
System environment:
    Python: 3.10.4 (main)
    CUDA available: True
    GPU 0,1,2,3,4,5,6,7: NVIDIA A100-SXM4-80GB
    PyTorch: 2.4.1+cu121
    PyTorch compiling details: PyTorch built with:
  - CUDA Runtime 12.1
  - CuDNN 90.1
    TorchVision: 0.19.1
    MMEngine: 0.10.5

Runtime environment:
    seed: {seed}
    Distributed launcher: pytorch
    GPU number: {gpus}
------------------------------------------------------------
2026/01/02 10:00:09 - mmengine - INFO - Epoch(train)  [1][  50/7330]  lr: 1e-03
2026/01/02 22:30:00 - mmengine - INFO - Epoch(val) [12][625/625]    coco/bbox_mAP: 0.3650
"""
CONFIG: dict[str, Any] = {
    "model": {"type": "RetinaNet"},
    "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 12, "val_interval": 1},
    "train_dataloader": {
        "batch_size": 2,
        "dataset": {
            "type": "CocoDataset",
            "data_root": "data/coco/",
            "ann_file": "annotations/instances_train2017.json",
        },
    },
    "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.01}},
    "param_scheduler": [
        {"type": "LinearLR", "by_epoch": False, "begin": 0, "end": 500, "start_factor": 0.001},
        {"type": "MultiStepLR", "by_epoch": True, "milestones": [8, 11], "gamma": 0.1},
    ],
    "auto_scale_lr": {"enable": False, "base_batch_size": 16},
}
EVALUATED = {"coco/bbox_mAP": 0.365, "coco/bbox_mAP_50": 0.554, "coco/bbox_mAP_s": -1.0}


def changed(**values: Any) -> dict[str, Any]:
    """CONFIG with dotted keys (`__` for the dot) set."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in values.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def start(
    work: Path, name: str, entries: list[Any], config: str | None = None, log: str | None = None
) -> None:
    """One start of the training script."""
    folder = work / name / "vis_data"
    folder.mkdir(parents=True)
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / "scalars.json").write_text("\n".join(lines) + "\n")
    if config is not None:
        (folder / "config.py").write_text(config)
    if log is not None:
        (folder.parent / f"{name}.log").write_text(log)


def work_dir(
    path: Path, config: dict[str, Any] | str | None = None, evaluated: Any = None, **header: Any
) -> Path:
    config = config or CONFIG
    text = config if isinstance(config, str) else "".join(f"{k} = {v!r}\n" for k, v in config.items())
    log = HEADER.format(**{"seed": 5, "gpus": 8, **header})
    start(path, "20260102_100000", [{"loss": 1.0, "epoch": 1, "step": 50}, {**(evaluated or EVALUATED), "step": 12}],
          text, log)  # fmt: skip
    (path / "retinanet_r50_fpn_1x_coco.py").write_text(text)
    return path


def stock(tmp_path: Path, name: str = "work", **changes: Any) -> StockRun:
    return read_stock_run(work_dir(tmp_path / name, changed(**changes)))


def test_metrics_are_percent_and_what_has_no_objects_is_left_out(tmp_path: Path):
    assert stock(tmp_path).metrics == {"AP": 36.5, "AP50": 55.4}
    voc = work_dir(tmp_path / "voc", evaluated={"pascal_voc/mAP": 0.78123456, "pascal_voc/AP50": 0.781})
    assert read_stock_run(voc).metrics == {"mAP": 78.123456}


def test_the_log_tells_the_environment(tmp_path: Path):
    (log,) = stock(tmp_path).logs
    assert (log.world_size, log.seed, log.epoch_length) == (8, 5, 7330)
    assert (log.began, log.ended) == ("2026-01-02T10:00:00", "2026-01-02T22:30:00")
    assert log.environment["gpus"] == ["NVIDIA A100-SXM4-80GB"] * 8
    assert (log.environment["cuda"], log.environment["cudnn"]) == ("12.1", "90.1")
    assert log.environment["packages"] == {
        "torch": "2.4.1+cu121",
        "torchvision": "0.19.1",
        "mmengine": "0.10.5",
    }


def test_a_resumed_training_has_the_evaluations_of_its_last_way(tmp_path: Path):
    work = work_dir(tmp_path / "work")
    late = tmp_path / "work" / "20260102_100000" / "vis_data" / "scalars.json"
    earlier = [{"loss": 1.0, "epoch": 1, "step": 50}]
    earlier += [{"coco/bbox_mAP": e / 100, "step": e} for e in (9, 10, 11)]
    start(work, "20260101_100000", [*earlier, '{"coco/bbox_mAP": 0.'])
    late.write_text('{"loss": 1.0, "epoch": 11, "step": 9}\n' + json.dumps({**EVALUATED, "step": 12}) + "\n")
    found = read_stock_run(work).evaluations
    assert {step: metrics["AP"] for step, metrics in found.items()} == {9: 9.0, 10: 10.0, 12: 36.5}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{"loss": 1.0, "epoch": 1, "step": 50}], "no box metrics"),
        ([{"coco/bbox_mAP": 0.3, "step": 11}], "the last epoch, 12, has no evaluation"),
        ([{"coco/bbox_mAP": float("nan"), "step": 12}], "no box metrics"),
    ],
)
def test_an_unfinished_training_is_no_baseline(tmp_path: Path, entries: list[Any], says: str):
    start(tmp_path, "20260101_100000", entries, "train_cfg = dict(max_epochs=12)\n")
    with pytest.raises(UserError, match=says):
        read_stock_run(tmp_path)


def test_other_folders_are_refused(tmp_path: Path):
    own = tmp_path / "seed0"
    own.mkdir()
    (own / "record.json").write_text("{}")
    with pytest.raises(UserError, match="is a run of msdet"):
        read_stock_run(own)
    with pytest.raises(UserError, match="no work folder of MMDetection"):
        read_stock_run(tmp_path)
    (tmp_path / "20200101_100000.log.json").touch()
    with pytest.raises(UserError, match="MMDetection 2 is not supported"):
        read_stock_run(tmp_path)


def test_the_schedule_is_the_work_folders(tmp_path: Path):
    recipe, unknown = stock_recipe.match_recipe(load_recipe("retinanet-r50"), stock(tmp_path))
    schedule = recipe.schedule
    assert recipe.name == "imported-retinanet-r50"
    assert (schedule.gpus, schedule.images_per_gpu, schedule.lr) == (8, 2, 0.01)
    assert (schedule.epochs, schedule.iterations, schedule.milestones) == (12, None, [8, 11])
    assert (recipe.amp, unknown) == (None, [])
    same = {"optim_wrapper__optimizer__lr": 0.005, "train_dataloader__batch_size": 1}  # 8 GPUs x 1
    recipe, _ = stock_recipe.match_recipe(load_recipe("retinanet-r50"), stock(tmp_path, "same", **same))
    assert compute_config_hash(recipe, "f") == compute_config_hash(load_recipe("retinanet-r50"), "f")


def test_scaled_rates_accumulation_and_precision(tmp_path: Path):
    changes = {
        "auto_scale_lr__enable": True,
        "train_dataloader__batch_size": 4,
        "optim_wrapper__accumulative_counts": 2,
        "optim_wrapper__type": "AmpOptimWrapper",
    }
    recipe, _ = stock_recipe.match_recipe(load_recipe("retinanet-r50"), stock(tmp_path, **changes))
    assert recipe.schedule.lr == pytest.approx(0.01 * 8 * 4 / 16)
    assert (recipe.schedule.gpus, recipe.schedule.images_per_gpu, recipe.amp) == (8, 8, "fp16")


def test_what_contradicts_the_recipe_is_refused(tmp_path: Path):
    run = stock(tmp_path)
    with pytest.raises(UserError, match=r"trained with weighting uniform \(none\)"):
        stock_recipe.match_recipe(load_recipe("retinanet-r50-rlo"), run)
    with pytest.raises(UserError, match=r"instances_train2017.json, .* data set 'voc'"):
        stock_recipe.match_recipe(load_recipe("retinanet-r50-voc"), run)
    weighted = stock(tmp_path, "weighted", model__weighting={"rule": "rlo", "alpha": 50})
    with pytest.raises(UserError, match="'alpha': 50"):
        stock_recipe.match_recipe(load_recipe("retinanet-r50-rlo"), weighted)
    recipe = load_recipe("retinanet-r50-rlo", sets=["weighting.alpha=50"])
    assert stock_recipe.match_recipe(recipe, weighted)[0].weighting["alpha"] == 50


BAD_VALUES = (
    None,
    5,
    -1,
    1e400,
    True,
    "x",
    [],
    [5],
    [[1]],
    {},
    {"a": 1},
    {5: 1},
    {"dataset": 5, "datasets": 5},
)


def dotted(content: Any, path: str = "") -> list[str]:
    inner = (
        [key for k, v in content.items() for key in dotted(v, f"{path}{k}__")]
        if isinstance(content, dict)
        else []
    )
    return [*inner, path.removesuffix("__")] if path else inner


@pytest.mark.parametrize("key", [*dotted(CONFIG), "train_dataloader__dataset__metainfo__classes", "model__weighting",
                                 "optim_wrapper__accumulative_counts", "randomness__seed"])  # fmt: skip
def test_a_malformed_config_is_one_line(tmp_path: Path, key: str):
    recipe = load_recipe("retinanet-r50")
    work_dir(tmp_path)
    for value in BAD_VALUES:
        text = "".join(f"{k} = {v!r}\n" for k, v in changed(**{key: value}).items())
        (tmp_path / "20260102_100000" / "vis_data" / "config.py").write_text(text)
        try:
            run = read_stock_run(tmp_path)
            stock_recipe.match_recipe(recipe, run)
            stock_recipe.list_differences(run.content, CONFIG)
            stock_recipe.check_classes(run, SimpleNamespace(spec=recipe.dataset, root="", classes=["a"]))
        except UserError as error:
            assert len(error.message) < 600


def test_a_long_log_is_read_in_time(tmp_path: Path):
    work = work_dir(tmp_path)
    log = work / "20260102_100000" / "20260102_100000.log"
    log.write_text("\n" * 100_000 + HEADER.format(seed=5, gpus="8" * 5000))
    began = time.process_time()
    assert read_stock_run(work).logs[0].seed == 5
    assert time.process_time() - began < 2


def test_an_import_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, folder = stock(tmp_path), RunFolder(tmp_path / "runs" / "imported" / "1a2b3c4d" / "seed5")
    recipe, unknown = stock_recipe.match_recipe(load_recipe("retinanet-r50"), run)
    training = MatchedTraining(run, recipe, 5, None, unknown, [])
    write_run(folder, training, ["msdet"])
    write_run(folder, training, ["msdet", "again"])
    assert folder.read().command == ["msdet", "again"]
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("experiments.interop.import_run.write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        write_run(folder, training, ["msdet"])
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
    assert [path.name for path in folder.path.parent.iterdir()] == [folder.path.name]


def test_differences_leave_out_places_and_msdets_own_names():
    def config(model: dict[str, Any], place: str, scale: Any, **wrapper: Any) -> dict[str, Any]:
        dataset = {"ann_file": place, "pipeline": [{"type": "Resize", "scale": scale}]}
        return {
            "model": model,
            "train_dataloader": {"dataset": {**wrapper, "dataset": dataset} if wrapper else dataset},
        }

    trained = config({"type": "RetinaNet", "a": (1, 2), "b": None}, "x", (1333, 800), type="RepeatDataset")
    weighted = {"type": "LevelWeightedRetinaNet", "a": [1, 2], "weighting": {"rule": "uniform"}}
    assert stock_recipe.list_differences(trained, config(weighted, "y", [1333, 800])) == []
    assert stock_recipe.list_differences(trained, config(weighted, "y", [1333, 640])) == [
        "train_dataset.pipeline.0.scale: [1333, 800] ([1333, 640])"
    ]


def typed(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_mmdetections_own_baseline_is_recognised(tmp_path: Path, _here: None):
    """The config is MMDetection's, as MMEngine dumps it; 8 GPUs x 2 images at 0.01 are its own schedule."""
    import mmdet
    from mmengine import Config

    configs = Path(mmdet.__file__).parent / ".mim" / "configs"
    config = Config.fromfile(configs / "retinanet" / "retinanet_r50_fpn_1x_coco.py")
    config.model.bbox_head.loss_cls.gamma = 1.5
    work = work_dir(Path("work"), config.pretty_text + f"made = open({str(tmp_path / 'made')!r}, 'w')\n")
    said = typed("import", "work")
    assert not (tmp_path / "made").exists()
    (run,) = iterate(Path("results"))
    record = run.read()
    assert record.metrics == {"AP": 36.5, "AP50": 55.4}
    assert (record.status, record.seed, record.iterations) == ("done", 5, 12 * 7330)
    assert record.notes == [
        "trained with other settings than the recipe: model.bbox_head.loss_cls.gamma: 1.5 (2.0)"
    ]
    assert record.imported is not None
    assert record.imported["source"] == str(work.resolve())
    assert "the data's content: it is not available here" in record.imported["unknown"]
    assert "schedule.lr: 0.01 (0.005)" in said and "schedule.batch: 16 (8)" in said
    assert load_recipe(str(run.recipe)).schedule.lr == 0.01
    assert run.metrics.read_text() == "iteration,epoch,AP,AP50\n87960,12,36.5,55.4\n"
    report = typed("report")
    assert "36.5 ± - (1)‡" in report and "loss_cls.gamma" in report
    with pytest.raises(UserError, match="exists already"):
        typed("import", "work")
    typed("import", "work", "--force")
    with pytest.raises(UserError, match="trained with seed 5, not 6"):
        typed("import", "work", "--seed", "6")
    record.imported = None
    run.write(record)
    with pytest.raises(UserError, match="is a run of msdet"):
        typed("import", "work", "--force")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


def test_only_weights_are_taken_from_a_checkpoint(tmp_path: Path, _here: None):
    from mmengine.logging import MessageHub

    hub = MessageHub("a work folder's")
    hub.update_scalar("train/loss", 1.5)
    weights = {"a.weight": torch.arange(6.0), "a.count": torch.tensor(3)}
    torch.save({"state_dict": weights, "message_hub": hub.state_dict(), "optimizer": {}}, "stock.pth")
    with pytest.raises(Exception, match="HistoryBuffer"):
        torch.load("stock.pth", weights_only=True)
    copy_weights(Path("stock.pth"), Path("copy.pth"))
    content = torch.load("copy.pth", weights_only=True)
    assert list(content) == ["state_dict"] and list(content["state_dict"]) == list(weights)
    assert all(torch.equal(content["state_dict"][name], weights[name]) for name in weights)
    torch.save({"state_dict": weights, "message_hub": Evil()}, "evil.pth")
    with pytest.raises(UserError, match="no checkpoint of weights and plain values"):
        copy_weights(Path("evil.pth"), Path("copy2.pth"))
    torch.save({"state_dict": {"a": getattr(hub, "_log_scalars")}}, "objects.pth")  # noqa: B009
    with pytest.raises(UserError, match="no state dict"):
        copy_weights(Path("objects.pth"), Path("copy2.pth"))
    assert not Path("made").exists() and not Path("copy2.pth").exists()
    with pytest.raises(Exception, match="HistoryBuffer"):  # as before
        torch.load("stock.pth", weights_only=True)


def test_a_checkpoint_that_cannot_be_taken_leaves_the_earlier_import(tmp_path: Path):
    run, folder = stock(tmp_path), RunFolder(tmp_path / "runs" / "imported" / "1a2b3c4d" / "seed5")
    torch.save({"state_dict": {"a": torch.ones(1)}}, run.source / "epoch_12.pth")
    run.checkpoint = run.source / "epoch_12.pth"
    recipe, unknown = stock_recipe.match_recipe(load_recipe("retinanet-r50"), run)
    training = MatchedTraining(run, recipe, 5, None, unknown, [])
    write_run(folder, training, ["msdet"], copy_weights)
    assert torch.load(folder.newest_checkpoint(), weights_only=True)["state_dict"]["a"] == 1
    run.checkpoint.write_bytes(b"cut short")
    with pytest.raises(UserError):
        write_run(folder, training, ["msdet", "again"], copy_weights)
    assert folder.read().command == ["msdet"]
    assert folder.newest_checkpoint().name == f"iter_{12 * 7330}.pth"
