"""The layers of segmentation-models-pytorch."""

import torch.nn.functional as F

from razorlight.layers.known.common import ATTENTION, paths, register
from razorlight.planning import Role

_MIT = "segmentation_models_pytorch.encoders.mix_transformer"
_DECODERS = "segmentation_models_pytorch.decoders"
_LOSSES = "segmentation_models_pytorch.losses"

register(
    f"{_MIT}.LayerNorm",
    f"{_DECODERS}.upernet.decoder.LayerNorm2d",
    functions=[F.layer_norm],
    role=Role.NORM,
)
register(
    *paths(_MIT, "Block", "DWConv"),
    *paths(f"{_DECODERS}.segformer.decoder", "MLP", "SegformerDecoder"),
    f"{_DECODERS}.unet.decoder.UnetDecoderBlock",
    role=Role.VIEW,
)
register(
    *paths(_LOSSES, "DiceLoss", "FocalLoss", "JaccardLoss", "LovaszLoss", "MCCLoss"),
    *paths(_LOSSES, "SoftBCEWithLogitsLoss", "SoftCrossEntropyLoss", "TverskyLoss"),
    role=Role.LOSS,
)
register(f"{_MIT}.Attention", functions=ATTENTION, role=Role.OPERANDS)
