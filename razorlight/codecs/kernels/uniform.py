"""The codec Uniform on a GPU: its Triton kernels, launched."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from razorlight.codecs.elementwise import Step
from razorlight.codecs.kernels import uniform_decode_kernels, uniform_encode_kernels
from razorlight.codecs.kernels.launch import launch
from razorlight.codecs.kernels.operands import (
    Operand,
    divisor,
    operands_of,
    power_of_two,
    shifts_of,
)
from razorlight.codecs.kernels.uniform_kernels import Divisors, Encoded, Geometry
from razorlight.codecs.packing import PLANES
from razorlight.codecs.uniform import Layout, Uniform

_MOST_ENTRIES = 2**31 - 1  # the kernels count entries in int32
_BLOCK = 128  # entries of each of the eight parts of a row that one program encodes
_TILE = 2048  # entries that one program reads at once to find ends and scales
# Triton fuses every product with a sum that follows, unless it is told not to.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


def serves(codec: Uniform, shape: torch.Size) -> bool:
    """Whether the kernels serve a value of ``shape``.

    Torch code serves the others: empty values, values of 2**31 entries or more, and small values
    whose rows do not fill bytes evenly, or whose tokens have scales while groups run in the order
    of memory.
    """
    layout = codec.layout(shape)
    is_regular = layout.codes[1] % 8 == 0
    if codec.scales_tokens(shape) and codec.axis is not None:
        axis = codec.axis % len(shape)
        is_regular &= (layout.line, layout.inner) == (shape[axis], math.prod(shape[axis + 1 :]))
    return is_regular and math.prod(shape) > 0 and math.prod(layout.codes) <= _MOST_ENTRIES


def serves_norm(codec: Uniform, x: Tensor, mean: Tensor, rstd: Tensor) -> bool:
    """Whether the kernels can normalise ``x``, which they serve, while they encode it.

    Torch code normalises in float64, values whose tokens have scales, and values whose groups run
    in the order of memory across statistics.
    """
    is_float32 = mean.dtype == rstd.dtype == torch.float32 and x.dtype != torch.float64
    if not is_float32 or codec.scales_tokens(x.shape):
        return False
    layout = codec.layout(x.shape)
    try:
        _as_lines(mean, layout)
        _as_lines(rstd, layout)
    except (RuntimeError, ValueError):  # for strides that do not fit; of fakes the latter
        return False
    return True


def encode(
    codec: Uniform, x: Tensor, mean: Tensor | None = None, rstd: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The same tensors as ``codec.encode(x)``, for a value that :func:`serves` accepts.

    Args:
        codec: encodes the value.
        x: the value.
        mean: for ``(x - mean) * rstd`` in place of ``x``, expanded to the shape of ``x``, in
            float32; see :func:`serves_norm`.
        rstd: 1/std, like ``mean``.
    """
    layout = codec.layout(x.shape)
    statistics = [None if one is None else _operand(one, layout) for one in (mean, rstd)]
    value, at = _operand(x, layout), geometry_of(layout)
    scales = _find_scales(codec, value, at, x.shape)
    given = value, *statistics, scales
    ends = _find_ends(codec, given, at, layout)
    rows, count = layout.codes
    packed = tuple(
        x.new_empty(rows * count * plane // 8, dtype=torch.uint8) for plane in PLANES[codec.bits]
    )
    seed = None
    if codec.stochastic:  # drawn on the device, so that nothing waits for the device
        seed = torch.randint(2**31 - 1, (1,), dtype=torch.int32, device=x.device)
    launch(
        uniform_encode_kernels.encode, _programs(layout), x,
        *given, *_bits_of(ends), packed, seed, count // 8, at, **_constants(codec, layout),
    )  # fmt: skip
    return *packed, *ends, *(() if scales is None else (scales,))


def decode(
    codec: Uniform,
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
    layout = codec.layout(shape)
    encoded = as_encoded(codec, shape, stored)
    value = stored[0].new_empty(shape, dtype=dtype)
    eighth = layout.codes[1] // 8
    operands = operands_of(steps, lambda x: _operand(x, layout))
    launch(
        uniform_decode_kernels.decode, _programs(layout), value,
        _operand(value, layout), *encoded, eighth, geometry_of(layout), operands,
        STEPS=tuple(step.name for step in steps), **_constants(codec, layout),
    )  # fmt: skip
    return value


def _operand(x: Tensor, layout: Layout) -> Operand:
    lines = _in_lines(x, layout)
    return Operand(lines, *lines.stride())


def as_encoded(codec: Uniform, shape: Sequence[int], stored: Sequence[Tensor]) -> Encoded:
    """The stored tensors of a value of ``shape``, by their names."""
    planes, scaled = len(PLANES[codec.bits]), codec.scales_tokens(shape)
    packed, ends = stored[:planes], stored[planes : len(stored) - scaled]
    return Encoded(stored[-1] if scaled else None, *_bits_of(ends), tuple(packed))


def _in_lines(x: Tensor, layout: Layout) -> Tensor:
    """``x`` as ``(samples, between, line, inner)``, without a copy if the strides allow it."""
    return x.reshape(layout.outer * layout.block, layout.between, layout.line, layout.inner)


def _as_lines(x: Tensor, layout: Layout) -> Tensor:
    """As :func:`_in_lines`, but never a copy."""
    return x.view(layout.outer * layout.block, layout.between, layout.line, layout.inner)


def geometry_of(layout: Layout) -> Geometry:
    """The sizes of a value that is seen as ``layout`` says."""
    _, block, between, line, _, groups, size = layout
    by = Divisors(*(divisor(n) for n in (block, between, line, size, groups * size)))
    return Geometry(block, between, line, groups, size, by)


def _programs(layout: Layout) -> int:
    rows, count = layout.codes
    return -(-count // 8 // _BLOCK) * rows


def _constants(codec: Uniform, layout: Layout) -> dict[str, Any]:
    return {**format_of(codec, layout), "BLOCK": _BLOCK, **_OPTIONS}


def format_of(codec: Uniform, layout: Layout) -> dict[str, Any]:
    """The constants by which a kernel reads or writes codes."""
    planes = PLANES[codec.bits]
    return {
        "PLANES": planes,
        "SHIFTS": shifts_of(planes),
        "PRESERVES": codec.preserves,
        "COMPANDED": codec.companded,
        "INNER": layout.inner,
    }


def _find_scales(
    codec: Uniform, value: Operand, at: Geometry, shape: Sequence[int]
) -> Tensor | None:
    if not codec.scales_tokens(shape):
        return None
    within = codec.within_token(shape)
    scales = value.tensor.new_empty(
        [1 if dim in within else n for dim, n in enumerate(shape)], dtype=torch.int8
    )
    inner = value.tensor.shape[3]
    size = at.between * inner
    block = min(_TILE, power_of_two(size))
    tokens = _TILE // block
    launch(
        uniform_encode_kernels.find_scales, -(-scales.numel() // tokens), scales,
        value, scales, scales.numel(), size, math.sqrt(size), at,
        INNER=inner, TOKENS=tokens, BLOCK=block, **_OPTIONS,
    )  # fmt: skip
    return scales


def _find_ends(
    codec: Uniform, given: Sequence[Any], at: Geometry, layout: Layout
) -> tuple[Tensor, ...]:
    shape = (layout.outer, 1, layout.between, layout.groups, 1, layout.inner)
    dtypes = (codec.level_dtype, torch.bfloat16)
    like = given[0].tensor
    ends = tuple(like.new_empty(shape, dtype=dtype) for dtype in dtypes if dtype)
    # neighbouring entries are those of neighbouring groups, or if inner is 1 those of one group
    neighbours = min(64, power_of_two(layout.inner))
    block = min(_TILE // neighbours, power_of_two(layout.size))
    groups, count = _TILE // block, math.prod(shape)
    launch(
        uniform_encode_kernels.find_ends, -(-count // groups), like,
        *given, *_bits_of(ends), count, codec.step_of_span, float(codec.farthest_level), at,
        PRESERVES=codec.preserves, COMPANDED=codec.companded, INNER=layout.inner,
        GROUPS=groups, BLOCK=block, **_OPTIONS,
    )  # fmt: skip
    return ends


def _bits_of(ends: Sequence[Tensor]) -> tuple[Tensor | None, Tensor]:
    """The lowest levels, if there are any, and the steps. bfloat16 is seen as int16."""
    *levels, steps = (end.view(torch.int16) if end.itemsize == 2 else end for end in ends)
    return levels[0] if levels else None, steps
