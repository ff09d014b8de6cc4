"""One bit an entry, for what a gate (ReLU, dropout) let through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from razorlight.codecs.base import Codec
from razorlight.codecs.packing import pack_bits, unpack_bits


@dataclass(frozen=True)
class Mask(Codec):
    """One bit an entry: exact for a boolean tensor, padded to whole bytes (at most 7 bits)."""

    @override
    def samples_together(self, shape: Sequence[int]) -> int | None:
        together = 8 // math.gcd(8, math.prod(shape[1:]))  # so that they fill whole bytes
        return None if len(shape) < 2 or shape[0] % together else together

    @override
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return (pack_bits(x),)

    @override
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return the mask: boolean, or 0 and 1 of a number's ``dtype``."""
        if dtype == torch.bool:
            return unpack_bits(stored[0], shape)
        # looked up byte by byte: half the time of making numbers of booleans
        bits = torch.arange(256)[:, None] >> torch.arange(8) & 1
        table = bits.to(dtype).to(stored[0].device, non_blocking=True)
        numbers = table.index_select(0, stored[0].to(torch.int32)).flatten()
        return numbers[: math.prod(shape)].view(shape)

    @override
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return (math.prod(shape) + 7) // 8 * 8
