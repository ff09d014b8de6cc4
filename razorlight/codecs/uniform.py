"""Uniform quantisation: every entry, in 2 to 8 bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from razorlight.codecs.base import Codec
from razorlight.codecs.packing import PLANES, pack, packed_bits, unpack
from razorlight.errors import RazorError

_EPSILON = 2**-8  # by how much rounding to bfloat16 may change a number, of itself
_SHORT = 32  # entries; the ends of groups of fewer would take more than a bit an entry
_TINY = torch.finfo(torch.float32).tiny  # in place of the step of a constant group

_CHUNK = (
    2**16
)  # entries, in eighths: encoded in pieces that fit its caches, a CPU takes half as long


class _Layout(NamedTuple):
    """A tensor seen as ``(outer, groups * group, inner)``; the entries of dim 1 are grouped."""

    outer: int
    line: int  # entries of dim 1 before padding
    inner: int
    groups: int
    group: int


@dataclass(frozen=True)
class Uniform(Codec):
    """Keep every entry as one of ``2**bits`` evenly spaced levels between a group's ends.

    Consecutive entries of a sample (dim 0), or along ``axis``, form groups of at most ``group``, as
    even as can be. A group stores its lowest value and the step between levels in bfloat16, whose
    range is that of float32. Min-max quantisation, as in ActNN (Chen et al., ICML 2021, section
    3.2). An entry moves by at most half a step (a whole one if stochastic).

    Infinities and NaN make their whole group NaN: a run that diverges is seen to diverge.

    Args:
        bits: of a code: 2, 3, 4, 5, 6 or 8.
        group: entries that share their ends; a shorter line or sample is one group.
        axis: along which a group runs and ends, such as -1 for the entries of one token, or -2 for
            one channel over tokens; None for the order in memory, across rows, which is also the
            one where there are fewer than 32 entries along ``axis``.
        stochastic: round up or down at random, such that the mean is right; else to the nearest.

    Raises:
        RazorError: for other ``bits``, or a ``group`` below 1; in use, for a value without that
            ``axis``.
    """

    bits: int = 4
    group: int = 128
    axis: int | None = None
    stochastic: bool = False

    def __post_init__(self) -> None:
        if self.bits not in PLANES:
            raise RazorError(f"Uniform: bits must be one of {list(PLANES)}, got {self.bits}")
        if self.group < 1:
            raise RazorError(f"Uniform: group must be at least 1, got {self.group}")

    @property
    @override
    def by_sample(self) -> bool:
        return self.axis is None or self.axis < 0

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        groups = self._as_groups(x.float())
        lowest, highest = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
        # rounded outwards, so that no entry lies outside of the levels as they are stored
        lowest = (lowest - lowest.abs() * _EPSILON).bfloat16()
        step = ((highest - lowest.float()) * ((1 + _EPSILON) / (2**self.bits - 1))).bfloat16()
        divisor = step.float().clamp_(min=_TINY)
        if self.stochastic:
            codes = (groups - lowest.float()).div_(divisor)
            codes.add_(torch.rand_like(codes))
        else:  # the half that makes truncation rounding, added before the division
            codes = (groups - (lowest.float() - divisor / 2)).div_(divisor)
        # by way of int16: float32 to uint8 takes five times as long on a CPU
        packed = pack(codes.to(torch.int16).to(torch.uint8).flatten(), self.bits)
        return *packed, lowest, step

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        *packed, lowest, step = stored
        layout = self._layout(shape)
        padded = (layout.outer, layout.groups, layout.group, layout.inner)
        codes = unpack(packed, self.bits, math.prod(padded)).view(padded)
        values = codes.float().mul_(step.float()).add_(lowest.float())
        lines = values.flatten(1, 2)[:, : layout.line]
        return lines.to(dtype).reshape(shape)

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        outer, _, inner, groups, group = self._layout(shape)
        ends = outer * groups * inner
        return packed_bits(ends * group, self.bits) + ends * 32

    def _layout(self, shape: Sequence[int]) -> _Layout:
        if self.axis is not None and not -len(shape) <= self.axis < len(shape):
            raise RazorError(f"Uniform: a value of shape {tuple(shape)} has no axis {self.axis}")
        if self.axis is not None and shape[self.axis] >= _SHORT:
            axis = self.axis % len(shape)
            outer, line, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
        else:
            outer = shape[0] if len(shape) > 1 else 1
            line, inner = math.prod(shape) // max(outer, 1), 1
        groups = max(1, -(-line // self.group))
        return _Layout(outer, line, inner, groups, max(1, -(-line // groups)))

    def _as_groups(self, x: Tensor) -> Tensor:
        outer, line, inner, groups, group = self._layout(x.shape)
        lines = x.reshape(outer, line, inner)
        if missing := groups * group - line:
            last = lines[:, -1:] if line else lines.new_zeros(outer, 1, inner)
            lines = torch.cat([lines, last.expand(-1, missing, -1)], dim=1)
        return lines.view(outer, groups, group, inner)
