"""LevelWeighted before every detector of MMDetection: stock's loss with weights 1, or a refusal when it is built."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData, PixelData
from torch import nn

from experiments.detection import LevelWeighted, LevelWeightedTwoStage
from experiments.detection.level_weighting.refusals import REASONS, explain_refusal
from experiments.weighting import OptionError
from tests.unit.detection.detectors import CONFIGS, SIZE, batch, losses_of

from mmdet.models import dense_heads  # isort: skip
from mmdet.models.roi_heads import bbox_heads  # isort: skip
from mmdet.registry import MODELS  # isort: skip
from mmdet.structures.mask import BitmapMasks  # isort: skip
from mmengine import Config  # isort: skip

# Configs that stand for a detector and its heads, one a combination; those below train with level weights.
WEIGHTED = [
    "atss/atss_r50_fpn_1x_coco",
    "ddod/ddod_r50_fpn_1x_coco",
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco",
    "foveabox/fovea_r50_fpn_4xb4-1x_coco",
    "foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco",
    "fsaf/fsaf_r50_fpn_1x_coco",
    "gfl/gfl_r50_fpn_1x_coco",
    "ghm/retinanet_r50_fpn_ghm-1x_coco",
    "ld/ld_r18-gflv1-r101_fpn_1x_coco",
    "nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco",
    "nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco",
    "reppoints/reppoints-moment_r50_fpn_1x_coco",
    "retinanet/retinanet_r50_fpn_1x_coco",
    "rpn/rpn_r50_fpn_1x_coco",
    "rtmdet/rtmdet_l_8xb32-300e_coco",
    "tood/tood_r50_fpn_1x_coco",
    "tood/tood_r50_fpn_anchor-based_1x_coco",
]
TWO_STAGE = [
    "double_heads/dh-faster-rcnn_r50_fpn_1x_coco",
    "dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco",
    "fast_rcnn/fast-rcnn_r50_fpn_1x_coco",
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
    "faster_rcnn/faster-rcnn_r50_fpn_ohem_1x_coco",
    "gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco",
    "libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco",
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco",
    "ms_rcnn/ms-rcnn_r50_fpn_1x_coco",
    "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco",
    "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco",
    "seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1",
]
RPN_ALONE = [  # whose RoI head is refused
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco",
    "faster_rcnn/faster-rcnn_r50_fpn_fcos-rpn_1x_coco",
    "groie/faste-rcnn_r50_fpn_groie_1x_coco",
    "htc/htc_r50_fpn_1x_coco",
    "sabl/sabl-faster-rcnn_r50_fpn_1x_coco",
]
# Those that are refused, and what the message names.
REFUSED = {
    "autoassign/autoassign_r50-caffe_fpn_1x_coco": "AutoAssignHead returns each loss as one number",
    "boxinst/boxinst_r50_fpn_ms-90k_coco": "BoxInstBboxHead returns each loss as one number",
    "centernet/centernet_r18_8xb16-crop512-140e_coco": "CenterNetHead predicts from one feature map",
    "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco": "CenterNetUpdateHead returns each loss as one number",
    "centripetalnet/centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco": "CentripetalHead predicts from one",
    "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance": "CondInstBboxHead returns each loss as one number",
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco": "ConditionalDETRHead predicts from queries",
    "cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco": "CornerHead predicts from one feature map",
    "dab_detr/dab-detr_r50_8xb2-50e_coco": "DABDETRHead predicts from queries",
    "ddq/ddq-detr-4scale_r50_8xb2-12e_coco": "DDQDETRHead predicts from queries",
    "deformable_detr/deformable-detr_r50_16xb2-50e_coco": "DeformableDETRHead predicts from queries",
    "detr/detr_r18_8xb2-500e_coco": "DETRHead predicts from queries",
    "dino/dino-4scale_r50_8xb2-12e_coco": "DINOHead predicts from queries",
    "free_anchor/freeanchor_r50_fpn_1x_coco": "FreeAnchorRetinaHead returns each loss as one number",
    "guided_anchoring/ga-retinanet_r50_fpn_1x_coco": "GARetinaHead has no `prior_generator.strides`",
    "guided_anchoring/ga-rpn_r50_fpn_1x_coco": "GARPNHead has no `prior_generator.strides`",
    "lad/lad_r101-paa-r50_fpn_2xb8_coco_1x": "LADHead returns each loss as one number",
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco": "LevelWeightedMask2Former has no `bbox_head`",
    "maskformer/maskformer_r50_ms-16xb1-75e_coco": "LevelWeightedMaskFormer has no `bbox_head`",
    "paa/paa_r50_fpn_1x_coco": "PAAHead returns each loss as one number",
    "pisa/retinanet-r50_fpn_pisa_1x_coco": "PISARetinaHead returns each loss as one number",
    "pisa/ssd300_pisa_coco": "PISASSDHead lists its losses per image",
    "rtmdet/rtmdet-ins_l_8xb32-300e_coco": "RTMDetInsSepBNHead returns its mask loss as one number",
    "sabl/sabl-retinanet_r50_fpn_1x_coco": "SABLRetinaHead has no `prior_generator.strides`",
    "solo/solo_r50_fpn_1x_coco": "LevelWeightedSOLO has no `bbox_head`",
    "solov2/solov2_r50_fpn_1x_coco": "LevelWeightedSOLOv2 has no `bbox_head`",
    "ssd/ssd300_coco": "SSDHead lists its losses per image",
    "vfnet/vfnet_r50_fpn_1x_coco": "VFNetHead returns each loss as one number",
    "yolact/yolact_r50_1xb8-55e_coco": "YOLACTHead lists its losses per image",
    "yolo/yolov3_d53_8xb8-320-273e_coco": "YOLOV3Head lists its levels coarsest first",
    "yolof/yolof_r50-c5_8xb8-1x_coco": "YOLOFHead predicts from one feature map",
    "yolox/yolox_l_8xb8-300e_coco": "YOLOXHead returns each loss as one number",
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco": "CascadeRCNN: CascadeRoIHead refines its predictions in stages",
    "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman": "MultiInstanceBBoxHead returns each loss as one number",
    "faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco": "StandardRoIHead predicts from one feature map",
    "grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco": "GridRoIHead returns loss_grid",
    "groie/faste-rcnn_r50_fpn_groie_1x_coco": "GenericRoIExtractor pools a RoI from all levels",
    "htc/htc_r50_fpn_1x_coco": "HybridTaskCascadeRoIHead refines its predictions in stages",
    "pisa/faster-rcnn_r50_fpn_pisa_1x_coco": "PISARoIHead returns loss_carl",
    "queryinst/queryinst_r50_fpn_1x_coco": "SparseRoIHead refines its predictions in stages",
    "sabl/sabl-faster-rcnn_r50_fpn_1x_coco": "SABLHead returns each loss as one number",
    "scnet/scnet_r50_fpn_1x_coco": "SCNetRoIHead refines its predictions in stages",
    "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco": "SparseRCNN: SparseRoIHead refines its predictions in stages",
    "tridentnet/tridentnet_r50-caffe_1x_coco": "TridentRoIHead predicts from one feature map",
}
RPN_REFUSED = {
    "cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco": "CascadeRPNHead refines its predictions in stages",
    "fast_rcnn/fast-rcnn_r50_fpn_1x_coco": "FastRCNN has no `rpn_head`",
    "guided_anchoring/ga-faster-rcnn_r50_fpn_1x_coco": "GARPNHead has no `prior_generator.strides`",
    "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco": "EmbeddingRPNHead predicts from queries",
    "tridentnet/tridentnet_r50-caffe_1x_coco": "RPNHead predicts from one feature map",
}
FAST = (
    "ddod/",
    "faster-rcnn_r50_fpn_ohem",
    "freeanchor",
    "dino",
    "sparse-rcnn",
    "ga-retinanet",
)


LEVEL_WISE = {  # StageCascadeRPNHead is a stage of a head that is refused
    "AnchorHead", "StageCascadeRPNHead", "ATSSHead", "DDODHead", "FCOSHead", "FSAFHead", "FoveaHead", "GFLHead",
    "LDHead", "NASFCOSHead", "RPNHead", "RTMDetHead", "RTMDetSepBNHead", "RepPointsHead", "RetinaHead",
    "RetinaSepBNHead", "TOODHead",
}  # fmt: skip
OTHERS = {
    "AnchorFreeHead",  # abstract
    "YOLOV3Head",  # its strides refuse it
    "FeatureAdaption",  # no head
    "BoxInstMaskHead", "CondInstMaskHead", "DecoupledSOLOHead", "DecoupledSOLOLightHead", "SOLOHead", "SOLOV2Head",
    "YOLACTProtonet",  # predict masks beside a box head, or without any
}  # fmt: skip


def parameters(configs):
    return [c if any(f in c for f in FAST) else pytest.param(c, marks=pytest.mark.slow) for c in configs]


def test_every_dense_head_is_known_to_list_its_losses_by_level_or_refused():
    refused = {
        name for name in dense_heads.__all__ if explain_refusal(getattr(dense_heads, name)) is not None
    }
    assert refused.isdisjoint(LEVEL_WISE | OTHERS)
    assert refused | LEVEL_WISE | OTHERS == set(dense_heads.__all__)
    box_heads = {"SABLHead", "MultiInstanceBBoxHead"}
    assert set(REASONS) <= refused | box_heads  # no name is misspelt
    assert all(explain_refusal(getattr(bbox_heads, name)) is not None for name in box_heads)


@MODELS.register_module(force=True)
class TinyBackbone(nn.Module):
    """Maps of any width from the pooled image, the coarsest at stride 32."""

    num_branch, test_branch_idx = 3, 1  # that TridentNet asks for

    def __init__(self, channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, width, 1) for width in channels)

    def forward(self, x):
        finest = 64 >> len(self.convs)
        return tuple(conv(F.avg_pool2d(x, finest << i)) for i, conv in enumerate(self.convs))


def model_config(path):
    model = Config.fromfile(CONFIGS / f"{path}.py").model
    neck = model.get("neck")
    neck = neck[0] if isinstance(neck, list) else neck or {}
    channels = neck.get("in_channels", [8, 8, 8, 8])
    backbone = dict(type="TinyBackbone", channels=[channels] if isinstance(channels, int) else list(channels))
    model.backbone = backbone
    if "teacher_backbone" in model:
        model.teacher_backbone = copy.deepcopy(backbone)
    model.pop("teacher_ckpt", None)
    if "teacher_config" in model:
        teacher = model_config("gfl/gfl_r50_fpn_1x_coco")
        model.teacher_config = Config(dict(model=teacher))
    if "data_preprocessor" in model:
        model.data_preprocessor.pop("batch_augments", None)
    if "rpn_proposal" in (model.get("train_cfg") or {}):
        model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
        for stage in (
            model.train_cfg.rcnn if isinstance(model.train_cfg.rcnn, list) else [model.train_cfg.rcnn]
        ):
            if "sampler" in stage:
                stage.sampler.num = 32
    return model


def level_weighted(kind, mixin):
    """MMDetection's class of that name with the mixin before it."""
    return type(f"LevelWeighted{kind}", (mixin, MODELS.get(kind)), {})


def build(path, mixin=None, **weighting):
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    model = model_config(path)
    if mixin is not None:
        MODELS.register_module(name="UnderTest", module=level_weighted(model.type, mixin), force=True)
        model.type, model.weighting = "UnderTest", dict(rule="uniform", **weighting)
    torch.manual_seed(0)
    logging.disable(logging.INFO)
    try:
        return MODELS.build(model)
    finally:
        logging.disable(logging.NOTSET)


def data(masks):
    """A batch with what any of the detectors asks for."""
    content = batch("all levels")
    for sample in content["data_samples"]:
        boxes = sample.gt_instances.bboxes
        sample.proposals = InstanceData(bboxes=boxes.clone(), scores=torch.ones(len(boxes)))
        sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, SIZE, SIZE, dtype=torch.long))
        if masks:
            filled = np.zeros((len(boxes), SIZE, SIZE), dtype=np.uint8)
            for mask, (x1, y1, x2, y2) in zip(filled, boxes.int().tolist()):
                mask[y1:y2, x1:x2] = 1
            sample.gt_instances.masks = BitmapMasks(filled, SIZE, SIZE)
    return content


@pytest.fixture(autouse=True)
def _plain_convolution(monkeypatch):
    """In place of deformable convolution, which has no stand-in: without offsets it is this."""
    MessageHub.get_current_instance().update_info("epoch", 0)  # that TOOD asks for
    from mmcv.ops import deform_conv, modulated_deform_conv
    from mmdet.models.dense_heads import tood_head

    def plain(x, offset, weight):
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups) + 0 * offset.mean()

    def modulated(x, offset, mask, weight, *rest):
        return plain(x, offset, weight) + 0 * mask.mean()

    monkeypatch.setattr(
        deform_conv, "deform_conv2d", lambda x, offset, weight, *rest: plain(x, offset, weight)
    )
    monkeypatch.setattr(tood_head, "deform_conv2d", lambda x, offset, weight, *rest: plain(x, offset, weight))
    monkeypatch.setattr(modulated_deform_conv, "modulated_deform_conv2d", modulated)


def losses_and_total(model):
    losses = losses_of(model, data(masks=getattr(getattr(model, "roi_head", None), "with_mask", False)))
    return losses, model.parse_losses(losses)[0]


def assert_same_total(path, mixin, **weighting):
    ours, stock = build(path, mixin, **weighting), build(path)
    for model in (ours, stock):
        model.train()
    stock.load_state_dict(ours.state_dict())
    assert losses_and_total(ours)[1].item() == pytest.approx(losses_and_total(stock)[1].item(), rel=1e-5)
    assert all(head._num_terms >= 2 for head in ours.weighting)  # terms that are weighted
    return ours


@pytest.mark.parametrize("path", parameters(WEIGHTED))
def test_a_one_stage_detector_has_stocks_loss_with_weights_one(path):
    """And the k-th loss of each term comes from the k-th level alone: a list may be over something else."""
    model, maps = assert_same_total(path, LevelWeighted), []
    model.bbox_head.register_forward_hook(lambda module, args, outputs: maps.append(outputs))
    losses, _ = losses_and_total(model)
    by_level = [[m for m in level if m.requires_grad] for level in zip(*maps[0])]
    for name, terms in model.level_terms(model.weighting[0], losses).items():
        for k, term in enumerate(terms):
            others = [m for j, level in enumerate(by_level) if j != k for m in level]
            gradients = torch.autograd.grad(term, others, retain_graph=True, allow_unused=True)
            assert all(g is None or not g.any() for g in gradients), (name, k)


@pytest.mark.parametrize("path", parameters(TWO_STAGE))
def test_a_two_stage_detector_has_stocks_loss_with_weights_one(path):
    assert_same_total(path, LevelWeightedTwoStage)


@pytest.mark.parametrize("path", parameters(RPN_ALONE))
def test_an_rpn_is_weighted_where_the_roi_head_cannot_be(path):
    assert_same_total(path, LevelWeightedTwoStage, where="rpn")


@pytest.mark.parametrize("path", parameters(REFUSED))
def test_what_cannot_be_weighted_is_refused_when_it_is_built(path):
    mixin = LevelWeightedTwoStage if "roi_head" in model_config(path) else LevelWeighted
    with pytest.raises(OptionError) as caught:
        build(path, mixin)
    assert REFUSED[path] in str(caught.value)
    assert "where: " not in str(caught.value).removesuffix("; where: rpn weights the RPN")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", parameters(RPN_REFUSED))
def test_an_rpn_without_levels_is_refused_when_it_is_built(path):
    with pytest.raises(OptionError) as caught:
        build(path, LevelWeightedTwoStage, where="rpn")
    assert RPN_REFUSED[path] in str(caught.value)


def test_a_two_stage_detector_with_the_mixin_of_a_one_stage_one_is_refused():
    with pytest.raises(OptionError, match="LevelWeightedFasterRCNN has no `bbox_head`"):
        build("faster_rcnn/faster-rcnn_r50_fpn_1x_coco", LevelWeighted)
    with pytest.raises(OptionError, match="LevelWeightedRetinaNet: LevelWeightedRetinaNet has no `roi_head`"):
        build("retinanet/retinanet_r50_fpn_1x_coco", LevelWeightedTwoStage)
