"""build_config: MMDetection's own config, changed where the recipe says so and nowhere else."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine import Config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from experiments.common.errors import UserError
from experiments.recipes.loading import compute_recipe_id, load_recipe, with_scaled_lr
from experiments.recipes.schema import Recipe
from experiments.training import components  # noqa: F401  (registers what the configs name)
from experiments.training.config.builder import build_config
from experiments.training.config.data import set_data_workers
from tests.unit.training.conftest import write_coco, write_voc

import mmdet  # isort: skip
from mmdet.registry import DATASETS, MODELS  # isort: skip

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
STOCK = CONFIGS / "retinanet" / "retinanet_r50_fpn_1x_coco.py"
CLASSES = ["disc", "square", "triangle", "star"]
ABSENT = "absent"


def built(recipe: Recipe | str = "retinanet-r50-rlo", *sets: str, **options: Any) -> Config:
    if isinstance(recipe, str):
        recipe = load_recipe(recipe, options.pop("profile", None), sets, options.pop("dataset", None))
    arguments = {"classes": CLASSES, "data_root": Path("/data"), "work_dir": Path("/run"), **options}
    return build_config(recipe, **arguments)


def refusal(*arguments: Any, **options: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        built(*arguments, **options)
    assert caught.value.exit_code == 2
    return caught.value


def differences(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Dotted path to (before, after), at the highest place where the two differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            below = f"{place}.{key}" if place else key
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, two) in enumerate(zip(old, new)):
            yield from differences(one, two, f"{place}.{index}")
    elif old != new or type(old) is not type(new):
        yield place, (old, new)


def changed(config: Config) -> dict[str, tuple[Any, Any]]:
    return dict(differences(Config.fromfile(STOCK).to_dict(), config.to_dict()))


# ----------------------------------------------------------------------------------- what is changed

RLO = {
    "rule": "rlo", "alpha": 100, "n": 2, "amplification": [1.5, 1.0], "gamma": 0.01, "beta": [0.1, 0.9],
    "actions": ["variance", "smallest", "largest", "uniform"], "epsilon": 1e-5,
}  # fmt: skip
EVALUATOR = {
    "type": "ExactCocoMetric", "ann_file": "/data/annotations/instances_val2017.json", "metric": "bbox",
    "outfile_prefix": "/run/detections/val",
}  # fmt: skip
# What resuming takes, and what a person sees meanwhile: the same in every recipe.
RESUMING = {
    "train_cfg.type": ("EpochBasedTrainLoop", "ResumableTrainLoop"),
    "train_dataloader.batch_sampler.type": ("AspectRatioBatchSampler", "ResumableBatchSampler"),
    "train_dataloader.batch_sampler.inner": (ABSENT, {"type": "AspectRatioBatchSampler"}),
    "train_dataloader.batch_sampler.shards": (ABSENT, 4),
    "train_dataloader.batch_sampler.micro_batch": (ABSENT, 2),
    "default_hooks.checkpoint.type": ("CheckpointHook", "ResumableCheckpointHook"),
    "default_hooks.checkpoint.interval": (1, ABSENT),
    "default_hooks.checkpoint.every": (ABSENT, 500),
    "custom_hooks": (ABSENT, [{"type": "ProgressHook"}, {"type": "LevelWeightingHook"}]),
    "work_dir": (ABSENT, "/run"),
}
# One reader of annotations for training, evaluation and everything that counts.
READER = {
    f"{split}_dataloader.dataset.type": ("CocoDataset", "AnnotatedCocoDataset") for split in ("train", "val")
}
CHANGED_ALWAYS = {
    # the method
    "model.type": ("RetinaNet", "LevelWeightedRetinaNet"),
    "model.weighting": (ABSENT, RLO),
    "custom_imports": (
        ABSENT, {"imports": ["experiments.training.components"], "allow_failed_imports": False}
    ),
    # the recipe's own numbers
    "optim_wrapper.optimizer.lr": (0.01, 0.005),
    "randomness": (ABSENT, {"seed": 7}),
    # the data
    "model.bbox_head.num_classes": (80, 4),
    "train_dataloader.dataset.data_root": ("data/coco/", "/data"),
    "train_dataloader.dataset.metainfo": (ABSENT, {"classes": tuple(CLASSES)}),
    "val_dataloader.dataset.data_root": ("data/coco/", "/data"),
    "val_dataloader.dataset.metainfo": (ABSENT, {"classes": tuple(CLASSES)}),
    "val_evaluator.type": ("CocoMetric", "ExactCocoMetric"),
    "val_evaluator.ann_file": ("data/coco/annotations/instances_val2017.json", EVALUATOR["ann_file"]),
    "val_evaluator.outfile_prefix": (ABSENT, EVALUATOR["outfile_prefix"]),
    "val_evaluator.format_only": (False, ABSENT),
    "val_evaluator.backend_args": (None, ABSENT),
    **READER,
    **RESUMING,
}  # fmt: skip
# The base's own variables, which only helped to write it, and test-time augmentation, which is not run.
REMOVED = {"dataset_type", "data_root", "backend_args", "train_pipeline", "test_pipeline", "img_scales",
           "tta_model", "tta_pipeline"}  # fmt: skip
CHANGED_WITHOUT_GPU = {
    "train_dataloader.num_workers": (2, 0),
    "train_dataloader.persistent_workers": (True, False),
    "val_dataloader.num_workers": (2, 0),
    "val_dataloader.persistent_workers": (True, False),
    "env_cfg.dist_cfg.backend": ("nccl", "gloo"),
    "model_wrapper_cfg": (
        ABSENT, {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    ),
}  # fmt: skip


CHANGED_WITH_GPU = {
    f"{split}_dataloader.{key}": change
    for split in ("train", "val")
    for key, change in (("num_workers", (2, 3)), ("pin_memory", (ABSENT, True)))
}


@pytest.mark.parametrize("gpu", [False, True])
def test_the_papers_recipe_changes_this_and_nothing_else(gpu: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("MSDET_CORES", "4")
    config = built(seed=7, processes=4)
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator
    found = changed(config)
    removed = {place for place, (_, after) in found.items() if after == ABSENT and "." not in place}
    assert removed == REMOVED
    found = {
        place: change
        for place, change in found.items()
        if place not in REMOVED and not place.startswith(("test_dataloader.", "test_evaluator."))
    }
    assert found == {**CHANGED_ALWAYS, **(CHANGED_WITH_GPU if gpu else CHANGED_WITHOUT_GPU)}
    # unchanged, though the loops above would not say so: 2 images on each of 4 GPUs, 12 epochs, 8 and 11
    assert config.train_dataloader.batch_size == 2
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (12, 1)
    assert config.param_scheduler[1].milestones == [8, 11]


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (3, 2), (64, 4)])
def test_a_rank_with_a_gpu_has_data_workers_by_its_cores(
    cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MSDET_CORES", str(cores))
    config = built()
    set_data_workers(config)
    for loader in (config.train_dataloader, config.val_dataloader):
        assert (loader.num_workers, loader.persistent_workers, loader.pin_memory) == (workers, True, True)


def test_the_three_recipes_differ_in_their_weighting_alone():
    base, avw, rlo = (built(f"retinanet-r50{suffix}") for suffix in ("", "-avw", "-rlo"))
    for other in (avw, rlo):
        places = {place for place, _ in differences(base.to_dict(), other.to_dict())}
        assert places
        assert all(place.startswith("model.weighting.") for place in places)
    assert base.model.weighting == {"rule": "uniform", "alpha": 100, "epsilon": 1e-5}


def test_the_tiny_profile_sets_all_its_keys_and_little_else():
    recipe = load_recipe("retinanet-r50-rlo", "tiny")
    config = built(recipe)
    for key, value in recipe.set.items():
        node: Any = config
        for part in key.split("."):
            node = node[part]
        assert node == value, key
    named = tuple(recipe.set)
    others = {
        place: after
        for place, (_, after) in dict(differences(built().to_dict(), config.to_dict())).items()
        if not place.startswith((*named, "test_"))
    }
    assert others == {
        "model.weighting.alpha": 10,
        "train_cfg.max_epochs": ABSENT,
        "train_cfg.max_iters": 330,
        "train_cfg.val_interval": 10**9,
        "train_dataloader.batch_size": 8,
        "train_dataloader.batch_sampler.shards": 1,
        "train_dataloader.batch_sampler.micro_batch": 8,
        "optim_wrapper.accumulative_counts": ABSENT,
        "train_dataloader.dataset.ann_file": "annotations/train.json",
        "train_dataloader.dataset.data_prefix.img": "train/",
        "train_dataloader.dataset.filter_cfg.min_size": 0,
        "train_dataloader.dataset.pipeline.2.scale": (160, 160),
        "val_dataloader.dataset.ann_file": "annotations/val.json",
        "val_dataloader.dataset.data_prefix.img": "val/",
        "val_dataloader.dataset.pipeline.1.scale": (160, 160),
        "val_evaluator.ann_file": "/data/annotations/val.json",
        "optim_wrapper.optimizer.type": "AdamW",
        "optim_wrapper.optimizer.lr": 0.004,
        "optim_wrapper.optimizer.weight_decay": 0.05,
        "optim_wrapper.optimizer.momentum": ABSENT,
        "param_scheduler.0.end": 50,
        "param_scheduler.1.type": "CosineAnnealingLR",
        "param_scheduler.1.T_max": 330,
        "param_scheduler.1.end": 330,
        "param_scheduler.1.by_epoch": False,
        "param_scheduler.1.milestones": ABSENT,
        "param_scheduler.1.gamma": ABSENT,
        "default_hooks.checkpoint.every": 50,
    }


@pytest.mark.parametrize("profile", [None, "tiny"])
@pytest.mark.parametrize("name", ["retinanet-r50-rlo", "fcos-r50", "faster-rcnn-r50-voc-rlo"])
def test_the_printed_config_loads_back_equal(name: str, profile: str | None):
    config = built(name, profile=profile)
    Path("config.py").write_text(config.pretty_text, encoding="utf-8")
    again = Config.fromfile("config.py")
    assert again.to_dict() == config.to_dict()
    assert dict(differences(again.to_dict(), config.to_dict())) == {}  # types, too


# ----------------------------------------------------------------------------------- batch, schedule


@pytest.mark.parametrize(
    ("gpus", "each", "processes", "micro", "accumulation"),
    [(4, 2, 4, 2, 1), (4, 2, 1, 2, 4), (4, 2, 2, 2, 2), (4, 2, 8, 1, 1), (1, 6, 3, 2, 1), (1, 6, 2, 3, 1)],
)
def test_the_batch_is_shared_by_the_processes(
    gpus: int, each: int, processes: int, micro: int, accumulation: int
):
    sets = f"schedule.gpus={gpus}", f"schedule.images_per_gpu={each}"
    config = built("retinanet-r50", *sets, processes=processes)
    loader = config.train_dataloader
    assert (loader.batch_size, loader.batch_sampler.shards) == (
        each,
        gpus,
    )  # the recipe's, whoever works on it
    assert loader.batch_sampler.micro_batch == micro
    assert config.optim_wrapper.get("accumulative_counts", 1) == accumulation
    assert config.param_scheduler == built("retinanet-r50", *sets).param_scheduler  # nothing is multiplied


def test_half_the_images_at_a_time_accumulate_twice_as_often():
    config = built("retinanet-r50", processes=2, micro_batch=1)
    assert (config.train_dataloader.batch_sampler.micro_batch, config.optim_wrapper.accumulative_counts) == (
        1,
        4,
    )


def test_a_batch_that_cannot_be_shared_is_refused():
    said = refusal("retinanet-r50", processes=3)
    assert said.message == "3 workers cannot share a batch of 4 x 2 images evenly"
    assert "--scale-lr" in said.hint
    said = refusal("retinanet-r50", processes=8, micro_batch=2)
    assert said.message == "8 workers cannot share a batch of 4 x 2 images in micro-batches of 2"
    said = refusal("retinanet-r50", "set.optim_wrapper.accumulative_counts=6")
    assert "accumulative_counts: 6 is not allowed: a multiple of 4, the micro-batches" in said.message


@pytest.mark.parametrize(
    ("amp", "wanted"),
    [("bf16", {"type": "BFloat16OptimWrapper"}),
     ("fp16", {"type": "AmpOptimWrapper", "dtype": "float16", "loss_scale": "dynamic"})],
)  # fmt: skip
def test_mixed_precision_changes_the_wrapper_and_the_identity(amp: str, wanted: dict[str, str]):
    plain, mixed = load_recipe("retinanet-r50"), load_recipe("retinanet-r50", sets=[f"amp={amp}"])
    assert compute_recipe_id(plain) != compute_recipe_id(mixed)
    wrapper = built(plain).optim_wrapper
    assert built(mixed).optim_wrapper == {**wrapper, **wanted}


def test_a_learning_rate_scaled_with_the_batch_is_another_experiment():
    recipe = load_recipe("retinanet-r50")
    scaled = with_scaled_lr(recipe, 16)
    assert (scaled.schedule.gpus, scaled.schedule.lr) == (
        16,
        0.02,
    )  # MMDetection's own: 0.02 for 16 images, say
    assert compute_recipe_id(scaled) != compute_recipe_id(recipe)
    assert recipe.schedule.gpus == 4


EPOCH = 100  # iterations, in the tests of rates


def rates(config: Config, epochs: int) -> list[float]:
    """The learning rate of every iteration, driven as MMEngine's ParamSchedulerHook does it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.optim_wrapper.optimizer.lr)
    schedulers = []
    for page in config.param_scheduler:
        page = dict(page)
        if page.pop("convert_to_iter_based", False):
            cls = PARAM_SCHEDULERS.get(page.pop("type"))
            schedulers.append(cls.build_iter_from_epoch(optimizer=optimizer, epoch_length=EPOCH, **page))
        else:
            schedulers.append(PARAM_SCHEDULERS.build(page, default_args={"optimizer": optimizer}))
    found = []
    for _ in range(epochs):
        for _ in range(EPOCH):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return found


def warm(iteration: int, length: int) -> float:
    """Linear from a thousandth at the first iteration to 1 at the last of the warm-up."""
    return 1.0 if iteration >= length - 1 else 0.001 + 0.999 * iteration / (length - 1)


def test_rates_of_the_papers_schedule():
    found = rates(built(), epochs=12)
    expected = [
        0.005 * warm(i, 500) * (0.01 if i >= 11 * EPOCH else 0.1 if i >= 8 * EPOCH else 1)
        for i in range(12 * EPOCH)
    ]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("warmup", "length"), [("null", 500), ("7", 7)])
def test_a_constant_warm_up_is_kept_too(warmup: str, length: int):
    """FCOS: a third of the rate for 500 iterations, unless the recipe has a warm-up of its own."""
    config = built("fcos-r50", f"schedule.warmup={warmup}", "schedule.milestones=[6]")
    expected = [0.01 * (1 / 3 if warmup == "null" and i < 499 else 1) for i in range(7 * EPOCH)]
    if warmup != "null":
        expected = [0.01 * warm(i, length) for i in range(7 * EPOCH)]
    expected = [rate * (0.1 if i >= 6 * EPOCH else 1) for i, rate in enumerate(expected)]
    assert rates(config, epochs=7) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("warmup", "length"), [("null", 500), ("0", 1), ("30", 30)])
def test_warm_up_is_the_models_own_none_or_as_long_as_said(warmup: str, length: int):
    config = built("retinanet-r50", f"schedule.warmup={warmup}", "schedule.lr=0.2")
    assert rates(config, epochs=7) == pytest.approx(
        [0.2 * warm(i, length) for i in range(7 * EPOCH)], rel=1e-9
    )
    assert sum(s.type == "LinearLR" for s in config.param_scheduler) == (warmup != "0")


@pytest.mark.parametrize("length", ["schedule.epochs=5", "schedule.iterations=500"])
def test_cosine_falls_to_zero_over_the_whole_length_by_the_iteration(length: str):
    sets = length, "schedule.decay=cosine", "schedule.milestones=[]", "schedule.warmup=0", "schedule.lr=0.1"
    found = rates(built("retinanet-r50", *sets), epochs=5)
    expected = [0.1 * (1 + math.cos(math.pi * i / (5 * EPOCH))) / 2 for i in range(5 * EPOCH)]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_length_in_iterations_leaves_no_epochs_behind():
    config = built(
        "retinanet-r50", "schedule.iterations=40", "schedule.milestones=[]", "schedule.eval_every=null"
    )
    assert "max_epochs" not in config.train_cfg
    assert config.train_cfg.max_iters == 40
    assert config.train_cfg.val_interval > 40  # only at the end
    assert [s.type for s in config.param_scheduler] == ["LinearLR"]
    assert built("retinanet-r50", "schedule.eval_every=3").train_cfg.val_interval == 3


def test_the_optimizer():
    stock = Config.fromfile(STOCK).optim_wrapper
    assert built("retinanet-r50", processes=4).optim_wrapper == {
        **stock,
        "optimizer": {**stock.optimizer, "lr": 0.005},
    }
    adamw = built("retinanet-r50", "schedule.optimizer=adamw", "schedule.lr=1e-4", processes=4).optim_wrapper
    assert adamw == {**stock, "optimizer": {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05}}
    page = own_model("optim_wrapper.optimizer = dict(type='AdamW', lr=3, weight_decay=0.7, betas=(0.8, 0.9))")
    kept = built("retinanet-r50", f"model={page}", "schedule.optimizer=adamw").optim_wrapper.optimizer
    assert kept == {"type": "AdamW", "lr": 0.005, "weight_decay": 0.7, "betas": (0.8, 0.9)}
    back = built("retinanet-r50", f"model={page}").optim_wrapper.optimizer
    assert back == {"type": "SGD", "lr": 0.005, "momentum": 0.9, "weight_decay": 1e-4}


def test_the_recipes_rate_is_not_scaled_behind_its_back():
    page = own_model("auto_scale_lr.enable = True")
    assert built("retinanet-r50", f"model={page}").auto_scale_lr.enable is False


def test_image_size_reaches_training_and_evaluation():
    config = built("retinanet-r50", "image_size=[320,200]")
    for loader in (config.train_dataloader, config.val_dataloader):
        resize = [step for step in loader.dataset.pipeline if step["type"] == "Resize"]
        assert resize == [{"type": "Resize", "scale": (320, 200), "keep_ratio": True}]


def test_image_size_without_a_resize_to_set_is_refused():
    page = own_model(
        "for key in ('train_dataloader', 'val_dataloader'): globals()[key].dataset.pipeline = []"
    )
    said = refusal("retinanet-r50", f"model={page}", "image_size=[320,200]").message
    assert said.startswith("image_size:")


# ----------------------------------------------------------------------------------------- the model


def own_model(lines: str = "", name: str = "own.py") -> str:
    """A user's own config: MMDetection's, with some lines of Python after it."""
    text = (
        f"from mmengine import Config\nlocals().update(Config.fromfile({str(STOCK)!r})._cfg_dict)\n{lines}\n"
    )
    Path(name).write_text(text + "del Config\n")
    return name


def test_a_users_own_config_by_its_path():
    page = own_model("model.backbone.depth = 18\nmodel.neck.in_channels = [64, 128, 256, 512]")
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text(f"extends: retinanet-r50-rlo\nmodel: ../{page}\n")
    config = built("recipes/mine.yaml")
    assert (config.model.type, config.model.backbone.depth) == ("LevelWeightedRetinaNet", 18)
    changes = dict(differences(built().to_dict(), config.to_dict()))
    assert set(changes) == {"model.backbone.depth", *(f"model.neck.in_channels.{i}" for i in range(4))}


def test_a_users_config_that_weights_its_levels_itself():
    page = own_model("model.type = 'LevelWeightedRetinaNet'\nmodel.weighting = dict(rule='avw')")
    config = built("retinanet-r50-rlo", f"model={page}")
    assert config.model.weighting == RLO  # the recipe's word counts


def test_every_num_classes_of_the_model_follows_the_data():
    page = own_model("model.aux = [dict(num_classes=80), dict(deep=(dict(num_classes=7),))]")
    config = built("retinanet-r50", f"model={page}", classes=["a", "b", "c"])
    assert config.model.bbox_head.num_classes == 3
    assert config.model.aux == [{"num_classes": 3}, {"deep": ({"num_classes": 3},)}]
    assert built("retinanet-r50", classes=[]).model.bbox_head.num_classes == 80


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "mmdet:retinanet/retinanet_r50_fpn_1x_cocco.py",
            "did you mean 'retinanet/retinanet_r50_fpn_1x_coco.py'?",
        ),
        ("nowhere/mine.py", "no file"),
        (
            "mmdet:detr/detr_r50_8xb2-150e_coco.py",
            "detector 'DETR' cannot be level-weighted; supported: ATSS,",
        ),
    ],
)
def test_a_model_that_cannot_be_used_says_why(model: str, expected: str):
    error = refusal("retinanet-r50", f"model={model}")
    assert error.message.startswith("model: ")
    assert expected in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model = dict(", "cannot be read as a config: SyntaxError"),
        ("raise RuntimeError('boo')", "cannot be read as a config: RuntimeError: boo"),
        ("model = dict(type='RetinaNet')", "has no 'train_dataloader'"),
        ("model = [1]\ntrain_dataloader = val_dataloader = optim_wrapper = {}", "names no detector"),
        ("model = {}\ntrain_dataloader = val_dataloader = optim_wrapper = {}", "names no detector"),
    ],
)
def test_a_file_that_is_no_training_config_says_so(text: str, expected: str):
    Path("bad.py").write_text(text)
    said = refusal("retinanet-r50", "model=bad.py").message
    assert said.startswith("model: ")
    assert "bad.py" in said
    assert expected in said


def test_imports_of_the_working_directory_are_known_to_the_checks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("my_backbone_mod.py").write_text(
        "from mmdet.models.backbones import ResNet\nfrom mmdet.registry import MODELS\n"
        "@MODELS.register_module()\nclass MyNarrowNet(ResNet):\n"
        "    def __init__(self, width=4, **kwargs):\n"
        "        super().__init__(depth=18, base_channels=width, init_cfg=None, **kwargs)\n"
    )
    sets = "imports=[my_backbone_mod]", "model.backbone={type: MyNarrowNet, width: 6, frozen_stages: -1}"
    narrow = "model.neck.in_channels=[6, 12, 24, 48]"
    config = built("retinanet-r50", *sets, narrow)
    init_default_scope("mmdet")
    model = MODELS.build(config.model)
    assert type(model.backbone).__name__ == "MyNarrowNet"
    assert model.backbone.layer1[0].conv1.out_channels == 6
    said = refusal("retinanet-r50", sets[0], "model.backbone={type: MyNarrowNet, widht: 6}").message
    assert "did you mean 'width'?" in said


def test_an_import_that_fails_is_one_line():
    said = refusal("retinanet-r50", "imports=[no_such_module_of_mine]").message
    assert said.startswith("imports: ")
    assert "'no_such_module_of_mine'" in said


# ------------------------------------------------------------------------------------------ the data


def dataset_page(text: str) -> str:
    Path("mine.yaml").write_text(f"name: mine\nroot: data\n{text}")
    return "mine.yaml"


@pytest.mark.parametrize("images", ["", "pictures/all"])
def test_a_coco_set_builds_and_gives_its_boxes(images: str, tmp_path: Path):
    root = tmp_path / "d"
    train = {"a.png": [[9, 4, 6, 20, 30], [3, 1, 2, 8, 8]], "empty.png": [], "b.png": [[3, 0, 0, 64, 48]]}
    for split, boxes in (("train", train), ("val", {"c.png": [[9, 1, 1, 9, 9]], "none.png": []})):
        write_coco(root, images, boxes, split)
    parts = f"images: '{images}'" if images else ""
    page = dataset_page(
        f"format: coco\nrepeat: 3\nsplits:\n  train: {{annotations: train.json, {parts}}}\n"
        f"  val: {{annotations: val.json, {parts}}}\n"
    )
    config = built("retinanet-r50", dataset=page, classes=["cat", "dog"], data_root=root)
    init_default_scope("mmdet")
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == 3 * 2  # the empty one is left out
    assert dataset.metainfo["classes"] == ("cat", "dog")
    sample = dataset[0]["data_samples"]
    assert sample.img_path == str(root / images / "a.png")
    assert sample.gt_instances.labels.tolist() == [1, 0]
    factor = 800 / 48  # 64 x 48 grows until its short side is 800
    boxes = sample.gt_instances.bboxes.tensor / factor
    sizes = (boxes[:, 2:] - boxes[:, :2]).flatten().tolist()
    assert sizes == pytest.approx([20, 30, 8, 8], rel=0.01)  # flipped or not
    val = DATASETS.build(config.val_dataloader.dataset)
    assert len(val) == 2  # every image is evaluated
    assert config.val_evaluator.ann_file == str(root / "val.json")
    assert config.val_evaluator.type == "ExactCocoMetric"


def test_a_voc_set_of_several_parts_builds(tmp_path: Path):
    root = tmp_path / "VOCdevkit"
    big, thin = ("dog", 0, 5, 5, 40, 30), ("cat", 0, 10, 10, 12, 40)
    write_voc(root / "VOC2007", "trainval", {"a": [big], "b": [thin, ("cat", 1, 1, 1, 30, 30)]})
    write_voc(root / "VOC2012", "trainval", {"c": [("cat", 0, 2, 3, 33, 44)]})
    write_voc(root / "VOC2007", "test", {"d": [big]})
    page = dataset_page(
        "format: voc\nrepeat: 2\nmin_box_size: 4\nsplits:\n  train:\n"
        "    - {annotations: VOC2007/ImageSets/Main/trainval.txt, images: VOC2007}\n"
        "    - {annotations: VOC2012/ImageSets/Main/trainval.txt, images: VOC2012}\n"
        "  val: {annotations: VOC2007/ImageSets/Main/test.txt, images: VOC2007}\n"
    )
    config = built("retinanet-r50", dataset=page, classes=["cat", "dog"], data_root=root)
    init_default_scope("mmdet")
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == 2 * 3
    described = [dataset.get_data_info(i) for i in range(3)]
    assert [d["img_path"] for d in described] == [
        str(root / part / "JPEGImages" / f"{name}.jpg")
        for part, name in (("VOC2007", "a"), ("VOC2007", "b"), ("VOC2012", "c"))
    ]
    flags = [[i["ignore_flag"] for i in d["instances"]] for d in described]
    assert flags == [[0], [1, 1], [0]]  # 2 pixels are less than 4; difficult
    assert [i["bbox_label"] for d in described for i in d["instances"]] == [1, 0, 0, 0]
    assert described[0]["instances"][0]["bbox"] == [4, 4, 39, 29]  # VOC counts from 1
    assert len(DATASETS.build(config.val_dataloader.dataset)) == 1
    assert config.val_evaluator.type == "ExactVocMetric"


def test_a_voc_set_in_the_root_itself_builds(tmp_path: Path):
    root = tmp_path / "flat"
    write_voc(root, "train", {"a": [("cell", 0, 5, 5, 6, 30), ("cell", 0, 7, 7, 7, 7)]})
    write_voc(root, "val", {"b": [("cell", 0, 5, 5, 40, 30)]})
    lists = ", ".join(f"{s}: {{annotations: ImageSets/Main/{s}.txt}}" for s in ("train", "val"))
    page = dataset_page(f"format: voc\nsplits: {{{lists}}}\n")
    config = built("retinanet-r50", dataset=page, classes=["cell"], data_root=root)
    init_default_scope("mmdet")
    dataset = DATASETS.build(config.train_dataloader.dataset)
    instances = dataset.get_data_info(0)["instances"]
    assert [i["bbox"] for i in instances] == [[4, 4, 5, 29]]  # one pixel wide is kept, zero is not
    assert dataset[0]["data_samples"].img_path == str(root / "JPEGImages" / "a.jpg")
    assert len(dataset[0]["data_samples"].gt_instances) == 1


# The weighting's own lines


def test_the_hook_that_drives_the_rule_is_there_whatever_hooks_a_recipe_sets() -> None:
    config = built("retinanet-r50-rlo", "set.+custom_hooks=[{type: EMAHook}]")
    assert [hook.type for hook in config.custom_hooks] == ["EMAHook", "LevelWeightingHook"]
    once = built("retinanet-r50-rlo", "set.+custom_hooks=[{type: LevelWeightingHook}]")
    assert [hook.type for hook in once.custom_hooks] == ["LevelWeightingHook"]


@pytest.mark.parametrize(
    ("rule", "constructor"), [("rlo", None), ("uncertainty", "RuleParameterConstructor")]
)
def test_only_a_learnable_rule_needs_its_own_way_into_the_optimizer(
    rule: str, constructor: str | None
) -> None:
    assert built("retinanet-r50", f"weighting.rule={rule}").optim_wrapper.get("constructor") == constructor
