"""Two tables: the functions that stand for torch's, and the torch functions that move entries."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.functional.activation import (
    celu,
    elu,
    gelu,
    glu,
    hardswish,
    mish,
    selu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from razorlight.functional.attention import scaled_dot_product_attention, softmax
from razorlight.functional.batch_norm import batch_norm, instance_norm
from razorlight.functional.conv import conv, conv_transpose, pad
from razorlight.functional.dropout import alpha_dropout, dropout, feature_dropout
from razorlight.functional.einsum import einsum
from razorlight.functional.embedding import embedding
from razorlight.functional.linear import addmm, linear
from razorlight.functional.matmul import matmul
from razorlight.functional.multiply import multiply
from razorlight.functional.norm import group_norm, layer_norm, rms_norm
from razorlight.functional.pool import linear_pool, max_pool, max_pool1d
from razorlight.functional.rectifier import hardsigmoid, hardtanh, leaky_relu, prelu, relu
from razorlight.functional.spellings import SPELLINGS

_LINEAR_POOLS: tuple[Callable[..., Tensor], ...] = (
    F.avg_pool1d,
    F.avg_pool2d,
    F.avg_pool3d,
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
)

FUNCTIONS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.linear: linear,
    torch.addmm: addmm,
    torch.matmul: matmul,
    torch.einsum: einsum,
    torch.mul: multiply,
    F.conv1d: conv,
    F.conv2d: conv,
    F.conv3d: conv,
    F.conv_transpose1d: conv_transpose,
    F.conv_transpose2d: conv_transpose,
    F.conv_transpose3d: conv_transpose,
    F.pad: pad,
    F.embedding: embedding,
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.group_norm: group_norm,
    F.relu: relu,
    F.leaky_relu: leaky_relu,
    F.hardtanh: hardtanh,
    F.gelu: gelu,
    F.silu: silu,
    F.hardswish: hardswish,
    F.prelu: prelu,
    F.hardsigmoid: hardsigmoid,
    F.mish: mish,
    F.softplus: softplus,
    F.elu: elu,
    F.celu: celu,
    F.selu: selu,
    F.glu: glu,
    torch.sigmoid: sigmoid,
    torch.tanh: tanh,
    F.dropout: dropout,
    F.alpha_dropout: alpha_dropout,
    **{f: partial(feature_dropout, function=f) for f in (F.dropout1d, F.dropout2d, F.dropout3d)},
    F.max_pool1d: max_pool1d,
    F.max_pool2d: partial(max_pool, rank=2),
    F.max_pool3d: partial(max_pool, rank=3),
    **{f: partial(linear_pool, pool=f) for f in _LINEAR_POOLS},
    F.softmax: softmax,
    F.scaled_dot_product_attention: scaled_dot_product_attention,
}
for others in SPELLINGS.values():
    FUNCTIONS |= others

# Functions that move entries, or do hardly more. The record of their input gives that of their
# output. Means over windows are not among them: their outputs are small, and get their own records.
MOVES: frozenset[Callable[..., Any]] = frozenset(
    {
        F.interpolate,
        F.pad,
        F.pixel_shuffle,
        F.pixel_unshuffle,
        torch.cat,
        torch.chunk,
        torch.flatten,
        torch.permute,
        torch.reshape,
        torch.roll,
        torch.split,
        torch.squeeze,
        torch.transpose,
        torch.unbind,
        torch.unflatten,
        torch.unsqueeze,
        Tensor.__getitem__,
        Tensor.chunk,
        Tensor.contiguous,
        Tensor.flatten,
        Tensor.movedim,
        Tensor.permute,
        Tensor.reshape,
        Tensor.roll,
        Tensor.split,
        Tensor.squeeze,
        Tensor.transpose,
        Tensor.unbind,
        Tensor.unsqueeze,
        Tensor.view,
    }
)
