"""The layers of torch, torchvision, timm and smp that razorlight knows, by exact class.

A class belongs here once the tests compare it with its dense self.
"""

from functools import partial

import segmentation_models_pytorch as smp
import segmentation_models_pytorch.decoders.segformer.decoder as smp_segformer
import segmentation_models_pytorch.decoders.unet.decoder as smp_unet
import segmentation_models_pytorch.decoders.upernet.decoder as smp_upernet
import segmentation_models_pytorch.encoders.mix_transformer as smp_mit
import timm.layers
import timm.layers.activations
import timm.loss
import timm.models._efficientnet_blocks
import timm.models.beit
import timm.models.convnext
import timm.models.eva
import timm.models.swin_transformer
import timm.models.vision_transformer_relpos
import torch
import torch.nn.functional as F
import torchvision.models.convnext
import torchvision.models.detection.faster_rcnn
import torchvision.models.swin_transformer
import torchvision.ops
from torch import Tensor, nn

from razorlight.layers import base
from razorlight.layers.base import Role, TorchFunction

register = partial(base.register, alternatives=True)  # and some call none, such as dropout of 0

register(nn.Linear, timm.layers.Linear, functions=[F.linear], role=Role.PRODUCT)

register(nn.Conv1d, functions=[F.conv1d, F.pad], role=Role.PRODUCT)
register(
    nn.Conv2d,
    timm.layers.Conv2dSame,
    timm.layers.ScaledStdConv2d,
    timm.layers.ScaledStdConv2dSame,
    timm.layers.StdConv2d,
    timm.layers.StdConv2dSame,
    functions=[F.conv2d, F.pad],
    role=Role.PRODUCT,
)
register(nn.Conv3d, functions=[F.conv3d, F.pad], role=Role.PRODUCT)
register(nn.ConvTranspose1d, functions=[F.conv_transpose1d], role=Role.PRODUCT)
register(nn.ConvTranspose2d, functions=[F.conv_transpose2d], role=Role.PRODUCT)
register(nn.ConvTranspose3d, functions=[F.conv_transpose3d], role=Role.PRODUCT)
register(nn.Embedding, functions=[F.embedding], role=Role.CARRIER)

register(
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    timm.layers.BatchNormAct2d,
    functions=[F.batch_norm],
    role=Role.MAP_NORM,
)
register(
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    functions=[F.instance_norm],
    role=Role.MAP_NORM,
)
register(
    nn.GroupNorm,
    timm.layers.GroupNorm,
    timm.layers.GroupNorm1,
    timm.layers.GroupNormAct,
    functions=[F.group_norm],
    role=Role.MAP_NORM,
)
register(
    nn.LayerNorm,
    timm.layers.LayerNorm,
    timm.layers.LayerNorm2d,
    timm.layers.LayerNormAct,
    timm.layers.LayerNormAct2d,
    torchvision.models.convnext.LayerNorm2d,
    smp_mit.LayerNorm,
    smp_upernet.LayerNorm2d,
    functions=[F.layer_norm],
    role=Role.NORM,
)

RMS_NORM: list[TorchFunction] = [F.rms_norm]
register(
    nn.RMSNorm,
    timm.layers.RmsNorm,
    timm.layers.RmsNormFp32,
    functions=RMS_NORM,
    role=Role.NORM,
)


def _rms_norm_of_maps(layer: timm.layers.RmsNorm2d, x: Tensor) -> Tensor:
    shape, weight = layer.normalized_shape, layer.weight
    return F.rms_norm(x.permute(0, 2, 3, 1), shape, weight, layer.eps).permute(0, 3, 1, 2)


register(
    timm.layers.RmsNorm2d,
    timm.layers.RmsNorm2dFp32,
    functions=RMS_NORM,
    role=Role.NORM,
    same_as=_rms_norm_of_maps,
)

register(
    nn.ReLU,
    torchvision.models.detection.faster_rcnn.TwoMLPHead,
    functions=[F.relu],
    role=Role.GATE,
)
register(nn.ReLU6, nn.Hardtanh, functions=[F.hardtanh], role=Role.GATE)
register(nn.Hardsigmoid, functions=[F.hardsigmoid], role=Role.GATE)
register(nn.LeakyReLU, functions=[F.leaky_relu], role=Role.GATE)
register(nn.Dropout, functions=[F.dropout], role=Role.BITS)
register(nn.AlphaDropout, functions=[F.alpha_dropout], role=Role.BITS)
register(nn.Dropout1d, functions=[F.dropout1d], role=Role.CARRIER)
register(nn.Dropout2d, functions=[F.dropout2d], role=Role.CARRIER)
register(nn.Dropout3d, functions=[F.dropout3d], role=Role.CARRIER)
register(nn.MaxPool1d, functions=[F.max_pool1d], role=Role.BITS)
register(nn.MaxPool2d, functions=[F.max_pool2d], role=Role.BITS)
register(nn.MaxPool3d, functions=[F.max_pool3d], role=Role.BITS)
register(
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    functions=[F.avg_pool1d, F.adaptive_avg_pool1d],
    role=Role.CARRIER,
)
register(
    nn.AvgPool2d,
    timm.layers.AvgPool2dSame,
    nn.AdaptiveAvgPool2d,
    functions=[F.avg_pool2d, F.adaptive_avg_pool2d],
    role=Role.CARRIER,
)
register(
    nn.AvgPool3d,
    nn.AdaptiveAvgPool3d,
    functions=[F.avg_pool3d, F.adaptive_avg_pool3d],
    role=Role.CARRIER,
)

register(
    nn.GELU,
    timm.layers.activations.GELU,
    timm.layers.activations.GELUTanh,
    functions=[F.gelu],
    role=Role.SLOPE,
)
register(
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    functions=[F.relu, F.gelu],  # one of them, as they are told
    role=Role.SLOPE,
)
register(nn.SiLU, functions=[F.silu], role=Role.SLOPE)
register(nn.Hardswish, functions=[F.hardswish], role=Role.SLOPE)
register(nn.PReLU, functions=[F.prelu], role=Role.SLOPE)
register(nn.ELU, functions=[F.elu], role=Role.KINK)
register(nn.CELU, functions=[F.celu], role=Role.KINK)
register(nn.SELU, functions=[F.selu], role=Role.KINK)
register(nn.Mish, functions=[F.mish], role=Role.SLOPE)
register(nn.Softplus, functions=[F.softplus], role=Role.SLOPE)
register(nn.Sigmoid, functions=[torch.sigmoid], role=Role.BOUNDED)
register(nn.Tanh, functions=[torch.tanh], role=Role.BOUNDED)
register(nn.GLU, functions=[F.glu], role=Role.ATTENTION)

MULTIPLY: list[TorchFunction] = [torch.mul]
register(
    timm.layers.LayerScale,
    timm.layers.SqueezeExcite,
    timm.models._efficientnet_blocks.SqueezeExcite,
    timm.models.convnext.ConvNeXtBlock,
    torchvision.ops.SqueezeExcitation,
    functions=MULTIPLY,
    role=Role.PRODUCT,
)
register(timm.layers.GluMlp, timm.layers.SwiGLU, functions=MULTIPLY, role=Role.ATTENTION)
register(
    nn.Flatten,
    timm.models.swin_transformer.PatchMerging,
    timm.models.swin_transformer.SwinTransformerBlock,
    torchvision.models.swin_transformer.PatchMerging,
    torchvision.ops.Permute,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Upsample,
    nn.UpsamplingBilinear2d,
    nn.UpsamplingNearest2d,
    smp_mit.Block,
    smp_mit.DWConv,
    smp_segformer.MLP,
    smp_segformer.SegformerDecoder,
    smp_unet.UnetDecoderBlock,
    role=Role.CARRIER,
)

register(
    nn.BCEWithLogitsLoss,
    nn.CrossEntropyLoss,
    smp.losses.DiceLoss,
    smp.losses.FocalLoss,
    smp.losses.JaccardLoss,
    smp.losses.LovaszLoss,
    smp.losses.MCCLoss,
    smp.losses.SoftBCEWithLogitsLoss,
    smp.losses.SoftCrossEntropyLoss,
    smp.losses.TverskyLoss,
    timm.loss.BinaryCrossEntropy,
    timm.loss.LabelSmoothingCrossEntropy,
    timm.loss.SoftTargetCrossEntropy,
    role=Role.LOSS,
)

ATTENTION: list[TorchFunction] = [
    F.scaled_dot_product_attention,  # fused
    F.softmax,  # and written out
    torch.matmul,
]
register(nn.Softmax, functions=[F.softmax], role=Role.ATTENTION)
register(
    timm.layers.Attention,
    timm.layers.AttentionRope,
    timm.models.swin_transformer.WindowAttention,
    timm.models.vision_transformer_relpos.RelPosAttention,
    smp_mit.Attention,
    functions=ATTENTION,
    role=Role.ATTENTION,
)
register(
    timm.models.beit.Attention,
    timm.models.eva.EvaAttention,
    functions=[*ATTENTION, F.linear],  # q and v have a bias and k has none: F.linear by hand
    role=Role.ATTENTION,
)
register(
    nn.MultiheadAttention,
    functions=[*ATTENTION, F.linear],
    role=Role.ATTENTION,
    runs=["out_proj"],
)
register(
    torchvision.models.swin_transformer.ShiftedWindowAttention,
    functions=[*ATTENTION, F.linear],
    role=Role.ATTENTION,
    runs=["qkv", "proj"],
)
