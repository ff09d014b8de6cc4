"""What a codec is: how one tensor is stored between forward and backward."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codec(ABC):
    """How one tensor is stored between forward and backward.

    A codec is a frozen dataclass of plain values: it compares, hashes, prints, pickles and stands
    in YAML (:func:`razorlight.codecs.parse_codec`).

    Example:
        >>> import torch
        >>> from razorlight import Uniform
        >>> codec, x = Uniform(bits=8), torch.linspace(0, 1, 256)
        >>> stored = codec.encode(x)
        >>> sum(8 * tensor.nbytes for tensor in stored) == codec.nbits(x.shape, x.dtype)
        True
        >>> back = codec.decode(*stored, shape=x.shape, dtype=x.dtype)
        >>> bool((back - x).abs().max() < 0.01)
        True
    """

    def chunk_alignment(self, shape: Sequence[int]) -> int | None:
        """How many samples (of dim 0) at a time are encoded for themselves; None if it is all.

        The encodings of multiples of so many, joined in dim 0, are that of the whole.
        """
        return None

    def is_identity(self, dtype: torch.dtype) -> bool:
        """Whether a tensor of ``dtype`` is stored as it is."""
        return False

    def preserving(self, what: Literal["signs", "zeros"]) -> "Codec":
        """The codec that keeps signs, or the zeros of what is rectified; itself if there is none.

        See :class:`~razorlight.codecs.Uniform`.
        """
        return self

    def of_values(self) -> "Codec":
        """The codec that stores values; itself, unless it stores something else of them."""
        return self

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


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor | None = None) -> Tensor:
    """``x * scale + shift``, in one pass over ``x`` if it can be done.

    Args:
        x: ``(..., n)``.
        scale: broadcasts to ``x``; of a single entry along its last dim if it varies with rows.
        shift: the same.
        out: to be written to, such as ``x`` itself.
    """
    if scale.shape[-1] > 1:
        return torch.addcmul(shift, x, scale, out=out)
    # torch vectorises an operation with one number that is the same for a row, but not with two
    return torch.mul(x, scale, out=out).add_(shift)
