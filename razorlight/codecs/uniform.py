"""The codec of uniform quantisation: every entry, in 2 to 11 bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from razorlight.codecs.base import Codec, scale_and_shift
from razorlight.codecs.packing import PLANES, pack, packed_bits, unpack
from razorlight.errors import RazorError

_EPSILON = 2**-8  # the largest relative error of rounding to bfloat16
_SMALLEST_GROUP = 32  # entries; the ends of a smaller group would take most of a bit an entry
_NEGATIVE_STEP = 2.0  # steps of negative entries over those of positive ones, if signs are kept
_TINY = torch.finfo(torch.float32).tiny  # in place of the step of a constant group
_SMALLEST_TOKEN = 32  # entries; the scale of a smaller token would take a quarter of a bit an entry
_SCALES_AN_OCTAVE = 2  # so that the scale of a token, an int8, reaches from 2**-64 to 2**63


class Layout(NamedTuple):
    """How a tensor is seen: as ``(outer, block, between, line, inner)``.

    A line is cut into ``groups`` parts of ``size`` entries, which gives ``(outer, block, between,
    groups, size, inner)``. A group consists of the same part of ``block`` samples: dims 1 and 4.
    """

    outer: int
    block: int
    between: int
    line: int
    inner: int
    groups: int
    size: int

    @property
    def codes(self) -> tuple[int, int]:
        """The shape in which codes are packed.

        Its rows fill whole bytes, so that the encodings of chunks can be joined.
        """
        n = self.block * self.between * self.groups * self.size * self.inner
        rows, samples = self.outer, self.outer * self.block
        if n % 8:
            rows = samples // 8 if samples % 8 == 0 else 1
        return rows, self.outer * n // max(1, rows)


@dataclass(frozen=True)
class Uniform(Codec):
    """Keep every entry as one of ``2**bits`` evenly spaced levels between a group's ends.

    This is min-max quantisation, as in ActNN (Chen et al., ICML 2021, section 3.2). Consecutive
    entries of a sample (dim 0), or along ``axis``, form groups of at most ``group`` entries, as
    even as possible. A group stores its lowest level and the step between levels. The step is in
    bfloat16, which has the range of float32. An entry moves by at most half a step, or by a whole
    step if rounding is stochastic.

    Infinities and NaN spoil their whole group, so a diverging run is seen to diverge.

    Args:
        bits: the bits of a code: 2, 3, 4, 5, 6, 8 or 11.
        group: the number of entries that share their ends; a shorter line or sample is one group.
        axis: the dim along which a group runs, such as -1 for the entries of one token, or -2 for
            one channel over tokens. A short line is grouped together with those of up to eight
            samples. If that makes fewer than 32 entries, groups run as for None: in the order of
            the sample's memory, across rows.
        stochastic: Whether an entry is rounded up or down at random, such that its mean is right.
            If not, each entry is rounded to the nearest level.
        preserves: the property of a value that survives. "ends": the lowest and the highest entry
            of a group are levels. "signs": zero lies between two levels, so that positive entries
            stay positive and no other entry becomes positive; the steps of the other entries, which
            a following rectifier does not let through, are twice as wide. "zeros": the rectified
            entry ``max(x, 0)`` is stored, and zero is a level that no positive entry gets.
        token_scale: Whether each token is first divided by about its root mean square, which takes
            eight bits. A token is a place along ``axis`` in one sample. A token of fewer than 32
            entries is not divided. Without scales, a few giant tokens, such as padding by -999,
            would set the step of all others.
        companded: Whether the levels are evenly spaced for the square root of an entry (with its
            sign). Steps are then fine for small entries, whose sign a following rectifier may read,
            and coarse for large ones.

    Raises:
        RazorError: for other ``bits``, a ``group`` below 1, stochastic rounding that
            preserves signs or zeros, or a scale of tokens without an ``axis``; in use, for a value
            that has no such ``axis``.

    Example:
        >>> import torch
        >>> codec, x = Uniform(bits=4), torch.tensor([0.0, 1.0, 7.2, 15.0])
        >>> codec.decode(*codec.encode(x), shape=x.shape, dtype=x.dtype)
        tensor([ 0.,  1.,  7., 15.])
    """

    bits: int = 4
    group: int = 256
    axis: int | None = None
    stochastic: bool = False
    preserves: Literal["ends", "signs", "zeros"] = "ends"
    token_scale: bool = False
    companded: bool = False

    @property
    @override
    def words(self) -> str:
        along = {None: "", -1: " along channels", -2: " along tokens"}
        groups = "" if self.group == 256 else f", {self.group} at a time"
        scaled = ", tokens scaled" if self.token_scale else ""
        where = along.get(self.axis, f" along dim {self.axis}")
        return f"{self.bits} bits{where}{groups}{scaled}"

    def __post_init__(self) -> None:
        if self.bits not in PLANES:
            raise RazorError(f"Uniform: bits must be one of {list(PLANES)}, got {self.bits!r}")
        if self.group < 1:
            raise RazorError(f"Uniform: group must be at least 1, got {self.group}")
        if self.preserves not in ("ends", "signs", "zeros"):
            raise RazorError(
                f"Uniform: preserves must be ends, signs or zeros, got {self.preserves!r}"
            )
        if self.stochastic and self.preserves != "ends":
            raise RazorError(f"Uniform: stochastic rounding does not keep {self.preserves}")
        if self.token_scale and self.axis is None:
            raise RazorError("Uniform: token_scale needs the axis along which tokens follow")

    @override
    def chunk_alignment(self, shape: Sequence[int]) -> int | None:
        layout = self.layout(shape)
        samples = layout.outer * layout.block
        return None if not samples or samples % 8 else samples // layout.codes[0]

    @override
    def preserving(self, what: Literal["signs", "zeros"]) -> "Uniform":
        # A compiler sees no fields of a codec that is made while it traces, so none is made if this
        # codec will do.
        return self if self.preserves == what else replace(self, preserves=what, stochastic=False)

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        layout, value = self.layout(x.shape), x.float()
        scales = self._scales(value)
        if scales is not None:
            value = value / _factors(scales)
        if self.companded:
            value = value.abs().sqrt_().copysign_(value)
        groups = _as_groups(value, layout)
        ends = self._ends(groups)
        # A CPU casts float32 to uint8 more slowly than to int16 and then to uint8.
        codes = self._codes(groups, *ends).to(torch.int16)
        codes = codes if self.bits > 8 else codes.to(torch.uint8)
        packed = pack(codes.reshape(layout.codes), self.bits)
        return *packed, *ends, *(() if scales is None else (scales,))

    def _scales(self, value: Tensor) -> Tensor | None:
        """The scale of each token, in steps of half an octave; None if tokens have no scales.

        A token with a NaN or an infinity gets any scale.
        """
        if not self.scales_tokens(value.shape):
            return None
        dims = self.within_token(value.shape)
        size = math.prod([value.shape[dim] for dim in dims])
        norm = torch.linalg.vector_norm(value, dim=dims, keepdim=True)
        octaves = torch.log2(norm / math.sqrt(size)) * _SCALES_AN_OCTAVE
        return octaves.nan_to_num_(0.0).clamp_(-128, 127).round_().to(torch.int8)

    def scales_tokens(self, shape: Sequence[int]) -> bool:
        """Whether the tokens of a value of ``shape`` have scales."""
        if not self.token_scale:
            return False
        entries = math.prod([shape[dim] for dim in self.within_token(shape)])
        return entries >= _SMALLEST_TOKEN and math.prod(shape) > 0

    def within_token(self, shape: Sequence[int]) -> list[int]:
        """The dims of the entries of a token: all but the dims of samples and of tokens."""
        axis = None if self.axis is None else self.axis % len(shape)
        return [dim for dim in range(1, len(shape)) if dim != axis]

    def _ends(self, groups: Tensor) -> tuple[Tensor, ...]:
        """The tensors that each group stores besides its codes: its lowest level, and its step.

        If zeros are preserved, the step is enough.
        """
        is_one_sample = groups.shape[1] == 1
        highest = groups.amax(4, keepdim=True)
        highest = highest if is_one_sample else highest.amax(1, keepdim=True)
        if self.preserves == "zeros":
            return (self._step(highest.clamp_(min=0)),)
        lowest = groups.amin(4, keepdim=True)
        lowest = lowest if is_one_sample else lowest.amin(1, keepdim=True)
        if self.preserves == "signs":
            highest, lowest = _shrink_negatives_(highest), _shrink_negatives_(lowest)
            reach = torch.maximum(highest, -lowest)
            nearest = (reach / self.farthest_level).bfloat16()
            step = torch.maximum(self._step(highest - lowest), nearest)
            level = (lowest / _divisor(step)).ceil_().sub_(1)
            # the codes of a spoilt group are then zero, and do not spill over into those of others
            return level.nan_to_num_(-1.0).to(self.level_dtype), step
        # The lowest level is rounded down, so that no entry lies below the level that is stored.
        lowest = (lowest - lowest.abs() * _EPSILON).bfloat16()
        return lowest, self._step(highest - lowest.float())

    @property
    def level_dtype(self) -> torch.dtype | None:
        """The dtype of the lowest levels of groups. They are not stored if zeros are preserved."""
        whole = torch.int16 if self.bits > 8 else torch.int8
        return {"ends": torch.bfloat16, "signs": whole, "zeros": None}[self.preserves]

    @property
    def farthest_level(self) -> int:
        """The most steps from zero to the lowest level of a group, if signs are preserved."""
        # the step is rounded to bfloat16, by which a level may come to lie 1/512 farther
        return 2**15 - 2**7 if self.bits > 8 else 2**7 - 2

    @property
    def step_of_span(self) -> float:
        """The step of a group, as a share of the distance between the group's ends."""
        return (1 + _EPSILON) / (2**self.bits - 1)

    def _step(self, span: Tensor) -> Tensor:
        return (span * self.step_of_span).bfloat16()

    def _codes(self, groups: Tensor, *ends: Tensor) -> Tensor:
        """The number of the level of each entry, before it is truncated to an integer."""
        divisor = _divisor(ends[-1])
        if self.preserves == "zeros":
            return (groups / divisor).ceil_().clamp_(min=0)
        if self.preserves == "signs":
            # An interval contains its upper end: zero is among negative entries, as in a rectifier.
            return _shrink_negatives_(groups / divisor).ceil_().to(torch.int16).sub_(ends[0] + 1)
        first = ends[0].float() / divisor
        if self.stochastic:
            codes = scale_and_shift(groups, divisor.reciprocal(), -first)
            return codes.add_(torch.rand_like(codes))
        # With one half added, truncation rounds to the nearest.
        return scale_and_shift(groups, divisor.reciprocal(), 0.5 - first)

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        planes = len(PLANES[self.bits])
        layout, scaled = self.layout(shape), self.scales_tokens(shape)
        packed, ends = stored[:planes], stored[planes : len(stored) - scaled]
        outer, block, between, line, inner, count, size = layout
        codes = unpack(packed, self.bits, layout.codes)
        values = codes.view(outer, block, between, count, size, inner).float()
        step = ends[-1].float()
        scale_and_shift(values, step, self._lowest_level(ends[0], step), out=values)
        if self.preserves == "zeros":
            values.clamp_(min=0)
        if self.preserves == "signs":
            F.leaky_relu_(values, _NEGATIVE_STEP)
        if count * size > line:
            values = values.flatten(3, 4)[:, :, :, :line]
        if self.companded:
            values = values * values.abs()
        values = values.reshape(shape)
        if scaled:
            values.mul_(_factors(stored[-1]))
        return values if dtype == torch.float32 else values.to(dtype)

    def _lowest_level(self, lowest: Tensor, step: Tensor) -> Tensor:
        if self.preserves == "zeros":
            return step / -2  # half a step below zero; decode raises this level to zero
        if self.preserves == "signs":
            return (lowest + 0.5) * step
        return lowest.float()

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        layout = self.layout(shape)
        rows, n = layout.codes
        ends = layout.outer * layout.between * layout.groups * layout.inner
        bits = {"ends": 32, "signs": 32 if self.bits > 8 else 24, "zeros": 16}[self.preserves]
        within = math.prod([shape[dim] for dim in self.within_token(shape)])
        scales = 8 * math.prod(shape) // within if self.scales_tokens(shape) else 0
        return rows * packed_bits(n, self.bits) + ends * bits + scales

    def layout(self, shape: Sequence[int]) -> Layout:
        """How a value of ``shape`` is seen."""
        try:
            return _known_layout(self.axis, self.group, torch.Size(shape))
        except TypeError:  # a size that a compiler lets vary cannot be hashed
            return _find_layout(self.axis, self.group, shape)


def _find_layout(axis: int | None, group: int, shape: Sequence[int]) -> Layout:
    if axis is not None and not -len(shape) <= axis < len(shape):
        raise RazorError(f"Uniform: a value of shape {tuple(shape)} has no axis {axis}")
    if axis is not None:
        axis = axis % len(shape)
        line, inner = shape[axis], math.prod(shape[axis + 1 :])
        samples = shape[0] if axis else 1
        # at most eight samples: a chunk (encode_in_chunks) holds a multiple of eight
        blocks = [b for b in (8, 4, 2) if samples % b == 0 and b * line <= group]
        block = blocks[0] if blocks else 1
        if block * line >= _SMALLEST_GROUP:
            between = math.prod(shape[1:axis])
            return _grouped(group, samples // block, block, between, line, inner)
    outer = shape[0] if len(shape) > 1 else 1
    return _grouped(group, outer, 1, 1, math.prod(shape) // max(outer, 1), 1)


_known_layout = lru_cache(maxsize=4096)(_find_layout)


def _grouped(group: int, outer: int, block: int, between: int, line: int, inner: int) -> Layout:
    count = max(1, -(-block * line // group))
    return Layout(outer, block, between, line, inner, count, max(1, -(-line // count)))


def _as_groups(x: Tensor, layout: Layout) -> Tensor:
    outer, block, between, line, inner, count, size = layout
    if missing := count * size - line:
        lines = x.reshape(outer, block, between, line, inner)
        last = lines[:, :, :, -1:] if line else lines.new_zeros(outer, block, between, 1, inner)
        x = torch.cat([lines, last.expand(-1, -1, -1, missing, -1)], dim=3)
    return x.reshape(outer, block, between, count, size, inner)


def _shrink_negatives_(x: Tensor) -> Tensor:
    """Divide the negative entries of ``x`` in place, as they are stored if signs are preserved."""
    return F.leaky_relu_(x, 1 / _NEGATIVE_STEP)


def _factors(scales: Tensor) -> Tensor:
    """The numbers by which tokens were divided."""
    return torch.exp2(scales.float() / _SCALES_AN_OCTAVE)


def _divisor(step: Tensor) -> Tensor:
    return step.float().clamp_(min=_TINY)
