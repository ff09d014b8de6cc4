"""The layers of torchvision."""

import torch.nn.functional as F

from razorlight.layers.known.common import ATTENTION, MULTIPLY, register
from razorlight.planning import Role

_SWIN = "torchvision.models.swin_transformer"

register(
    "torchvision.models.convnext.LayerNorm2d",
    functions=[F.layer_norm],
    role=Role.NORM,
)
register(
    "torchvision.models.detection.faster_rcnn.TwoMLPHead",
    functions=[F.relu],
    role=Role.RECTIFIER,
)
register("torchvision.ops.misc.SqueezeExcitation", functions=MULTIPLY, role=Role.PRODUCT)
register("torchvision.ops.misc.Permute", f"{_SWIN}.PatchMerging", role=Role.VIEW)
register(
    f"{_SWIN}.ShiftedWindowAttention",
    functions=[*ATTENTION, F.linear],
    role=Role.OPERANDS,
    uses_weights_of=["qkv", "proj"],
)
