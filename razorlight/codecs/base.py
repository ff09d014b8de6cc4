"""What a codec is: how one tensor is stored between forward and backward."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codec(ABC):
    """How one tensor is stored between forward and backward.

    A codec is a frozen dataclass of plain values: it compares, hashes, prints, pickles and stands
    in YAML (:func:`razorlight.codecs.parse_codec`).
    """

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors to store in place of ``x`` (any shape)."""

    @abstractmethod
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return the approximation of the encoded tensor, contiguous, in its shape and dtype."""

    @abstractmethod
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bits that :meth:`encode` stores for a tensor of this shape and dtype (exact count)."""


VALUE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def storage_dtype(dtype: torch.dtype, wanted: str) -> torch.dtype:
    """The dtype that stores a value of ``dtype`` as ``wanted`` ("fp32", "fp16", "bf16").

    A dtype that is not wider than the wanted one is kept: nothing would be saved, and bfloat16
    would lose its range in float16.
    """
    target = VALUE_DTYPES[wanted]
    return target if target.itemsize < dtype.itemsize else dtype


def saturating_cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to ``dtype``, large finite values going to its limits and not to infinity."""
    if dtype == x.dtype:
        return x
    if dtype == torch.float16:
        limit = torch.finfo(dtype).max
        # infinities stay: a run that diverges must be seen to diverge
        x = torch.where(x.isinf(), x, x.clamp(-limit, limit))
    return x.to(dtype)


_BIT_I_OF_BYTE_I = 0x8040201008040201 - 2**64  # as a signed 64-bit integer


def pack_bits(mask: Tensor) -> Tensor:
    """Pack a boolean tensor of any shape into uint8, eight entries a byte: ``(ceil(n / 8),)``."""
    flat = mask.flatten()
    padding = -flat.numel() % 8
    if padding:
        flat = torch.cat([flat, flat.new_zeros(padding)])
    # eight bytes of 0 or 1 read as one little-endian word: the product moves bit i of byte i to
    # bit i of the top byte, and no partial sums meet on the way
    words = flat.view(torch.uint8).view(torch.int64)
    return (words * 0x0102040810204080 >> 56).to(torch.uint8)


def unpack_bits(packed: Tensor, shape: torch.Size) -> Tensor:
    """Inverse of :func:`pack_bits`: a boolean tensor of ``shape``."""
    # each byte is copied to all eight bytes of a word, and byte i keeps only its bit i
    words = (packed.to(torch.int64) * 0x0101010101010101) & _BIT_I_OF_BYTE_I
    return words.view(torch.uint8).ne(0)[: math.prod(shape)].view(shape)
