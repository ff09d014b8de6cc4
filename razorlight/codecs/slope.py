"""The slope of a smooth activation, in 2 to 4 bits."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from razorlight.codecs.base import Codec
from razorlight.codecs.packing import pack, packed_bits, unpack
from razorlight.codecs.slope_tables import CELLS_A_UNIT, STEPS
from razorlight.codecs.uniform import Uniform
from razorlight.errors import RazorError

Curve = Literal["gelu", "gelu_tanh", "silu", "hardswish"]


def _levels(function: str, bits: int) -> list[float]:
    """The slopes that codes 0, 1, ... stand for."""
    _, slopes, _ = STEPS[function, bits]
    return sorted(set(slopes))


def _codes_of_cells(function: str, bits: int) -> bytes:
    """The code of each cell ``[i, i + 1) / CELLS_A_UNIT``; i a signed byte, at its unsigned place.

    The outermost of the 256 cells go on to infinity.
    """
    edges, slopes, _ = STEPS[function, bits]
    levels = _levels(function, bits)
    cells = (*range(128), *range(-128, 0))
    return bytes(levels.index(slopes[bisect_right(edges, i / CELLS_A_UNIT)]) for i in cells)


_LEVELS = {key: _levels(*key) for key in STEPS}
_CODES = {key: _codes_of_cells(*key) for key in STEPS}
# made beforehand: of a codec that is made while it traces a compiler sees no fields
_OF_VALUES = {bits: Uniform(bits, axis=-2, token_scale=True) for bits in (2, 3, 4)}


@dataclass(frozen=True)
class Slope(Codec):
    """Keep not x but the slope f'(x) of an activation f, as one of ``2**bits`` levels.

    The levels and the intervals of x that they hold on are the best ones for x of N(0, 1.5), found
    by ``tools/derivative_codes.py``, as in few-bit backward (Novikov et al., ICML 2023). Root mean
    square errors, of slopes from -.13 to 1.13 (hardswish: -.5 to 1.5):

    | function        | 2 bit | 3 bit | 4 bit |
    |-----------------|-------|-------|-------|
    | gelu, gelu_tanh |  .092 |  .041 |  .020 |
    | silu            |  .088 |  .046 |  .021 |
    | hardswish       |  .146 |  .067 |  .034 |

    Far out the slope is exactly 0 on the left and 1 on the right, at infinity too. A NaN gets any
    one of the levels: the activation's output is NaN there, so a run that diverges is seen to.

    Args:
        bits: of a code: 2, 3 or 4.
        function: f: "gelu" (by erf), "gelu_tanh", "silu" or "hardswish".

    Raises:
        RazorError: for other ``bits`` or another ``function``.

    Example:
        >>> import torch
        >>> codec, x = Slope(bits=2, function="gelu"), torch.tensor([-10.0, 0.0, 10.0])
        >>> codec.decode(*codec.encode(x), shape=x.shape, dtype=x.dtype)
        tensor([0.0000, 0.6680, 1.0000])
    """

    bits: int = 3
    function: Curve = "gelu"

    def __post_init__(self) -> None:
        functions, widths = (list(dict.fromkeys(field)) for field in zip(*STEPS, strict=True))
        if self.function not in functions:
            raise RazorError(f"Slope: function must be one of {functions}, got {self.function!r}")
        if self.bits not in widths:
            raise RazorError(f"Slope: bits must be one of {widths}, got {self.bits}")

    @override
    def of_values(self) -> Uniform:
        return _OF_VALUES[self.bits]

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        # exact in every float dtype: a power of two, and numbers of eight bits
        cells = (x.flatten() * CELLS_A_UNIT).floor_().clamp_(-128, 127)
        # as bytes, a NaN too has a place in the table
        places = cells.to(torch.int8).view(torch.uint8).to(torch.int32)
        codes = torch.tensor(list(_CODES[self.function, self.bits]), dtype=torch.uint8)
        return tuple(pack(_send(codes, x.device).index_select(0, places), self.bits))

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return the slopes f'(x), not x, contiguous, in the shape and dtype of x."""
        codes = unpack(stored, self.bits, [math.prod(shape)])
        levels = torch.tensor(_LEVELS[self.function, self.bits], dtype=dtype)
        slopes = _send(levels, codes.device).index_select(0, codes.to(torch.int32))
        return slopes.view(shape)

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return packed_bits(math.prod(shape), self.bits)


def _send(table: Tensor, device: torch.device) -> Tensor:
    """A small table on ``device``, without waiting for what is queued there."""
    return table.to(device, non_blocking=True)
