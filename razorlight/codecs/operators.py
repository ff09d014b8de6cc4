"""Encoding and decoding as operators that a compiler takes as they are.

Traced through, an encoding would be made of arithmetic that the compiler may as well do in backward
again: it would store the dense value instead. It cannot look into an operator, and so stores what
it returns.
"""

import json
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from razorlight.codecs.base import Codec
from razorlight.codecs.dense import Dense
from razorlight.codecs.parsing import codec_fields, parse_codec

# Entries. The temporaries of larger values, of 32 MiB or more, are fresh pages of the system each
# time on a CPU, and these take longer than the encoding.
_PIECE = 2**20


def encode(codec: Codec, x: Tensor) -> tuple[Tensor, ...]:
    """``codec.encode(x)``, opaque to a compiler."""
    if not torch.compiler.is_compiling():
        return encode_made(codec, x.shape, x.device, lambda samples: x[samples] if x.ndim else x)
    # a copy in words only: whether there is one is the compiler's business
    return (x.clone(),) if _keeps(codec, x.dtype) else tuple(_encode(x, _spec(codec)))


def encode_made(
    codec: Codec, shape: torch.Size, device: torch.device, make: Callable[[slice], Tensor]
) -> tuple[Tensor, ...]:
    """Encode a value that need not exist as a whole.

    Args:
        codec: how.
        shape: of the value.
        device: where it is made.
        make: gives the value of some samples (a slice of dim 0).
    """
    together = codec.samples_together(shape) if device.type == "cpu" else None
    count = together and together * max(1, _PIECE // max(1, together * math.prod(shape[1:])))
    if count is None or count >= shape[0]:
        return codec.encode(make(slice(None)))
    pieces = [codec.encode(make(slice(i, i + count))) for i in range(0, shape[0], count)]
    return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))


def decode(codec: Codec, stored: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """``codec.decode(*stored, shape=shape, dtype=dtype)``, opaque to a compiler."""
    if not torch.compiler.is_compiling() or _keeps(codec, dtype):
        return codec.decode(*stored, shape=shape, dtype=dtype)
    return _decode(list(stored), _spec(codec), shape, dtype)


def _keeps(codec: Codec, dtype: torch.dtype) -> bool:
    """Whether encoding gives the tensor itself, which an operator may not return."""
    return isinstance(codec, Dense) and codec.keeps(dtype)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _spec(codec: Codec) -> str:
    return json.dumps(codec_fields(codec))


def _encode_spec(x: Tensor, codec: str) -> list[Tensor]:
    return list(parse_codec(json.loads(codec)).encode(x))


def _decode_spec(
    stored: Sequence[Tensor], codec: str, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    return parse_codec(json.loads(codec)).decode(*stored, shape=torch.Size(shape), dtype=dtype)


_encode = torch.library.custom_op("razorlight::encode", _encode_spec, mutates_args=())
_decode = torch.library.custom_op("razorlight::decode", _decode_spec, mutates_args=())
# made of tensor operators with static shapes, they run on fake tensors as they are
_encode.register_fake(_encode_spec)
_decode.register_fake(_decode_spec)
