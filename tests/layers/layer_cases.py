"""Every known layer, and the shape of an input for it."""

import segmentation_models_pytorch.decoders.segformer.decoder as smp_segformer
import segmentation_models_pytorch.decoders.unet.decoder as smp_unet
import segmentation_models_pytorch.decoders.upernet.decoder as smp_upernet
import segmentation_models_pytorch.encoders.mix_transformer as smp_mit
import timm.layers
import timm.layers.activations
import timm.models._efficientnet_blocks
import timm.models.beit
import timm.models.convnext
import timm.models.eva
import timm.models.swin_transformer
import timm.models.vision_transformer_relpos
import torchvision.models.convnext
import torchvision.models.detection.faster_rcnn
import torchvision.models.swin_transformer
import torchvision.ops
from layers.loss_cases import IMAGE, LOSSES
from torch import nn

TOKENS = (2, 9, 16)
SERIES = (3, 8, 10)
VOLUME = (2, 8, 3, 5, 4)


class SelfAttention(nn.Module):
    """nn.MultiheadAttention of one input, as torchvision's ViT calls it."""

    def __init__(self, need_weights=False, **kwargs):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True, **kwargs)
        self.need_weights = need_weights

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class MiTAttention(nn.Module):
    """smp's attention over a 3 x 3 grid of tokens."""

    def __init__(self, **kwargs):
        super().__init__()
        self.attention = smp_mit.Attention(16, 2, **kwargs)

    def forward(self, x):
        return self.attention(x, 3, 3)


def unfused(attention):
    attention.fused_attn = False
    return attention


def timm_unit(**kwargs):
    return timm.layers.Attention(16, 2, qkv_bias=True, **kwargs)


PRODUCTS = {
    "Linear": (lambda: nn.Linear(16, 5), TOKENS),
    "Linear 1-D": (lambda: nn.Linear(16, 5), (16,)),
    "Linear no bias": (lambda: nn.Linear(16, 5, bias=False), (4, 16)),
    "timm Linear": (lambda: timm.layers.Linear(16, 5), TOKENS),
    "Conv1d": (lambda: nn.Conv1d(8, 6, 3, padding=1), (2, 8, 9)),
    "Conv2d": (lambda: nn.Conv2d(8, 6, 3, stride=2, padding=(1, 2)), IMAGE),
    "Conv2d unbatched": (lambda: nn.Conv2d(8, 6, 3), IMAGE[1:]),
    "Conv2d depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8, bias=False), IMAGE),
    "Conv2d dilated": (lambda: nn.Conv2d(8, 6, 3, dilation=(2, 1), groups=2), IMAGE),
    "Conv2d same": (lambda: nn.Conv2d(8, 6, 3, padding="same"), IMAGE),
    "Conv2d same, even": (lambda: nn.Conv2d(8, 6, (2, 4), padding="same"), IMAGE),
    "Conv2d valid": (lambda: nn.Conv2d(8, 6, 3, padding="valid"), IMAGE),
    "Conv2d reflect": (lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "Conv2d replicate": (
        lambda: nn.Conv2d(8, 6, (3, 5), padding=(1, 2), padding_mode="replicate"),
        IMAGE,
    ),
    "Conv2d circular": (lambda: nn.Conv2d(8, 6, 3, padding="same", padding_mode="circular"), IMAGE),
    "Conv3d": (lambda: nn.Conv3d(8, 6, (1, 3, 3), padding=(0, 1, 1)), VOLUME),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(8, 6, 3, 2, output_padding=1), SERIES),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(8, 6, 2, 2), VOLUME),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, groups=2, dilation=2),
        IMAGE,
    ),
    "timm Conv2dSame": (lambda: timm.layers.Conv2dSame(8, 6, 3, stride=2), IMAGE),
    "timm StdConv2d": (lambda: timm.layers.StdConv2d(8, 6, 3), IMAGE),
    "timm StdConv2dSame": (lambda: timm.layers.StdConv2dSame(8, 6, 3, stride=2), IMAGE),
    "timm ScaledStdConv2d": (lambda: timm.layers.ScaledStdConv2d(8, 6, 3), IMAGE),
    "timm ScaledStdConv2dSame": (lambda: timm.layers.ScaledStdConv2dSame(8, 6, 3), IMAGE),
}
NORMS = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(8), (4, 8)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(8), IMAGE),
    "BatchNorm2d no affine": (lambda: nn.BatchNorm2d(8, affine=False), IMAGE),
    "BatchNorm2d no stats": (lambda: nn.BatchNorm2d(8, track_running_stats=False), IMAGE),
    "BatchNorm2d average": (lambda: nn.BatchNorm2d(8, momentum=None), IMAGE),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(8), VOLUME),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(8), SERIES),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(8, affine=True), IMAGE),
    "InstanceNorm2d unbatched": (lambda: nn.InstanceNorm2d(8, affine=True), IMAGE[1:]),
    "InstanceNorm3d": (
        lambda: nn.InstanceNorm3d(8, affine=True, track_running_stats=True),
        VOLUME,
    ),
    "timm BatchNormAct2d": (lambda: timm.layers.BatchNormAct2d(8), IMAGE),
    "GroupNorm": (lambda: nn.GroupNorm(4, 8), IMAGE),
    "timm GroupNorm": (lambda: timm.layers.GroupNorm(8, 4), IMAGE),
    "timm GroupNorm1": (lambda: timm.layers.GroupNorm1(8), IMAGE),
    "timm GroupNormAct": (lambda: timm.layers.GroupNormAct(8, group_size=4), IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm(16), TOKENS),
    "LayerNorm 1-D": (lambda: nn.LayerNorm(16), (16,)),
    "LayerNorm 2 dims": (lambda: nn.LayerNorm((9, 7)), IMAGE),
    "LayerNorm no affine": (lambda: nn.LayerNorm(16, elementwise_affine=False), TOKENS),
    "RMSNorm": (lambda: nn.RMSNorm(16), TOKENS),
    "RMSNorm 2 dims": (lambda: nn.RMSNorm((9, 7), eps=1e-3), IMAGE),
    "RMSNorm no affine": (lambda: nn.RMSNorm(16, elementwise_affine=False), TOKENS),
    "timm RmsNorm": (lambda: timm.layers.RmsNorm(16), TOKENS),
    "timm RmsNormFp32": (lambda: timm.layers.RmsNormFp32(16), TOKENS),
    "timm RmsNorm2d": (lambda: timm.layers.RmsNorm2d(8), IMAGE),
    "timm RmsNorm2d no affine": (lambda: timm.layers.RmsNorm2d(8, affine=False), IMAGE),
    "timm RmsNorm2dFp32": (lambda: timm.layers.RmsNorm2dFp32(8), IMAGE),
    "timm LayerNorm": (lambda: timm.layers.LayerNorm(16), TOKENS),
    "timm LayerNorm2d": (lambda: timm.layers.LayerNorm2d(8), IMAGE),
    "timm LayerNormAct": (lambda: timm.layers.LayerNormAct(16), TOKENS),
    "timm LayerNormAct2d": (lambda: timm.layers.LayerNormAct2d(8), IMAGE),
    "torchvision LayerNorm2d": (lambda: torchvision.models.convnext.LayerNorm2d(8), IMAGE),
    "smp MiT LayerNorm": (lambda: smp_mit.LayerNorm(8), IMAGE),
    "smp UPerNet LayerNorm2d": (lambda: smp_upernet.LayerNorm2d(8), IMAGE),
}
GATES = {
    "ReLU": (lambda: nn.ReLU(), IMAGE),
    "ReLU inplace": (lambda: nn.ReLU(inplace=True), IMAGE),
    "ReLU6": (lambda: nn.ReLU6(), IMAGE),
    "ReLU6 inplace": (lambda: nn.ReLU6(inplace=True), IMAGE),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.1), IMAGE),
    "LeakyReLU inplace": (lambda: nn.LeakyReLU(0.1, inplace=True), IMAGE),
    "Hardtanh": (lambda: nn.Hardtanh(-0.5, 0.7), IMAGE),
    "Hardsigmoid": (lambda: nn.Hardsigmoid(), IMAGE),
    "Hardsigmoid inplace": (lambda: nn.Hardsigmoid(inplace=True), IMAGE),
    "Dropout": (lambda: nn.Dropout(0.3), IMAGE),
    "Dropout inplace": (lambda: nn.Dropout(0.3, inplace=True), IMAGE),
    "Dropout all": (lambda: nn.Dropout(1.0), IMAGE),
    "AlphaDropout": (lambda: nn.AlphaDropout(0.3), IMAGE),
    "Dropout1d": (lambda: nn.Dropout1d(0.3), SERIES),
    "Dropout2d": (lambda: nn.Dropout2d(0.3), IMAGE),
    "Dropout2d inplace": (lambda: nn.Dropout2d(0.3, inplace=True), IMAGE),
    "Dropout3d": (lambda: nn.Dropout3d(0.3), VOLUME),
    "Dropout3d unbatched": (lambda: nn.Dropout3d(0.3), VOLUME[1:]),
    "MaxPool1d": (lambda: nn.MaxPool1d(3, 2, 1, dilation=2), SERIES),
    "MaxPool3d": (lambda: nn.MaxPool3d((1, 2, 3), (1, 2, 1), (0, 1, 1)), VOLUME),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "MaxPool2d overlapping": (lambda: nn.MaxPool2d((2, 3), (1, 2), dilation=(2, 1)), IMAGE),
    "MaxPool2d ceil": (lambda: nn.MaxPool2d(2, 2, ceil_mode=True), IMAGE),
    "MaxPool2d unbatched": (lambda: nn.MaxPool2d(2), IMAGE[1:]),
}
MEANS = {
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "timm AvgPool2dSame": (lambda: timm.layers.AvgPool2dSame(2, 2), IMAGE),
    "AvgPool1d": (lambda: nn.AvgPool1d(3, 2), SERIES),
    "AvgPool3d": (lambda: nn.AvgPool3d(2, padding=1), VOLUME),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(4), SERIES),
    "AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d((2, None, 1)), VOLUME),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
}
CURVES = {
    "GELU": (lambda: nn.GELU(), TOKENS),
    "GELU tanh": (lambda: nn.GELU(approximate="tanh"), TOKENS),
    "timm GELU": (lambda: timm.layers.activations.GELU(), TOKENS),
    "timm GELUTanh": (lambda: timm.layers.activations.GELUTanh(), TOKENS),
    "SiLU": (lambda: nn.SiLU(), IMAGE),
    "SiLU inplace": (lambda: nn.SiLU(inplace=True), IMAGE),
    "Hardswish": (lambda: nn.Hardswish(), IMAGE),
    "Hardswish inplace": (lambda: nn.Hardswish(inplace=True), IMAGE),
}
OTHER_CURVES = {
    "PReLU": (lambda: nn.PReLU(), TOKENS),
    "PReLU of channels": (lambda: nn.PReLU(8), IMAGE),
    "ELU": (lambda: nn.ELU(0.7), IMAGE),
    "ELU inplace": (lambda: nn.ELU(inplace=True), IMAGE),
    "CELU": (lambda: nn.CELU(0.7), IMAGE),
    "SELU": (lambda: nn.SELU(), IMAGE),
    "Mish": (lambda: nn.Mish(), IMAGE),
    "Mish inplace": (lambda: nn.Mish(inplace=True), IMAGE),
    "Softplus": (lambda: nn.Softplus(2.0, 3.0), IMAGE),
    "Sigmoid": (lambda: nn.Sigmoid(), IMAGE),
    "Tanh": (lambda: nn.Tanh(), TOKENS),
}
ATTENTION = {
    "Softmax": (lambda: nn.Softmax(-1), TOKENS),
    "timm": (timm_unit, TOKENS),
    "timm dropout": (lambda: timm_unit(attn_drop=0.2, proj_drop=0.2), TOKENS),
    "timm unfused": (lambda: unfused(timm_unit()), TOKENS),
    "timm unfused dropout": (lambda: unfused(timm_unit(attn_drop=0.2)), TOKENS),
    "timm qk norm": (lambda: timm_unit(qk_norm=True, norm_layer=nn.LayerNorm), TOKENS),
    "timm rope": (lambda: timm.layers.AttentionRope(16, 2, num_prefix_tokens=0), TOKENS),
    "timm eva": (lambda: timm.models.eva.EvaAttention(16, 2, norm_layer=nn.LayerNorm), TOKENS),
    "timm eva q k v": (
        lambda: timm.models.eva.EvaAttention(
            16, 2, qkv_fused=False, qk_norm=False, scale_norm=False
        ),
        TOKENS,
    ),
    "timm beit": (lambda: timm.models.beit.Attention(16, 2, window_size=None), TOKENS),
    "timm beit bias": (
        lambda: timm.models.beit.Attention(16, 2, qkv_bias=True, window_size=(2, 4)),
        TOKENS,
    ),
    "timm relative": (
        lambda: timm.models.vision_transformer_relpos.RelPosAttention(16, 2),
        TOKENS,
    ),
    "timm window": (
        lambda: timm.models.swin_transformer.WindowAttention(16, 2, window_size=3),
        TOKENS,
    ),
    "timm window unfused": (
        lambda: unfused(timm.models.swin_transformer.WindowAttention(16, 2, window_size=3)),
        TOKENS,
    ),
    "smp MiT": (MiTAttention, TOKENS),
    "smp MiT reduced": (lambda: MiTAttention(sr_ratio=3), TOKENS),
    "torch": (SelfAttention, TOKENS),
    "torch weights": (lambda: SelfAttention(need_weights=True), TOKENS),
    "torch dropout": (lambda: SelfAttention(dropout=0.2), TOKENS),
    "torch bias_kv": (lambda: SelfAttention(add_bias_kv=True, add_zero_attn=True), TOKENS),
    "torchvision window": (
        lambda: torchvision.models.swin_transformer.ShiftedWindowAttention(16, [3, 3], [1, 1], 2),
        (2, 6, 6, 16),
    ),
}
SCALES = {
    "timm LayerScale": (lambda: timm.layers.LayerScale(16), TOKENS),
    "timm LayerScale behind Linear": (
        lambda: nn.Sequential(nn.Linear(16, 16), timm.layers.LayerScale(16)),
        TOKENS,
    ),
    "timm LayerScale behind Linear, no bias": (
        lambda: nn.Sequential(
            nn.Linear(16, 16, bias=False), nn.Dropout(0.0), timm.layers.LayerScale(16)
        ),
        TOKENS,
    ),
}


class MiTBlock(nn.Module):
    """smp's block with a decoder's projection behind it."""

    def __init__(self):
        super().__init__()
        self.block = smp_mit.Block(8, 2, sr_ratio=2)
        self.project = smp_segformer.MLP(8, 4)

    def forward(self, x):
        return self.project(self.block(x))


class Decoder(nn.Module):
    """torch's decoder layer of one input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x):
        return self.layer(x, x)


class Enlarged(nn.Module):
    """Half of the channels upsampled and joined with the others, and a convolution over both."""

    def __init__(self):
        super().__init__()
        self.block = smp_unet.UnetDecoderBlock(4, 4, 6)

    def forward(self, x):
        return self.block(x[:, :4], 18, 14, nn.functional.interpolate(x[:, 4:], (18, 14)))


class SegformerDecoder(nn.Module):
    """smp's decoder of features at four scales."""

    def __init__(self):
        super().__init__()
        self.decoder = smp_segformer.SegformerDecoder([3, 0, 8, 8, 8, 8], 5, 4)

    def forward(self, x):
        image = x.new_zeros(len(x), 3, 64, 64)
        maps = [nn.functional.interpolate(x, (size, size)) for size in (16, 8, 4, 2)]
        return self.decoder([image, image[:, :0], *maps])


def between(middle):
    """Convolutions before and behind a layer."""
    return nn.Sequential(nn.Conv2d(8, 8, 1), middle, nn.Conv2d(8, 4, 3))


def shuffled():
    """Entries moved between channels and places, between convolutions."""
    return nn.Sequential(
        nn.Conv2d(8, 8, 1),
        nn.PixelShuffle(2),
        nn.Conv2d(2, 2, 1),
        nn.PixelUnshuffle(3),
        nn.Conv2d(18, 4, 1),
    )


class Words(nn.Module):
    """An embedding, looked up by the sign of an input, that a Linear reads."""

    def __init__(self):
        super().__init__()
        self.words, self.scale = nn.Embedding(2, 16), nn.Linear(16, 16)
        self.norm, self.project = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        return self.project(self.norm(self.scale(x))) + self.project(
            self.words((x[..., 0] > 0).long())
        )


BLOCKS = {
    "timm ConvNeXtBlock": (lambda: timm.models.convnext.ConvNeXtBlock(8, ls_init_value=1.0), IMAGE),
    "timm ConvNeXtBlock maps": (
        lambda: timm.models.convnext.ConvNeXtBlock(8, ls_init_value=1.0, conv_mlp=True),
        IMAGE,
    ),
    "timm SEModule": (lambda: timm.layers.SEModule(8, rd_divisor=1), IMAGE),
    "timm SqueezeExcite": (
        lambda: timm.models._efficientnet_blocks.SqueezeExcite(8, rd_ratio=0.5),
        IMAGE,
    ),
    "timm SwinTransformerBlock": (
        lambda: timm.models.swin_transformer.SwinTransformerBlock(
            16, (6, 7), num_heads=2, window_size=3, shift_size=1, always_partition=True
        ),
        (2, 6, 7, 16),
    ),
    "timm PatchMerging": (
        lambda: timm.models.swin_transformer.PatchMerging(16),
        (2, 5, 6, 16),
    ),
    "torchvision PatchMerging": (
        lambda: torchvision.models.swin_transformer.PatchMerging(16),
        (2, 5, 6, 16),
    ),
    "Permute": (
        lambda: nn.Sequential(
            torchvision.ops.Permute([0, 2, 3, 1]),
            nn.LayerNorm(8),
            torchvision.ops.Permute([0, 3, 1, 2]),
            nn.Conv2d(8, 4, 3),
        ),
        IMAGE,
    ),
    "Flatten": (lambda: nn.Sequential(nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(504, 3)), IMAGE),
    "GLU": (lambda: nn.GLU(1), IMAGE),
    "PixelShuffle": (shuffled, (2, 8, 6, 9)),
    "Embedding": (Words, TOKENS),
    "Upsample": (lambda: between(nn.Upsample(scale_factor=2)), IMAGE),
    "UpsamplingBilinear2d": (lambda: between(nn.UpsamplingBilinear2d(scale_factor=2)), IMAGE),
    "UpsamplingNearest2d": (lambda: between(nn.UpsamplingNearest2d(scale_factor=2)), IMAGE),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
        TOKENS,
    ),
    "TransformerEncoderLayer, GELU": (
        lambda: nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True),
        TOKENS,
    ),
    "TransformerDecoderLayer": (Decoder, TOKENS),
    "timm GluMlp": (lambda: timm.layers.GluMlp(16, 64), TOKENS),
    "timm GluMlp, gate first": (lambda: timm.layers.SwiGLUPacked(16, 64), TOKENS),
    "timm SwiGLU": (lambda: timm.layers.SwiGLU(16, 32), TOKENS),
    "torchvision SqueezeExcitation": (lambda: torchvision.ops.SqueezeExcitation(8, 4), IMAGE),
    "torchvision TwoMLPHead": (
        lambda: torchvision.models.detection.faster_rcnn.TwoMLPHead(504, 16),
        IMAGE,
    ),
    "smp MiT block": (MiTBlock, (*IMAGE[:2], 4, 6)),
    "smp Unet block": (Enlarged, IMAGE),
    "smp Segformer decoder": (SegformerDecoder, IMAGE),
}
CASES = {
    **SCALES,
    **PRODUCTS,
    **NORMS,
    **GATES,
    **MEANS,
    **CURVES,
    **OTHER_CURVES,
    **ATTENTION,
    **BLOCKS,
    **LOSSES,
}
