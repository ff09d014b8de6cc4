"""Triton kernels that encode and decode on a GPU, in place of the torch code of a codec.

The kernels give the bits that the torch code gives. They are launched one to three times for a
value, where the torch code launches ten or more kernels.
"""

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from razorlight._torch import has_triton, is_fake, is_gpu
from razorlight.codecs.base import Codec
from razorlight.codecs.elementwise import Step
from razorlight.codecs.mask import Mask
from razorlight.codecs.slope import Slope
from razorlight.codecs.uniform import Uniform

WITH_KERNELS = (Uniform, Mask, Slope)
"""The codecs that have kernels. A subclass has none, because it may store something else."""


class Kernels(Protocol):
    """The functions of a module that launches the kernels of a codec."""

    def serves(self, codec: Codec, shape: torch.Size) -> bool:
        """Whether the kernels encode and decode a value of ``shape``."""

    def encode(self, codec: Codec, x: Tensor, *statistics: Tensor) -> tuple[Tensor, ...]:
        """The same tensors as ``codec.encode(x)``, or as of ``(x - mean) * rstd``."""

    def serves_norm(self, codec: Codec, x: Tensor, mean: Tensor, rstd: Tensor) -> bool:
        """Whether the kernels can normalise ``x`` while they encode it."""

    def decode(
        self,
        codec: Codec,
        *stored: Tensor,
        shape: torch.Size,
        dtype: torch.dtype,
        steps: Sequence[Step] = (),
    ) -> Tensor:
        """The same value as ``codec.decode(...)``, or what ``steps`` make of that value."""


class Codes(NamedTuple):
    """The codes of a value.

    Attributes:
        codec: the codec that encoded the value.
        tensors: the tensors that the codec stored.
        shape: the shape in which the codec saw the value.
        channels_last: Whether the codec saw the channels, dim 1 of the value, in the last dim.
    """

    codec: Codec
    tensors: Sequence[Tensor]
    shape: torch.Size
    channels_last: bool


class NormKernels(Protocol):
    """The functions of the module that computes gradients of norms from codes.

    The codes are those of the normalised input. The functions return the gradients of input, weight
    and bias, each one if it is needed; or None if torch code has to compute them. Those of weight
    and bias are in float32, in one dim.
    """

    def row_gradients(
        self,
        codes: Codes,
        grad: Tensor,
        weight: Tensor | None,
        rstd: Tensor,
        needs: Sequence[bool],
        is_centred: bool,
    ) -> tuple[Tensor | None, ...] | None:
        """The gradients of a layer norm, or if not ``is_centred``, of an RMS norm."""

    def channel_gradients(
        self,
        codes: Codes,
        grad: Tensor,
        weight: Tensor | None,
        mean: Tensor | None,
        rstd: Tensor,
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, ...] | None:
        """The gradients of a batch norm."""


class Pooling(NamedTuple):
    """How maps are pooled.

    Attributes:
        windows: kernel, stride, padding and dilation, each with a number for rows and columns.
        bits: the bits of the place of a maximum in its window: 2, 4 or 8.
        channels_last: Whether the channels of input and output come last in memory.
    """

    windows: Sequence[Sequence[int]]
    bits: int
    channels_last: bool


class PoolKernels(Protocol):
    """The functions of the module that pools maxima in two dims.

    The places of maxima are packed in the order of the memory of the output.
    """

    def pool(self, x: Tensor, how: Pooling, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The maxima of windows, with ``sizes`` in rows and columns, and their packed places."""

    def gradient(self, grad: Tensor, packed: Tensor, how: Pooling, shape: torch.Size) -> Tensor:
        """The gradient of the input, of ``shape``."""

    def pick(self, value: Tensor, packed: Tensor, how: Pooling, sizes: Sequence[int]) -> Tensor:
        """For each window the entry of ``value`` at the place of the maximum."""


def norm_kernels_for(codes: Codes) -> NormKernels | None:
    """The kernels that compute gradients of norms from ``codes``; None if there are none."""
    if kernels_for(codes.codec, codes.shape, codes.tensors[0]) is None:
        return None
    from razorlight.codecs.kernels import norm  # needs Triton

    return cast(NormKernels, norm)


def pool_kernels_for(like: Tensor, shape: torch.Size) -> PoolKernels | None:
    """The kernels that pool an input of ``shape``, or None if torch code does it.

    Args:
        like: a tensor on the device of the input, of the input's dtype.
        shape: the shape of the input.
    """
    if not can_launch(like) or like.dtype not in _FLOATS or len(shape) != 4:
        return None
    if not 0 < math.prod(shape) < 2**31:
        return None
    from razorlight.codecs.kernels import max_pool  # needs Triton

    return cast(PoolKernels, max_pool)


_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def kernels_for(codec: Codec, shape: torch.Size, like: Tensor) -> Kernels | None:
    """The kernels that encode or decode a value, or None if the torch code of the codec does it.

    Args:
        codec: encodes and decodes the value.
        shape: the shape of the value.
        like: a tensor on the device of the value: the value itself or what is stored of it.
    """
    if not can_launch(like) or type(codec) not in WITH_KERNELS:
        return None
    from razorlight.codecs.kernels import entrywise, uniform  # needs Triton

    kernels = cast(Kernels, uniform if isinstance(codec, Uniform) else entrywise)
    return kernels if kernels.serves(codec, shape) else None


def can_launch(like: Tensor) -> bool:
    """Whether Triton kernels run on the device of ``like``. For fake tensors all is as if."""
    if not is_gpu(like.device) or not (type(like) is Tensor or is_fake(like)):
        return False
    return is_fake(like) or has_triton() or _no_triton()


@cache
def _no_triton() -> bool:
    warnings.warn(
        "razorlight: Triton does not run here, so codecs run as tens of small kernels each and "
        "take several times as long; install a torch that comes with Triton",
        stacklevel=2,
    )
    return False
