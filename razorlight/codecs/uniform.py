"""Uniform quantisation: every entry, in 2 to 8 bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from razorlight.codecs.base import Codec
from razorlight.errors import RazorError

_PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
"""A code of so many bits, cut into parts that fill bytes evenly: low part first."""

_TINY = torch.finfo(torch.float32).tiny  # in place of the step of a constant group


@dataclass(frozen=True)
class Uniform(Codec):
    """Keep every entry as one of ``2**bits`` evenly spaced levels between a group's ends.

    Consecutive entries of a sample (dim 0), or of each line along ``axis``, form groups of
    ``group``, the last of them padded with its last entry. A group stores its lowest value and the
    step between levels in bfloat16, whose range is that of float32. Min-max quantisation, as in
    ActNN (Chen et al., ICML 2021, section 3.2).

    Infinities and NaN make their whole group NaN: a run that diverges is seen to diverge.

    Args:
        bits: of a code: 2, 3, 4, 5, 6 or 8.
        group: entries that share their ends; a shorter line or sample is one group.
        axis: along which a group runs and ends, such as -1 for the entries of one token, or -2 for
            one channel over tokens; None for the order in memory, across rows.
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
        if self.bits not in _PLANES:
            raise RazorError(f"Uniform: bits must be one of 2, 3, 4, 5, 6, 8, got {self.bits}")
        if self.group < 1:
            raise RazorError(f"Uniform: group must be at least 1, got {self.group}")

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        groups = self._as_groups(x.float())
        lowest, highest = groups.aminmax(dim=-1, keepdim=True)
        lowest = lowest.bfloat16()
        step = ((highest - lowest.float()) / (2**self.bits - 1)).bfloat16()
        # divided by the step as it is stored, so that decoding gives the nearest level
        codes = (groups - lowest.float()).div_(step.float().clamp(min=_TINY))
        codes = codes.add_(torch.rand_like(codes)).floor_() if self.stochastic else codes.round_()
        codes = codes.clamp_(0, 2**self.bits - 1).to(torch.uint8)
        return (*_pack(codes.flatten(), _PLANES[self.bits]), lowest[..., 0], step[..., 0])

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        *planes, lowest, step = stored
        lines, groups, group = self._groups_shape(shape)
        codes = _unpack(planes, _PLANES[self.bits], lines * groups * group)
        values = codes.view(lines, groups, group) * step.float()[..., None]
        values = values.add_(lowest.float()[..., None]).view(lines, groups * group)
        values = values[:, : self._lines_shape(shape)[1]].to(dtype)
        if self.axis is None:
            return values.reshape(shape)
        moved = torch.empty(shape, device="meta").movedim(self.axis, -1).shape
        return values.reshape(moved).movedim(-1, self.axis).contiguous()

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        lines, groups, group = self._groups_shape(shape)
        codes = lines * groups * group
        packed = sum(-(-codes // (8 // plane)) * 8 for plane in _PLANES[self.bits])
        return packed + lines * groups * 32

    def _lines_shape(self, shape: Sequence[int]) -> tuple[int, int]:
        """How many lines there are, and the entries of one: samples, or runs along the axis."""
        n = math.prod(shape)
        if self.axis is not None:
            if not -len(shape) <= self.axis < len(shape):
                raise RazorError(
                    f"Uniform: a value of shape {tuple(shape)} has no axis {self.axis}"
                )
            return n // max(shape[self.axis], 1), shape[self.axis]
        lines = shape[0] if len(shape) > 1 else 1
        return lines, n // max(lines, 1)

    def _groups_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        lines, line = self._lines_shape(shape)
        group = max(1, min(self.group, line))
        return lines, -(-line // group), group

    def _as_groups(self, x: Tensor) -> Tensor:
        lines, groups, group = self._groups_shape(x.shape)
        flat = (x if self.axis is None else x.movedim(self.axis, -1)).reshape(
            self._lines_shape(x.shape)
        )
        if missing := groups * group - flat.shape[1]:
            flat = torch.cat([flat, flat[:, -1:].expand(-1, missing)], dim=1)
        return flat.view(lines, groups, group)


def _pack(codes: Tensor, planes: Sequence[int]) -> list[Tensor]:
    """Split codes ``(n,)`` uint8 into planes of so many bits, ``8 / bits`` entries to a byte."""
    packed = []
    for bits in planes:
        part = codes & (2**bits - 1)
        codes = codes >> bits
        part = F.pad(part, (0, -part.numel() % (8 // bits))).view(-1, 8 // bits)
        packed.append(sum((part[:, i] << (bits * i) for i in range(1, 8 // bits)), part[:, 0]))
    return packed


def _unpack(packed: Sequence[Tensor], planes: Sequence[int], n: int) -> Tensor:
    """Inverse of :func:`_pack`: ``(n,)`` uint8."""
    codes, low = torch.zeros(n, dtype=torch.uint8, device=packed[0].device), 0
    for plane, bits in zip(packed, planes, strict=True):
        parts = [(plane >> (bits * i)) & (2**bits - 1) for i in range(8 // bits)]
        codes += torch.stack(parts, dim=1).flatten()[:n] << low
        low += bits
    return codes
