"""torch's functions, with what they keep for backward chosen by a Storage.

Each takes a :class:`~razorlight.sharing.Storage` and then the arguments of the torch function for
which it stands (:data:`FUNCTIONS`); its output is bit for bit that of torch.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.functional.activation import (
    dropout,
    gelu,
    hardswish,
    hardtanh,
    leaky_relu,
    relu,
    silu,
)
from razorlight.functional.attention import scaled_dot_product_attention, softmax
from razorlight.functional.conv import conv, conv_transpose, pad
from razorlight.functional.linear import addmm, linear, matmul, multiply
from razorlight.functional.norm import batch_norm, group_norm, layer_norm, rms_norm
from razorlight.functional.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d

__all__ = [
    "FUNCTIONS",
    "adaptive_avg_pool2d",
    "addmm",
    "avg_pool2d",
    "batch_norm",
    "conv",
    "conv_transpose",
    "dropout",
    "gelu",
    "group_norm",
    "hardswish",
    "hardtanh",
    "layer_norm",
    "leaky_relu",
    "linear",
    "matmul",
    "max_pool2d",
    "multiply",
    "pad",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
]

FUNCTIONS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.linear: linear,
    torch.addmm: addmm,
    torch.matmul: matmul,
    torch.bmm: matmul,
    Tensor.matmul: matmul,
    Tensor.__matmul__: matmul,
    torch.mul: multiply,
    Tensor.mul: multiply,
    Tensor.__mul__: multiply,
    F.conv1d: conv,
    F.conv2d: conv,
    F.conv3d: conv,
    F.conv_transpose2d: conv_transpose,
    F.pad: pad,
    F.batch_norm: batch_norm,
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,  # what a compiler sees of it
    F.group_norm: group_norm,
    F.relu: relu,
    F.leaky_relu: leaky_relu,
    F.hardtanh: hardtanh,
    F.gelu: gelu,
    F.silu: silu,
    F.hardswish: hardswish,
    F.dropout: dropout,
    F.max_pool2d: max_pool2d,
    F.avg_pool2d: avg_pool2d,
    F.adaptive_avg_pool2d: adaptive_avg_pool2d,
    F.softmax: softmax,
    torch.softmax: softmax,
    Tensor.softmax: softmax,
    F.scaled_dot_product_attention: scaled_dot_product_attention,
}

# Functions that move entries, or hardly more: what is known of their input gives their output.
# Means over windows are none: they are few and small, and worth a record of their own.
MOVES: frozenset[Callable[..., Any]] = frozenset(
    {
        F.interpolate,
        F.pad,
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
