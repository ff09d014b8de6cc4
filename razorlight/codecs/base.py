"""The base class of codecs: how one tensor is stored between forward and backward."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codec(ABC):
    """How one tensor is stored between forward and backward.

    A codec is a frozen dataclass of plain values. Codecs can be compared, hashed, printed, pickled
    and written in YAML (:func:`razorlight.codecs.parse_codec`).

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

    @property
    def words(self) -> str:
        """A few words for a report, such as "4 bits along tokens"."""
        return str(self)

    def chunk_alignment(self, shape: Sequence[int]) -> int | None:
        """The number of samples (dim 0) that can be encoded on their own; None if only all can.

        A chunk may hold any multiple of this number. The encodings of the chunks, concatenated
        along dim 0, equal the encoding of the whole.
        """
        return None

    def is_identity(self, dtype: torch.dtype) -> bool:
        """Whether a tensor of ``dtype`` is stored as it is."""
        return False

    def preserving(self, what: Literal["signs", "zeros"]) -> "Codec":
        """The codec of this kind that preserves signs, or the zeros of a rectified value.

        A codec that has no such form returns itself. See :class:`~razorlight.codecs.Uniform`.
        """
        return self

    def of_values(self) -> "Codec":
        """The codec for values themselves. A codec that stores slopes returns another one here."""
        return self

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors to store in place of ``x`` (any shape)."""

    @abstractmethod
    def decode(self, *stored: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return the encoded tensor, approximated and contiguous, in ``shape`` and ``dtype``."""

    @abstractmethod
    def nbits(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """The exact number of bits that :meth:`encode` stores for this shape and dtype."""


VALUE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def storage_dtype(dtype: torch.dtype, wanted: str) -> torch.dtype:
    """The dtype that stores a value of ``dtype`` as ``wanted`` ("fp32", "fp16", "bf16").

    A ``dtype`` that is not wider than the wanted one stays: a cast would save nothing, and bfloat16
    would lose its range in float16.
    """
    target = VALUE_DTYPES[wanted]
    return target if target.itemsize < dtype.itemsize else dtype


def saturating_cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to ``dtype``. Finite values beyond its limits become the limits, not infinity."""
    if dtype == x.dtype:
        return x
    if dtype == torch.float16:
        limit = torch.finfo(dtype).max
        # infinities stay: a run that diverges must be seen to diverge
        x = torch.where(x.isinf(), x, x.clamp(-limit, limit))
    return x.to(dtype)


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor | None = None) -> Tensor:
    """``x * scale + shift``, in one pass over ``x`` where that is faster.

    Args:
        x: ``(..., n)``.
        scale: broadcasts to ``x``. A scale of whole rows has a single entry along its last dim.
        shift: broadcasts to ``x``, like ``scale``.
        out: the tensor that the result is written to; it may be ``x`` itself.
    """
    if scale.shape[-1] > 1:
        return torch.addcmul(shift, x, scale, out=out)
    # torch vectorises an operation with one number for a row, but not an operation with two
    return torch.mul(x, scale, out=out).add_(shift)
