"""How kernels find the entries of tensors: a value, and others in its shape."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from razorlight.codecs.elementwise import Step


class Operand(NamedTuple):
    """A tensor that is seen as ``(samples, between, line, inner)``, and its strides.

    Kernels that loop take an operand as an argument, and not within a tuple: in a tuple in a tuple,
    Triton 3.6 forgets a stride of 1.
    """

    tensor: Any
    sample: int
    between: int
    line: int
    inner: int


def operands_of(
    steps: Sequence[Step], as_operand: Callable[[Tensor], Operand]
) -> tuple[tuple[Operand | None, ...], ...]:
    """The tensors that each step takes beside the value, as a kernel takes them."""
    return tuple(tuple(None if x is None else as_operand(x) for x in s.more) for s in steps)


def shifts_of(planes: Sequence[int]) -> tuple[int, ...]:
    """The first bits of planes of these widths."""
    return tuple(sum(planes[:i]) for i in range(len(planes)))


def power_of_two(n: int) -> int:
    """The least power of two that is not below ``n``."""
    return 1 << (n - 1).bit_length()


class Divisor(NamedTuple):
    """A number by which a kernel divides: to multiply takes 3 instructions, to divide about 20.

    See Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994.
    """

    magic: int
    shift: int


def divisor(number: int) -> Divisor | None:
    """The :class:`Divisor` of a number from 1 to 2**31 - 1; None for 1."""
    if number == 1:
        return None
    shift = 31 + (number - 1).bit_length()
    return Divisor(-(-(2**shift) // number), shift)


@triton.jit
def divide(n, by):
    """The integers ``n``, 0 to 2**31 - 1, divided by a :class:`Divisor` and rounded down."""
    if by is None:
        return n
    else:  # in operations of which Triton knows that equal neighbours stay equal
        product = n.to(tl.uint32).to(tl.int64) * by.magic.to(tl.uint32).to(tl.int64)
        return (product >> by.shift).to(tl.int32)


@triton.jit
def offset(operand, sample, middle, place, within):
    """Where the entries of an operand lie in memory."""
    at = sample.to(tl.int64) * operand.sample + middle.to(tl.int64) * operand.between
    return at + place.to(tl.int64) * operand.line + within.to(tl.int64) * operand.inner


@triton.jit
def load(operand, sample, middle, place, within, mask):
    """The entries of an operand, in float32; 0 where ``mask`` is false."""
    at = operand.tensor + offset(operand, sample, middle, place, within)
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)
