"""Keys under a recipe's `set`: what may be set, and what a person is told about a key that may not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from mmengine import Config, ConfigDict
from mmengine.registry import HOOKS

from experiments import detection  # noqa: F401  (first: it installs the operators)
from experiments.common.errors import UserError
from experiments.training.config.keys import list_class_parameters, set_key

import mmdet  # isort: skip
from mmdet.registry import MODELS  # isort: skip
from mmdet.models.backbones import ResNet  # isort: skip

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"


@pytest.fixture(scope="module")
def pristine() -> Config:
    return Config.fromfile(CONFIGS / "retinanet" / "retinanet_r50_fpn_1x_coco.py")


@pytest.fixture
def config(pristine: Config) -> Config:
    return copy.deepcopy(pristine)


def refusal(config: Config, key: str, value: Any = 1) -> UserError:
    before = copy.deepcopy(config.to_dict())
    with pytest.raises(UserError) as caught:
        set_key(config, key, value)
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith(f"set.{key}: ")
    after = config.to_dict()
    if key.partition(".")[0] in before:
        assert after[key.partition(".")[0]].keys() == before[key.partition(".")[0]].keys()
    return caught.value


def at(config: Config, key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]
    return node


# ------------------------------------------------------------------------------------------ may be set


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.backbone.depth", 18),  # is there
        ("log_level", "ERROR"),
        ("model.bbox_head.loss_cls.gamma", 1.5),
        ("model.backbone.base_channels", 32),  # a parameter of ResNet that the config does not name
        ("model.neck.relu_before_extra_convs", True),
        ("model.bbox_head.init_cfg", None),  # of a class that its bases pass on to
        ("optim_wrapper.clip_grad", {"max_norm": 35, "norm_type": 2}),
        ("optim_wrapper.accumulative_counts", 4),
        (
            "optim_wrapper.paramwise_cfg",
            {"bias_decay_mult": 0.0},
        ),  # taken by MMEngine's builder, not the class
        ("optim_wrapper.optimizer.nesterov", True),  # of a class in torch
        ("default_hooks.logger.priority", "LOW"),  # as every hook may have
        ("train_dataloader.dataset.indices", 10),
        ("train_dataloader.dataset.pipeline.1.with_mask", True),  # MMDetection's LoadAnnotations, not mmcv's
        ("train_dataloader.dataset.pipeline.3.prob", 0.0),  # a list index
        ("param_scheduler.1.milestones.0", 7),
        (
            "param_scheduler.0",
            {"type": "ConstantLR", "factor": 0.1, "by_epoch": True, "convert_to_iter_based": True},
        ),
        ("model.neck", {"type": "FPN", "in_channels": [1, 2], "out_channels": 3, "num_outs": 2}),
        ("model.neck.norm_cfg", {"type": "BN", "requires_grad": False}),  # as MMDetection's own configs say
        ("model.backbone.norm_cfg", {"type": "SyncBN", "requires_grad": True}),
        (
            "model.data_preprocessor.batch_augments",
            [{"type": "BatchSyncRandomResize", "random_size_range": [1, 2]}],
        ),
        ("visualizer.vis_backends.0", {"type": "TensorboardVisBackend"}),
        ("randomness", {"seed": 1}),  # a parameter of MMEngine's Runner
        ("compile", True),
    ],
)
def test_a_key_of_the_config_or_a_parameter_of_its_class_is_set(config: Config, key: str, value: Any):
    before = config.to_dict()
    set_key(config, key, value)
    assert at(config, key) == value
    # nothing else has changed
    node: Any = before
    *path, last = key.split(".")
    for part in path:
        node = node[int(part)] if isinstance(node, list) else node[part]
    node[int(last) if isinstance(node, list) else last] = value
    assert config.to_dict() == before


def test_what_was_set_can_be_set_below(config: Config):
    set_key(config, "model.neck.norm_cfg", {"type": "BN"})
    set_key(config, "model.neck.norm_cfg.eps", 1e-3)
    assert config.model.neck.norm_cfg == {"type": "BN", "eps": 1e-3}
    assert isinstance(config.model.neck.norm_cfg, ConfigDict)  # MMEngine reads attributes


def test_a_mapping_replaces_what_was_there(config: Config):
    set_key(config, "model.backbone.init_cfg", {"type": "Pretrained", "checkpoint": "mine.pth"})
    assert config.model.backbone.init_cfg == {"type": "Pretrained", "checkpoint": "mine.pth"}


def test_a_plus_adds_any_key(config: Config):
    set_key(config, "+model.backbone.plugin_of_mine", {"type": "FPN", "no_such_parameter": 1})
    set_key(config, "+made.up.deep", 3)
    assert config.model.backbone.plugin_of_mine == {"type": "FPN", "no_such_parameter": 1}
    assert config.made.up.deep == 3


def test_below_a_none_only_a_plus_sets(config: Config):
    set_key(config, "model.backbone.init_cfg", None)
    error = refusal(config, "model.backbone.init_cfg.checkpoint", "x.pth")
    assert error.hint == "put + in front to add it all the same: +model.backbone.init_cfg.checkpoint"
    set_key(config, "+model.backbone.init_cfg.checkpoint", "x.pth")
    assert config.model.backbone.init_cfg == {"checkpoint": "x.pth"}


def test_a_class_of_the_users_own_is_known_once_registered(config: Config):
    @MODELS.register_module(force=True)
    class OwnNetOfTheTest(ResNet):
        def __init__(self, width: int, **kwargs: Any) -> None:
            super().__init__(depth=18, base_channels=width, **kwargs)

    try:
        assert {"width", "frozen_stages"} <= list_class_parameters("OwnNetOfTheTest")
        set_key(config, "model.backbone", {"type": "OwnNetOfTheTest", "width": 8})
        set_key(config, "model.backbone.frozen_stages", -1)
        assert "did you mean 'width'?" in refusal(config, "model.backbone.widht").message
    finally:
        MODELS.module_dict.pop("OwnNetOfTheTest")
    assert list_class_parameters("OwnNetOfTheTest") is None


# ------------------------------------------------------------------------------------------ may not


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("modle.backbone.depth", 18, "the config has no 'modle'; did you mean 'model'?"),
        ("log_levl", "INFO", "the config has no 'log_levl'; did you mean 'log_level'?"),
        ("model.backbone.dpeth", 18, "'model.backbone' (ResNet) has no 'dpeth'; did you mean 'depth'?"),
        (
            "model.bbox_head.loss_cls.gama",
            1,
            "'model.bbox_head.loss_cls' (FocalLoss) has no 'gama'; did you mean 'gamma'?",
        ),
        (
            "model.bbox_head.los_cls.gamma",
            1,
            "'model.bbox_head' (RetinaHead) has no 'los_cls'; did you mean 'loss_cls'?",
        ),
        ("optim_wrapper.optimizer.momentm", 1, "(SGD) has no 'momentm'; did you mean 'momentum'?"),
        ("train_dataloader.dataset.pipeline.2.scal", 1, "(Resize) has no 'scal'; did you mean 'scale'?"),
        ("train_dataloader.dataset.pipeline.9.prob", 1, "is a list of 5; '9' is not one of 0..4"),
        ("train_dataloader.dataset.pipeline.5", 1, "is a list of 5; '5' is not one of 0..4"),
        ("train_dataloader.dataset.pipeline.-1", 1, "is a list of 5; '-1' is not one of 0..4"),
        ("train_dataloader.dataset.pipeline.Resize.scale", 1, "is a list of 5; 'Resize' is not one of 0..4"),
        ("param_scheduler.1.milestones.2", 1, "is a list of 2; '2' is not one of 0..1"),
        ("param_scheduler.²", 1, "is a list of 2; '²' is not one of 0..1"),
        ("model.backbone.out_indices.0", 1, "'model.backbone.out_indices' is a tuple; set it as a whole"),
        ("model.backbone.depth.x", 1, "'model.backbone.depth' is 50, which has no 'x'"),
        ("model.backbone.depth.x.y", 1, "'model.backbone.depth' is 50, which has no 'x'"),
        (
            "model.neck",
            {"type": "FPN", "in_chanels": [1]},
            "FPN has no 'in_chanels'; did you mean 'in_channels'?",
        ),
        (
            "model.bbox_head.loss_cls",
            {"type": "FocalLoss", "loss_weigth": 2},
            "FocalLoss has no 'loss_weigth'; did you mean 'loss_weight'?",
        ),
        (
            "train_cfg",
            {"type": "ResumableTrainLoop", "deeper": [{"x": {"type": "FPN", "num_out": 5}}]},
            "ResumableTrainLoop has no 'deeper'",
        ),
        (
            "custom_hooks",
            [{"type": "EMAHook"}, {"type": "SyncBuffersHook", "prioritty": "LOW"}],
            "SyncBuffersHook has no 'prioritty'; did you mean 'priority'?",
        ),
    ],
)
def test_a_wrong_key_is_named_with_the_nearest_right_one(config: Config, key: str, value: Any, expected: str):
    from experiments.training import components  # noqa: F401

    with pytest.raises(UserError) as caught:
        set_key(config, key, value)
    message = caught.value.message
    assert message.startswith(f"set.{key}")
    assert expected in message
    assert "\n" not in message


def test_a_mistake_deep_in_a_mapping_says_where(config: Config):
    value = {"type": "FPN", "in_channels": [1], "norm_cfg": {"type": "GN", "num_groups": 2, "afine": True}}
    with pytest.raises(UserError) as caught:
        set_key(config, "model.neck", value)
    assert caught.value.message.startswith("set.model.neck.norm_cfg: GN has no 'afine'")
    assert "put +" in caught.value.hint
    set_key(config, "+model.neck", value)
    assert config.model.neck.norm_cfg.afine is True


def test_a_missing_key_offers_the_plus(config: Config):
    assert (
        refusal(config, "model.backbone.dpeth").hint
        == "put + in front to add it all the same: +model.backbone.dpeth"
    )


# --------------------------------------------------------------------------------- what a class takes


def test_parameters_are_those_of_the_class_and_of_the_bases_that_it_passes_them_on_to():
    retina = list_class_parameters("RetinaHead")
    assert {"stacked_convs", "anchor_generator", "loss_cls", "init_cfg", "num_classes"} <= retina
    assert "self" not in retina
    assert list_class_parameters("FPN") == {
        "in_channels", "out_channels", "num_outs", "start_level", "end_level", "add_extra_convs",
        "relu_before_extra_convs", "no_norm_on_lateral", "conv_cfg", "norm_cfg", "act_cfg", "upsample_cfg",
        "init_cfg", "_scope_",
    }  # fmt: skip


def test_a_class_that_takes_anything_or_is_unknown_is_not_judged():
    assert list_class_parameters("NoSuchClass") is None
    assert list_class_parameters("RandomResize") is None  # hands its keywords to the transform it names
    assert list_class_parameters(None) is None


def test_mmdetections_own_class_comes_before_one_of_the_same_name():
    from mmcv.transforms import LoadAnnotations as Plain
    from mmdet.datasets.transforms import LoadAnnotations

    assert Plain is not LoadAnnotations
    assert "with_mask" in list_class_parameters("LoadAnnotations")


@HOOKS.register_module()
class HookOfTheTest:
    def __init__(self, every: int = 1) -> None: ...


def test_a_class_of_mmengines_registry_is_found():
    assert list_class_parameters("HookOfTheTest") == {"every", "_scope_"}


FAMILIES = "retinanet", "fcos", "atss", "gfl", "faster_rcnn", "paa", "foveabox"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_mmdetections_own_configs_say_may_be_said(family: str):
    """An independent source of right keys: whatever stands in a config may also be given as a whole."""
    pages = sorted((CONFIGS / family).glob("*.py"))
    assert len(pages) >= 2
    for page in pages[:: max(1, len(pages) // 3)]:
        if "voc0712-cocofmt" in page.name:
            continue  # gives CocoMetric an option that it does not have
        if "dconv" in page.name:
            continue  # ResNet itself takes `fallback_on_stride` out of `dcn`: such a key needs its '+'
        known = Config.fromfile(page, import_custom_modules=False)
        for key, value in known.to_dict().items():
            if key in (
                "model",
                "train_dataloader",
                "optim_wrapper",
                "default_hooks",
                "custom_hooks",
                "param_scheduler",
            ):
                set_key(known, key, value)
