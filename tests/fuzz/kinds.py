"""Layers of every registered class, at random: how to build one, and the shape of its input."""

from functools import partial

import segmentation_models_pytorch.decoders.upernet.decoder as smp_upernet
import segmentation_models_pytorch.encoders.mix_transformer as smp_mit
import timm.layers
import timm.layers.activations
import torchvision.models.convnext
from hypothesis import strategies as st
from layers.layer_cases import CASES
from torch import nn

small, sizes = st.integers(1, 3), st.integers(0, 6)
MAPS = st.just(2)
batches = st.sampled_from([2, 1, 3, 0])


def shapes(least=0, most=4):
    """Shapes of so many dims."""
    return st.lists(st.integers(0, 4), min_size=least, max_size=most).map(tuple)


def per_dim(rank, values):
    """One number for all dimensions, or one for each."""
    return st.one_of(values, st.tuples(*[values] * rank))


@st.composite
def linear(draw, cls):
    features = draw(st.integers(1, 9))
    build = partial(cls, features, draw(st.integers(1, 9)), bias=draw(st.booleans()))
    return build, (*draw(shapes(0, 3)), features)


@st.composite
def conv(draw, cls, rank, **kwargs):
    groups = draw(small)
    channels = groups * draw(small)
    geometry = {"stride": draw(per_dim(rank, small)), "dilation": draw(per_dim(rank, small))}
    if "padding" not in kwargs:
        modes = ["zeros", "reflect", "replicate", "circular"]
        geometry["padding"] = draw(
            st.one_of(per_dim(rank, st.integers(0, 2)), st.sampled_from(["same", "valid"]))
        )
        geometry["padding_mode"] = draw(st.sampled_from(modes))
        if geometry["padding"] == "same":
            geometry["stride"] = 1
    build = partial(
        cls,
        channels,
        groups * draw(small),
        draw(per_dim(rank, small)),
        groups=groups,
        bias=draw(st.booleans()),
        **geometry,
        **{key: value for key, value in kwargs.items() if value is not None},
    )
    return build, _maps(draw, channels, rank)


def _maps(draw, channels, rank, batched=None, least=1):
    spatial = tuple(draw(st.integers(least, 8)) for _ in range(rank))
    batch = () if batched is None and draw(st.integers(0, 4)) == 4 else (draw(batches),)
    return (*batch, channels, *spatial)


@st.composite
def conv_transpose(draw, cls, rank):
    groups = draw(small)
    channels = groups * draw(small)
    build = partial(
        cls,
        channels,
        groups * draw(small),
        draw(per_dim(rank, small)),
        stride=draw(per_dim(rank, small)),
        padding=draw(per_dim(rank, st.integers(0, 1))),
        output_padding=draw(st.integers(0, 1)),
        groups=groups,
        bias=draw(st.booleans()),
        dilation=draw(per_dim(rank, small)),
    )
    return build, _maps(draw, channels, rank)


@st.composite
def same_conv(draw, cls):
    channels = draw(small)
    kernel = draw(per_dim(2, st.integers(2, 4)))  # not one entry alone, which some standardise
    options = {"stride": draw(small), "bias": draw(st.booleans())}
    return partial(cls, channels, draw(small), kernel, **options), _maps(draw, channels, 2)


@st.composite
def batch_norm(draw, cls, ranks, **kwargs):
    channels = draw(small)
    options = {
        "eps": draw(st.sampled_from([1e-5, 1e-3])),
        "momentum": draw(st.sampled_from([0.1, None, 0.0, 1.0])),
        "affine": draw(st.booleans()),
        "track_running_stats": draw(st.booleans()),
    }
    if kwargs:
        options = {"eps": options["eps"], "apply_act": draw(st.booleans())}
    return partial(cls, channels, **options), _maps(draw, channels, draw(ranks), batched=True)


@st.composite
def instance_norm(draw, cls, rank):
    channels = draw(small)
    build = partial(
        cls,
        channels,
        eps=draw(st.sampled_from([1e-5, 1e-3])),
        momentum=draw(st.sampled_from([0.1, 0.0, 1.0])),
        affine=draw(st.booleans()),
        track_running_stats=draw(st.booleans()),
    )
    return build, _maps(draw, channels, rank)


@st.composite
def group_norm(draw, cls, groups_first=True):
    groups = draw(small)
    channels = groups * draw(small)
    order = (groups, channels) if groups_first else (channels, groups)
    build = partial(cls, *order, eps=1e-4, affine=draw(st.booleans()))
    return build, _maps(draw, channels, draw(st.integers(0, 3)), batched=True)


@st.composite
def channel_norm(draw, cls, ranks=MAPS, last=False, **kwargs):
    """A norm that takes the number of channels alone."""
    channels = draw(small) * 2
    shape = _maps(draw, channels, draw(ranks), batched=True)
    options = {key: draw(values) for key, values in kwargs.items()}
    return partial(cls, channels, **options), (shape[0], *shape[2:], channels) if last else shape


@st.composite
def layer_norm(draw, cls, **kwargs):
    normalised = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    options = {key: draw(values) for key, values in kwargs.items()}
    build = partial(cls, normalised, elementwise_affine=draw(st.booleans()), **options)
    return build, (*draw(shapes(0, 2)), *normalised)


@st.composite
def activation(draw, cls, **kwargs):
    return partial(cls, **{key: draw(values) for key, values in kwargs.items()}), draw(shapes(0, 5))


@st.composite
def pool(draw, cls, rank, **kwargs):
    options = {key: draw(values) for key, values in kwargs.items()}
    # a dilated window that meets padding alone makes torch write where nothing is
    return partial(cls, **options), _maps(draw, draw(small), rank, least=2)


@st.composite
def dropout_of_channels(draw, cls, rank):
    options = {"p": draw(probability), "inplace": draw(st.booleans())}
    return partial(cls, **options), _maps(draw, draw(small), rank)


@st.composite
def prelu(draw):
    channels = draw(small)
    shape = _maps(draw, channels, draw(st.integers(0, 3)), batched=True)
    return partial(nn.PReLU, channels if draw(st.booleans()) else 1), shape


@st.composite
def shuffle(draw, cls):
    factor, channels = draw(small), draw(small)
    batch, _, height, width = _maps(draw, 1, 2, batched=True)
    if cls is nn.PixelShuffle:
        return partial(cls, factor), (batch, channels * factor**2, height, width)
    return partial(cls, factor), (batch, channels, height * factor, width * factor)


@st.composite
def halved(draw):
    dim = draw(st.integers(-2, 1))
    shape = [draw(batches), draw(small), draw(small)][: draw(st.integers(2, 3))]
    shape[dim] = 2 * draw(small)
    return partial(nn.GLU, dim), tuple(shape)


@st.composite
def known(draw, name):
    """A case of the layers' own tests, with another batch."""
    build, shape = CASES[name]
    return build, (draw(batches), *shape[1:])


def windows(rank):
    """What poolings of windows take."""
    return {
        "kernel_size": per_dim(rank, small),
        "stride": st.one_of(st.none(), per_dim(rank, small)),
        "padding": per_dim(rank, st.integers(0, 1)),
        "ceil_mode": st.booleans(),
    }


affine = {"affine": st.booleans()}
inplace = {"inplace": st.booleans()}
probability = st.sampled_from([0.5, 0.1, 0.0, 1.0])

KINDS = {
    "Linear": linear(nn.Linear),
    "timm Linear": linear(timm.layers.Linear),
    "Conv1d": conv(nn.Conv1d, 1),
    "Conv2d": conv(nn.Conv2d, 2),
    "Conv3d": conv(nn.Conv3d, 3),
    "ConvTranspose1d": conv_transpose(nn.ConvTranspose1d, 1),
    "ConvTranspose2d": conv_transpose(nn.ConvTranspose2d, 2),
    "ConvTranspose3d": conv_transpose(nn.ConvTranspose3d, 3),
    "timm Conv2dSame": same_conv(timm.layers.Conv2dSame),
    "timm StdConv2d": same_conv(timm.layers.StdConv2d),
    "timm StdConv2dSame": same_conv(timm.layers.StdConv2dSame),
    "timm ScaledStdConv2d": same_conv(timm.layers.ScaledStdConv2d),
    "timm ScaledStdConv2dSame": same_conv(timm.layers.ScaledStdConv2dSame),
    "BatchNorm1d": batch_norm(nn.BatchNorm1d, st.integers(0, 1)),
    "BatchNorm2d": batch_norm(nn.BatchNorm2d, MAPS),
    "BatchNorm3d": batch_norm(nn.BatchNorm3d, st.just(3)),
    "InstanceNorm1d": instance_norm(nn.InstanceNorm1d, 1),
    "InstanceNorm2d": instance_norm(nn.InstanceNorm2d, 2),
    "InstanceNorm3d": instance_norm(nn.InstanceNorm3d, 3),
    "timm BatchNormAct2d": batch_norm(timm.layers.BatchNormAct2d, MAPS, act=True),
    "GroupNorm": group_norm(nn.GroupNorm),
    "timm GroupNorm": group_norm(timm.layers.GroupNorm, groups_first=False),
    "timm GroupNorm1": channel_norm(timm.layers.GroupNorm1),
    "timm GroupNormAct": channel_norm(
        timm.layers.GroupNormAct, num_groups=st.integers(1, 2), apply_act=st.booleans()
    ),
    "LayerNorm": layer_norm(nn.LayerNorm, bias=st.booleans()),
    "RMSNorm": layer_norm(nn.RMSNorm, eps=st.sampled_from([None, 1e-3])),
    "timm LayerNorm": channel_norm(timm.layers.LayerNorm, st.integers(0, 2), last=True, **affine),
    "timm LayerNorm2d": channel_norm(timm.layers.LayerNorm2d, **affine),
    "timm LayerNormAct": channel_norm(timm.layers.LayerNormAct, last=True),
    "timm LayerNormAct2d": channel_norm(timm.layers.LayerNormAct2d),
    "torchvision LayerNorm2d": channel_norm(torchvision.models.convnext.LayerNorm2d),
    "smp MiT LayerNorm": channel_norm(smp_mit.LayerNorm),
    "smp UPerNet LayerNorm2d": channel_norm(smp_upernet.LayerNorm2d),
    "ReLU": activation(nn.ReLU, **inplace),
    "ReLU6": activation(nn.ReLU6, **inplace),
    "LeakyReLU": activation(
        nn.LeakyReLU, negative_slope=st.sampled_from([0.01, 0.0, 2.0]), **inplace
    ),
    "LeakyReLU falling": activation(nn.LeakyReLU, negative_slope=st.just(-0.5)),
    "Dropout": activation(nn.Dropout, p=probability, **inplace),
    "GELU": activation(nn.GELU, approximate=st.sampled_from(["none", "tanh"])),
    "timm GELU": activation(timm.layers.activations.GELU),
    "timm GELUTanh": activation(timm.layers.activations.GELUTanh),
    "SiLU": activation(nn.SiLU, **inplace),
    "Hardswish": activation(nn.Hardswish, **inplace),
    "PReLU": prelu(),
    "ELU": activation(nn.ELU, alpha=st.sampled_from([1.0, 0.3, 2.0]), **inplace),
    "CELU": activation(nn.CELU, alpha=st.sampled_from([1.0, 0.3, 2.0]), **inplace),
    "SELU": activation(nn.SELU, **inplace),
    "Mish": activation(nn.Mish, **inplace),
    "Softplus": activation(
        nn.Softplus, beta=st.sampled_from([1.0, 0.5, 3.0]), threshold=st.sampled_from([20.0, 1.0])
    ),
    "Sigmoid": activation(nn.Sigmoid),
    "Tanh": activation(nn.Tanh),
    "Hardsigmoid": activation(nn.Hardsigmoid, **inplace),
    "Hardtanh": activation(
        nn.Hardtanh,
        min_val=st.sampled_from([-1.0, 0.0]),
        max_val=st.sampled_from([0.5, 6.0]),
        **inplace,
    ),
    "GLU": halved(),
    "AlphaDropout": activation(nn.AlphaDropout, p=probability),
    "Dropout1d": dropout_of_channels(nn.Dropout1d, 1),
    "Dropout2d": dropout_of_channels(nn.Dropout2d, 2),
    "Dropout3d": dropout_of_channels(nn.Dropout3d, 3),
    "PixelShuffle": shuffle(nn.PixelShuffle),
    "PixelUnshuffle": shuffle(nn.PixelUnshuffle),
    "Softmax": activation(nn.Softmax, dim=st.integers(-3, 3)),
    **{
        f"MaxPool{rank}d": pool(
            cls, rank, dilation=per_dim(rank, st.integers(1, 2)), **windows(rank)
        )
        for rank, cls in enumerate((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), 1)
    },
    "AvgPool1d": pool(nn.AvgPool1d, 1, count_include_pad=st.booleans(), **windows(1)),
    **{
        f"AvgPool{rank}d": pool(
            cls,
            rank,
            count_include_pad=st.booleans(),
            divisor_override=st.sampled_from([None, 3]),
            **windows(rank),
        )
        for rank, cls in ((2, nn.AvgPool2d), (3, nn.AvgPool3d))
    },
    "timm AvgPool2dSame": pool(timm.layers.AvgPool2dSame, 2, kernel_size=small, stride=small),
    "AdaptiveAvgPool1d": pool(nn.AdaptiveAvgPool1d, 1, output_size=small),
    **{
        f"AdaptiveAvgPool{rank}d": pool(
            cls, rank, output_size=st.one_of(small, st.tuples(*[st.none() | small] * rank))
        )
        for rank, cls in ((2, nn.AdaptiveAvgPool2d), (3, nn.AdaptiveAvgPool3d))
    },
}
KINDS |= {
    f"as tested: {name}": known(name) for name in CASES if CASES[name][0] and name not in KINDS
}
