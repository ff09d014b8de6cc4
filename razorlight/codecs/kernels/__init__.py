"""Triton kernels that encode and decode on a GPU, in place of the torch code of a codec.

The kernels give the bits that the torch code gives. They are launched one to three times for a
value, where the torch code launches tens of kernels.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Protocol, cast

import torch
from torch import Tensor

from razorlight._torch import has_triton
from razorlight.codecs.base import Codec
from razorlight.codecs.elementwise import Step
from razorlight.codecs.uniform import Uniform


class Kernels(Protocol):
    """The functions of a module that launches the kernels of one codec."""

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


def kernels_for(codec: Codec, shape: torch.Size, like: Tensor) -> Kernels | None:
    """The kernels that encode or decode a value, or None if the torch code of the codec does it.

    Args:
        codec: encodes and decodes the value.
        shape: the shape of the value.
        like: a tensor on the device of the value: the value itself or what is stored of it.
    """
    if not can_launch(like) or type(codec) is not Uniform:
        return None
    from razorlight.codecs.kernels import uniform  # needs Triton

    return cast(Kernels, uniform) if uniform.serves(codec, shape) else None


def can_launch(like: Tensor) -> bool:
    """Whether Triton kernels run on the device of ``like``. A fake tensor has no memory."""
    if not like.is_cuda or type(like) is not Tensor:
        return False
    return has_triton() or _no_triton()


@cache
def _no_triton() -> bool:
    warnings.warn(
        "razorlight: Triton does not run here, so codecs run as tens of small kernels each and "
        "take several times as long; install a torch that comes with Triton",
        stacklevel=2,
    )
    return False
