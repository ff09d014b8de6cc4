"""The layers of timm."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from razorlight.layers.known.common import ATTENTION, MULTIPLY, RMS_NORM, paths, register
from razorlight.planning import Role

register("timm.layers.Linear", functions=[F.linear], role=Role.PRODUCT)
register(
    *paths("timm.layers", "ScaledStdConv2d", "StdConv2d"),
    functions=[F.conv2d, F.pad],
    role=Role.PRODUCT,
)
register(
    *paths("timm.layers", "Conv2dSame", "ScaledStdConv2dSame", "StdConv2dSame"),
    functions=[F.conv2d, F.pad],
    role=Role.PRODUCT,
    pads_input=True,
)

register("timm.layers.BatchNormAct2d", functions=[F.batch_norm], role=Role.CHANNEL_NORM)
register(
    *paths("timm.layers", "GroupNorm", "GroupNorm1", "GroupNormAct"),
    functions=[F.group_norm],
    role=Role.CHANNEL_NORM,
)
register(
    *paths("timm.layers", "LayerNorm", "LayerNorm2d", "LayerNormAct", "LayerNormAct2d"),
    functions=[F.layer_norm],
    role=Role.NORM,
)
register(*paths("timm.layers", "RmsNorm", "RmsNormFp32"), functions=RMS_NORM, role=Role.NORM)


def _rms_norm_of_maps(layer: Any, x: Tensor) -> Tensor:
    shape, weight = layer.normalized_shape, layer.weight
    return F.rms_norm(x.permute(0, 2, 3, 1), shape, weight, layer.eps).permute(0, 3, 1, 2)


register(
    *paths("timm.layers", "RmsNorm2d", "RmsNorm2dFp32"),
    functions=RMS_NORM,
    role=Role.NORM,
    equivalent=_rms_norm_of_maps,
)

register(
    *paths("timm.layers.activations", "GELU", "GELUTanh"),
    functions=[F.gelu],
    role=Role.SMOOTH_ACTIVATION,
)
register(
    "timm.layers.AvgPool2dSame",
    functions=[F.avg_pool2d, F.adaptive_avg_pool2d],
    role=Role.VIEW,
)
register(
    "timm.layers.LayerScale",
    "timm.layers.SqueezeExcite",
    "timm.models._efficientnet_blocks.SqueezeExcite",
    "timm.models.convnext.ConvNeXtBlock",
    functions=MULTIPLY,
    role=Role.PRODUCT,
)
register(*paths("timm.layers", "GluMlp", "SwiGLU"), functions=MULTIPLY, role=Role.OPERANDS)
register(
    *paths("timm.models.swin_transformer", "PatchMerging", "SwinTransformerBlock"),
    role=Role.VIEW,
)

register(
    *paths("timm.loss", "BinaryCrossEntropy", "LabelSmoothingCrossEntropy"),
    "timm.loss.SoftTargetCrossEntropy",
    role=Role.LOSS,
)

register(
    *paths("timm.layers", "Attention", "AttentionRope"),
    "timm.models.swin_transformer.WindowAttention",
    "timm.models.vision_transformer_relpos.RelPosAttention",
    functions=ATTENTION,
    role=Role.OPERANDS,
)
register(
    "timm.models.beit.Attention",
    "timm.models.eva.EvaAttention",
    functions=[*ATTENTION, F.linear],  # only q and v have a bias, so the forward calls F.linear
    role=Role.OPERANDS,
)
