"""How kernels find the entries of tensors: a value, and others in its shape."""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Strides(NamedTuple):
    """The strides of a tensor that is seen as ``(samples, between, line, inner)``."""

    sample: int
    between: int
    line: int
    inner: int


class Operand(NamedTuple):
    """A tensor, expanded to the shape of the value, and its strides."""

    tensor: Any
    strides: Strides


@triton.jit
def offset(sample, middle, place, within, strides):
    """Where entries lie in memory."""
    at = sample.to(tl.int64) * strides.sample + middle.to(tl.int64) * strides.between
    return at + place.to(tl.int64) * strides.line + within.to(tl.int64) * strides.inner


@triton.jit
def load(operand, sample, middle, place, within, mask):
    """The entries of an operand, in float32; 0 where ``mask`` is false."""
    at = offset(sample, middle, place, within, operand.strides)
    return tl.load(operand.tensor + at, mask=mask, other=0.0).to(tl.float32)
