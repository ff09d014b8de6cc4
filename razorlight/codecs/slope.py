"""The codec that stores the slope of a smooth activation, in 2 to 4 bits."""

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
    """The slopes for which the codes 0, 1, ... stand."""
    _, slopes, _ = STEPS[function, bits]
    return sorted(set(slopes))


def _codes_of_cells(function: str, bits: int) -> bytes:
    """The code of each cell ``[i, i + 1) / CELLS_A_UNIT``, where i is a signed byte.

    The code of cell i is at index ``i % 256``. The outermost cells extend to infinity.
    """
    edges, slopes, _ = STEPS[function, bits]
    levels = _levels(function, bits)
    cells = (*range(128), *range(-128, 0))
    return bytes(levels.index(slopes[bisect_right(edges, i / CELLS_A_UNIT)]) for i in cells)


_LEVELS = {key: _levels(*key) for key in STEPS}
_CODES = {key: _codes_of_cells(*key) for key in STEPS}
# These codecs are made here, because a compiler sees no fields of a codec that is made while it
# traces.
_OF_VALUES = {bits: Uniform(bits, axis=-2, token_scale=True) for bits in (2, 3, 4)}


@dataclass(frozen=True)
class Slope(Codec):
    """Keep the slope f'(x) of an activation f in place of x, as one of ``2**bits`` levels.

    The levels, and the interval of x for each, have the least error for x of N(0, 1.5), as in
    few-bit backward (Novikov et al., ICML 2023). ``tools/derivative_codes.py`` found them. The
    table shows the root mean square errors of slopes from -.13 to 1.13 (hardswish: -.5 to 1.5):

    | function        | 2 bit | 3 bit | 4 bit |
    |-----------------|-------|-------|-------|
    | gelu, gelu_tanh |  .092 |  .041 |  .020 |
    | silu            |  .088 |  .046 |  .021 |
    | hardswish       |  .146 |  .067 |  .034 |

    Far from zero the slope is exactly 0 on the left and 1 on the right, also at infinity. A NaN
    gets any of the levels. The activation's output is NaN there, so a diverging run is still seen.

    Args:
        bits: the bits of a code: 2, 3 or 4.
        function: the activation f: "gelu" (by erf), "gelu_tanh", "silu" or "hardswish".

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

    @property
    @override
    def words(self) -> str:
        return f"slopes of {self.function} in {self.bits} bits"

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
        # This is exact in every float dtype: the factor is a power of two, and a cell has 8 bits.
        cells = (x.flatten() * CELLS_A_UNIT).floor_().clamp_(-128, 127)
        # As a byte, even a NaN has a place in the table.
        places = cells.to(torch.int8).view(torch.uint8).to(torch.int32)
        codes = _send(self.codes_of_cells(), x.device).index_select(0, places)
        return tuple(pack(codes, self.bits))

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return the slopes f'(x), contiguous, in the shape and dtype of x."""
        codes = unpack(stored, self.bits, [math.prod(shape)])
        levels = _send(self.levels(dtype), codes.device)
        return levels.index_select(0, codes.to(torch.int32)).view(shape)

    def codes_of_cells(self) -> Tensor:
        """The code of each cell ``[i, i + 1) / CELLS_A_UNIT``, at index ``i % 256``, in uint8."""
        return torch.tensor(list(_CODES[self.function, self.bits]), dtype=torch.uint8)

    def levels(self, dtype: torch.dtype) -> Tensor:
        """The slope for which each code stands, in ``dtype``."""
        return torch.tensor(_LEVELS[self.function, self.bits], dtype=dtype)

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return packed_bits(math.prod(shape), self.bits)


def _send(table: Tensor, device: torch.device) -> Tensor:
    """Copy a small table to ``device``, without waiting for the work that is queued there."""
    return table.to(device, non_blocking=True)
