"""The codecs Mask and Slope on a GPU: their Triton kernels, launched."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from razorlight._torch import is_fake
from razorlight.codecs.elementwise import Step
from razorlight.codecs.kernels import entrywise_kernels as kernels
from razorlight.codecs.kernels.entrywise_kernels import Rows
from razorlight.codecs.kernels.launch import launch
from razorlight.codecs.kernels.operands import Operand, operands_of, shifts_of
from razorlight.codecs.mask import Mask
from razorlight.codecs.packing import PLANES
from razorlight.codecs.slope import Slope

_MOST_ENTRIES = 2**31 - 1  # the kernels count entries in int32
_BLOCK = 1024  # places of which one program encodes the entries of all eight parts of a row


def serves(codec: Mask | Slope, shape: torch.Size) -> bool:
    """Whether the kernels serve a value of ``shape``.

    Torch code serves empty values, values of about 2**31 entries or more, and some slopes whose
    number is no multiple of eight: their planes are not cut at the same entries.
    """
    number, width, eighth = _rows(codec, shape)
    is_regular = all(-(-width * plane // 8) == plane * eighth for plane in _planes(codec))
    return is_regular and 0 < number * eighth * 8 <= _MOST_ENTRIES


def serves_norm(codec: Mask | Slope, x: Tensor, mean: Tensor, rstd: Tensor) -> bool:
    """Whether the kernels can normalise ``x`` while they encode it: no norm has these codecs."""
    return False


def encode(codec: Mask | Slope, x: Tensor) -> tuple[Tensor, ...]:
    """The same tensors as ``codec.encode(x)``, for a value that :func:`serves` accepts.

    Args:
        codec: encodes the value.
        x: the value; booleans for :class:`~razorlight.codecs.Mask`.
    """
    rows, planes = _rows(codec, x.shape), _planes(codec)
    packed = tuple(
        x.new_empty(rows.number * rows.eighth * plane, dtype=torch.uint8) for plane in planes
    )
    codes_of_cells = None
    if isinstance(codec, Mask):
        x = x.view(torch.uint8)
    elif not is_fake(x):
        codes_of_cells = _codes_of_cells(codec, x.device)
    given = x.contiguous(), codes_of_cells, packed, rows
    launch(kernels.encode, _programs(rows), x, *given, **_constants(planes))
    return packed


def decode(
    codec: Mask | Slope,
    *stored: Tensor,
    shape: torch.Size,
    dtype: torch.dtype,
    steps: Sequence[Step] = (),
) -> Tensor:
    """The same value as ``codec.decode(...)``, for a value that :func:`serves` accepts.

    Args:
        codec: encoded the value.
        stored: the encoded tensors.
        shape: the shape of the value.
        dtype: the dtype of the result.
        steps: functions of the value, one after the other, with tensors in the shape of the value.
            They are computed in float32.
    """
    value = stored[0].new_empty(shape, dtype=dtype)
    rows = _rows(codec, shape)
    has_levels = isinstance(codec, Slope) and not is_fake(value)
    launch(
        kernels.decode, _programs(rows), value,
        value.view(torch.uint8) if dtype == torch.bool else value,
        _levels(codec, dtype, value.device) if has_levels else None,
        stored, rows, operands_of(steps, _operand),
        STEPS=tuple(step.name for step in steps), **_constants(_planes(codec)),
    )  # fmt: skip
    return value


def _operand(x: Tensor) -> Operand:
    """A tensor in the shape of the value. The kernels find its entries by their last index."""
    return Operand(x.contiguous(), 0, 0, 0, 1)


def _rows(codec: Mask | Slope, shape: Sequence[int]) -> Rows:
    number, width = codec.rows(shape) if isinstance(codec, Mask) else (1, math.prod(shape))
    return Rows(number, width, -(-width // 8))


def _planes(codec: Mask | Slope) -> tuple[int, ...]:
    return (1,) if isinstance(codec, Mask) else PLANES[codec.bits]


def _programs(rows: Rows) -> int:
    return -(-rows.number * rows.eighth // _BLOCK)


def _constants(planes: Sequence[int]) -> dict[str, Any]:
    return {"PLANES": planes, "SHIFTS": shifts_of(planes), "BLOCK": _BLOCK, "num_warps": 4}


# A table is sent to each device once.


@cache
def _codes_of_cells(codec: Slope, device: torch.device) -> Tensor:
    return codec.codes_of_cells().to(device)


@cache
def _levels(codec: Slope, dtype: torch.dtype, device: torch.device) -> Tensor:
    return codec.levels(dtype).to(device)
