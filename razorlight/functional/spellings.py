"""The other spellings of torch's functions: tensor methods, in-place forms, older signatures.

All spellings are one function, so whoever names one names all (:func:`spellings_of`). An in-place
product is no spelling of the product: its gradient needs the operand that is overwritten.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.functional.activation import celu, selu, sigmoid, tanh
from razorlight.functional.attention import softmax
from razorlight.functional.batch_norm import batch_norm
from razorlight.functional.dropout import dropout
from razorlight.functional.linear import addmm
from razorlight.functional.matmul import matmul
from razorlight.functional.multiply import multiply
from razorlight.functional.norm import group_norm, layer_norm, rms_norm
from razorlight.functional.pool import max_pool, max_pool1d
from razorlight.functional.rectifier import hardtanh, leaky_relu, prelu, relu
from razorlight.planning.layer_plan import LayerPlan

TorchFunction = Callable[..., Any]


def _softmax(plan: LayerPlan, input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    return softmax(plan, input, dim, dtype=dtype)


def _mm(plan: LayerPlan, input: Tensor, mat2: Tensor) -> Tensor:
    return matmul(plan, input, mat2)


def _rmatmul(plan: LayerPlan, other: Tensor, input: Tensor) -> Tensor:
    return matmul(plan, input, other)


def _relu6(plan: LayerPlan, input: Tensor, inplace: bool = False) -> Tensor:
    return hardtanh(plan, input, 0.0, 6.0, inplace)


def _dropout(plan: LayerPlan, input: Tensor, p: float, train: bool) -> Tensor:
    return dropout(plan, input, p, train)


def _dropout_(plan: LayerPlan, input: Tensor, p: float, train: bool) -> Tensor:
    return dropout(plan, input, p, train, inplace=True)


def _batch_norm(
    plan: LayerPlan,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    return batch_norm(plan, input, running_mean, running_var, weight, bias, training, momentum, eps)


def _layer_norm(plan: LayerPlan, *args: Any, cudnn_enable: bool = True, **kwargs: Any) -> Tensor:
    return layer_norm(plan, *args[:5], **kwargs)


def _group_norm(plan: LayerPlan, *args: Any, cudnn_enabled: bool = True, **kwargs: Any) -> Tensor:
    return group_norm(plan, *args[:5], **kwargs)


SPELLINGS: dict[TorchFunction, dict[TorchFunction, Callable[..., Tensor]]] = {
    F.softmax: dict.fromkeys((torch.softmax, torch.special.softmax, Tensor.softmax), _softmax),
    torch.matmul: {
        **dict.fromkeys((torch.linalg.matmul, Tensor.matmul, Tensor.__matmul__), matmul),
        **dict.fromkeys((torch.mm, Tensor.mm, torch.bmm, Tensor.bmm), _mm),
        Tensor.__rmatmul__: _rmatmul,
    },
    torch.mul: dict.fromkeys(
        (torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__), multiply
    ),
    torch.addmm: {Tensor.addmm: addmm},
    F.relu: {
        **dict.fromkeys((torch.relu, Tensor.relu), relu),
        **dict.fromkeys((torch.relu_, Tensor.relu_), partial(relu, inplace=True)),
    },
    F.leaky_relu: {F.leaky_relu_: partial(leaky_relu, inplace=True)},
    F.hardtanh: {F.hardtanh_: partial(hardtanh, inplace=True), F.relu6: _relu6},
    F.dropout: {torch.dropout: _dropout, torch.dropout_: _dropout_},
    F.batch_norm: {torch.batch_norm: _batch_norm},
    F.layer_norm: {torch.layer_norm: _layer_norm},
    F.group_norm: {torch.group_norm: _group_norm},
    F.rms_norm: {torch.rms_norm: rms_norm},  # the spelling that a compiler sees
    F.max_pool1d: {torch.max_pool1d: max_pool1d},
    F.max_pool2d: {torch.max_pool2d: partial(max_pool, rank=2)},
    F.max_pool3d: {torch.max_pool3d: partial(max_pool, rank=3)},
    F.celu: {torch.celu: celu, torch.celu_: partial(celu, inplace=True)},
    F.selu: {torch.selu: selu, torch.selu_: partial(selu, inplace=True)},
    F.prelu: {Tensor.prelu: prelu},
    torch.sigmoid: {Tensor.sigmoid: sigmoid, torch.special.expit: sigmoid},
    torch.tanh: {Tensor.tanh: tanh},
}
"""For the first spelling of each torch function, the functions that stand for the others."""


def first_spelling(function: TorchFunction) -> TorchFunction:
    """The first spelling of a function, which names it in :data:`SPELLINGS`."""
    return next((first for first, others in SPELLINGS.items() if function in others), function)


def spellings_of(function: TorchFunction) -> list[TorchFunction]:
    """All spellings of a function, including the given one."""
    first = first_spelling(function)
    return [first, *SPELLINGS.get(first, ())]
