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

from razorlight._torch import constant_if_traced, is_traced
from razorlight.codecs.base import Codec
from razorlight.codecs.parsing import codec_fields, parse_codec

# Entries. Temporaries of 32 MiB or more are fresh pages of the system each time on a CPU, and these
# take longer than the encoding.
_PIECE = 2**21


def encode(
    codec: Codec, x: Tensor, of: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, ...]:
    """``codec.encode(x)``, or ``codec.encode(of(x))``, opaque to a compiler.

    Args:
        codec: how.
        x: the value, any shape.
        of: gives what is encoded in place of ``x``, sample by sample in its shape.
    """
    if not is_traced():
        made = of or (lambda part: part)
        return encode_in_chunks(
            codec, x.shape, x.device, lambda samples: made(x[samples] if x.ndim else x)
        )
    value = of(x) if of else x
    if codec.is_identity(value.dtype):
        return (value.clone(),)  # in words only: whether there is a copy is the compiler's business
    return tuple(_encode(value, _spec(codec)))


def encode_in_chunks(
    codec: Codec, shape: torch.Size, device: torch.device, make: Callable[[slice], Tensor]
) -> tuple[Tensor, ...]:
    """Encode a value that need not exist as a whole.

    Args:
        codec: how.
        shape: of the value.
        device: where it is made.
        make: gives the value of some samples (a slice of dim 0).
    """
    pieces = [codec.encode(make(samples)) for samples in _pieces(codec, shape, device)]
    if len(pieces) == 1:
        return pieces[0]
    with torch.autocast(device.type, enabled=False):  # which would have a say in their dtypes
        return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))


def _pieces(codec: Codec, shape: Sequence[int], device: torch.device) -> list[slice]:
    """The samples that are encoded or decoded at a time."""
    together = codec.chunk_alignment(shape) if device.type == "cpu" else None
    if together is None:
        return [slice(None)]
    count = together * max(1, _PIECE // max(1, together * math.prod(shape[1:])))
    if count >= shape[0]:
        return [slice(None)]
    return [slice(i, min(i + count, shape[0])) for i in range(0, shape[0], count)]


def decode(codec: Codec, stored: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """``codec.decode(*stored, shape=shape, dtype=dtype)``, opaque to a compiler."""
    if codec.is_identity(dtype):
        return codec.decode(*stored, shape=shape, dtype=dtype)
    if is_traced():
        return _decode(list(stored), _spec(codec), shape, dtype)
    pieces = _pieces(codec, shape, stored[0].device)
    if len(pieces) == 1:
        return codec.decode(*stored, shape=shape, dtype=dtype)
    value = torch.empty(shape, dtype=dtype)
    for samples in pieces:
        parts = (_part(encoded, samples, shape[0]) for encoded in stored)
        piece = value[samples]
        piece.copy_(codec.decode(*parts, shape=piece.shape, dtype=dtype))
    return value


def _part(encoded: Tensor, samples: slice, count: int) -> Tensor:
    """What lies in ``encoded``, which holds ``count`` samples, of some of them."""
    start, stop = (len(encoded) * i // count for i in (samples.start, samples.stop))
    return encoded[start:stop]


# Part of a graph that a compiler keeps on disk, for later runs too: one more wherever the shapes of
# an encoding have changed.
_EDITION = 2


@constant_if_traced
def _spec(codec: Codec) -> str:
    return json.dumps([_EDITION, codec_fields(codec)])


def _codec(spec: str) -> Codec:
    _, fields = json.loads(spec)
    return parse_codec(fields)


def _encode_spec(x: Tensor, spec: str) -> list[Tensor]:
    return list(_codec(spec).encode(x))


def _decode_spec(
    stored: Sequence[Tensor], spec: str, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    return _codec(spec).decode(*stored, shape=torch.Size(shape), dtype=dtype)


_encode = torch.library.custom_op("razorlight::encode", _encode_spec, mutates_args=())
_decode = torch.library.custom_op("razorlight::decode", _decode_spec, mutates_args=())
# made of tensor operators with static shapes, they run on fake tensors as they are
_encode.register_fake(_encode_spec)
_decode.register_fake(_decode_spec)
