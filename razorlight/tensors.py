"""Which tensors a codec can store: plain tensors of real numbers with strides."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from razorlight._torch import FakeTensor, is_dtensor

_PLAIN = (Tensor, nn.Parameter, nn.Buffer, FakeTensor)
_REAL = frozenset(
    {torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool}
)
"""The dtypes of most tensors. Others are looked at more closely."""


def find_other_kind(values: Iterable[Any]) -> str | None:
    """The kind of the first tensor that is not plain, in words; None if all tensors are plain.

    Args:
        values: tensors, sequences of tensors, and anything else.
    """
    for value in values:
        if isinstance(value, Tensor):
            kind = _other_kind(value)
        else:
            kind = find_other_kind(value) if isinstance(value, list | tuple) else None
        if kind is not None:
            return kind
    return None


def _other_kind(x: Tensor) -> str | None:
    if type(x) in _PLAIN and x.dtype in _REAL and x.layout is torch.strided and not x.is_nested:
        return None
    if x.is_nested:
        return "a nested tensor"
    if type(x) not in _PLAIN and not is_dtensor(x):  # a record refuses a DTensor with a way out
        return f"a {type(x).__name__}"
    if x.layout is not torch.strided:
        name = str(x.layout).removeprefix("torch.").strip("_")
        return f"a tensor of layout {name}"
    if x.is_quantized:
        return "a quantised tensor"
    return "a complex tensor" if x.is_complex() else None
