"""The layers of torch."""

import torch
import torch.nn.functional as F
from torch import nn

from razorlight.layers.known.common import ATTENTION, RMS_NORM, register
from razorlight.planning import Role

register(nn.Linear, functions=[F.linear], role=Role.PRODUCT)
register(nn.Conv1d, functions=[F.conv1d, F.pad], role=Role.PRODUCT)
register(nn.Conv2d, functions=[F.conv2d, F.pad], role=Role.PRODUCT)
register(nn.Conv3d, functions=[F.conv3d, F.pad], role=Role.PRODUCT)
register(nn.ConvTranspose1d, functions=[F.conv_transpose1d], role=Role.PRODUCT)
register(nn.ConvTranspose2d, functions=[F.conv_transpose2d], role=Role.PRODUCT)
register(nn.ConvTranspose3d, functions=[F.conv_transpose3d], role=Role.PRODUCT)
register(nn.Embedding, functions=[F.embedding], role=Role.VIEW)

register(
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    functions=[F.batch_norm],
    role=Role.CHANNEL_NORM,
)
register(
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    functions=[F.instance_norm],
    role=Role.CHANNEL_NORM,
)
register(nn.GroupNorm, functions=[F.group_norm], role=Role.CHANNEL_NORM)
register(nn.LayerNorm, functions=[F.layer_norm], role=Role.NORM)
register(nn.RMSNorm, functions=RMS_NORM, role=Role.NORM)

register(nn.ReLU, functions=[F.relu], role=Role.RECTIFIER)
register(nn.ReLU6, nn.Hardtanh, functions=[F.hardtanh], role=Role.RECTIFIER)
register(nn.Hardsigmoid, functions=[F.hardsigmoid], role=Role.RECTIFIER)
register(nn.LeakyReLU, functions=[F.leaky_relu], role=Role.RECTIFIER)

register(nn.GELU, functions=[F.gelu], role=Role.SMOOTH_ACTIVATION)
register(nn.SiLU, functions=[F.silu], role=Role.SMOOTH_ACTIVATION)
register(nn.Hardswish, functions=[F.hardswish], role=Role.SMOOTH_ACTIVATION)
register(nn.PReLU, functions=[F.prelu], role=Role.SMOOTH_ACTIVATION)
register(nn.Mish, functions=[F.mish], role=Role.SMOOTH_ACTIVATION)
register(nn.Softplus, functions=[F.softplus], role=Role.SMOOTH_ACTIVATION)
register(
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    functions=[F.relu, F.gelu],  # an argument of the layer chooses one of them
    role=Role.SMOOTH_ACTIVATION,
)
register(nn.ELU, functions=[F.elu], role=Role.KINKED_ACTIVATION)
register(nn.CELU, functions=[F.celu], role=Role.KINKED_ACTIVATION)
register(nn.SELU, functions=[F.selu], role=Role.KINKED_ACTIVATION)
register(nn.Sigmoid, functions=[torch.sigmoid], role=Role.BOUNDED_ACTIVATION)
register(nn.Tanh, functions=[torch.tanh], role=Role.BOUNDED_ACTIVATION)
register(nn.GLU, functions=[F.glu], role=Role.OPERANDS)

register(nn.Dropout, functions=[F.dropout], role=Role.MASK)
register(nn.AlphaDropout, functions=[F.alpha_dropout], role=Role.MASK)
register(nn.Dropout1d, functions=[F.dropout1d], role=Role.VIEW)
register(nn.Dropout2d, functions=[F.dropout2d], role=Role.VIEW)
register(nn.Dropout3d, functions=[F.dropout3d], role=Role.VIEW)
register(nn.MaxPool1d, functions=[F.max_pool1d], role=Role.MASK)
register(nn.MaxPool2d, functions=[F.max_pool2d], role=Role.MASK)
register(nn.MaxPool3d, functions=[F.max_pool3d], role=Role.MASK)
register(
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    functions=[F.avg_pool1d, F.adaptive_avg_pool1d],
    role=Role.VIEW,
)
register(
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    functions=[F.avg_pool2d, F.adaptive_avg_pool2d],
    role=Role.VIEW,
)
register(
    nn.AvgPool3d,
    nn.AdaptiveAvgPool3d,
    functions=[F.avg_pool3d, F.adaptive_avg_pool3d],
    role=Role.VIEW,
)
register(
    nn.Flatten,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Upsample,
    nn.UpsamplingBilinear2d,
    nn.UpsamplingNearest2d,
    role=Role.VIEW,
)

register(nn.BCEWithLogitsLoss, nn.CrossEntropyLoss, role=Role.LOSS)

register(nn.Softmax, functions=[F.softmax], role=Role.OPERANDS)
register(
    nn.MultiheadAttention,
    functions=[*ATTENTION, F.linear],
    role=Role.OPERANDS,
    uses_weights_of=["out_proj"],
)
