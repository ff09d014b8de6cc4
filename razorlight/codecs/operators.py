"""Encoding and decoding in chunks, and as operators that are opaque to a compiler.

If a compiler traced the arithmetic of an encoding, it could choose to encode in backward and store
the dense value until then. A compiler cannot look into an operator, so it stores the result.
"""

import math
from ast import literal_eval
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from itertools import islice
from typing import cast

import torch
from torch import Tensor

from razorlight._torch import is_cpu, is_fake, is_traced, standing_for
from razorlight.codecs.base import Codec
from razorlight.codecs.elementwise import Name, Step, apply, dtype_after
from razorlight.codecs.kernels import WITH_KERNELS, kernels_for
from razorlight.codecs.parsing import parse_codec

# A chunk has about so many entries. The temporaries of an encoding take four to five times its
# bytes, which can be what sets the peak of a step. Those of smaller chunks take no less time: 2 MiB
# lie in the cache of a CPU.
_CHUNK_ENTRIES = 2**19


def encode(
    codec: Codec, x: Tensor, of: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, ...]:
    """``codec.encode(x)``, or ``codec.encode(of(x))``, opaque to a compiler.

    Args:
        codec: encodes the value.
        x: the value, any shape.
        of: a function whose result, in the shape of ``x``, is encoded in place of ``x``. Each
            sample of the result must depend on the same sample of ``x`` alone.
    """
    if not is_traced():
        made = of or (lambda part: part)
        return encode_in_chunks(
            codec, x.shape, x.device, lambda samples: made(x[samples] if x.ndim else x)
        )
    value = of(x) if of else x
    if codec.is_identity(value.dtype):
        return (value.clone(),)  # the compiler decides whether there really is a copy
    return tuple(_encode(value, spec_of(codec)))


def encode_in_chunks(
    codec: Codec, shape: torch.Size, device: torch.device, make: Callable[[slice], Tensor]
) -> tuple[Tensor, ...]:
    """Encode a value that is made chunk by chunk and never exists as a whole.

    Args:
        codec: encodes each chunk.
        shape: the shape of the value.
        device: the device on which the value is made.
        make: returns the chunk of the value for a slice of samples (dim 0).
    """
    slices = _chunks(codec, shape, device)
    x = make(slices[0])
    if len(slices) == 1:
        return _run_encode(codec, x)
    chunks = _first_chunks(codec, x, max(1, len(slices) - 2))
    del x
    chunks += [_run_encode(codec, make(samples)) for samples in slices[len(chunks) :]]
    with torch.autocast(device.type, enabled=False):  # autocast could change the dtypes
        return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


def _first_chunks(codec: Codec, x: Tensor, alike: int) -> list[tuple[Tensor, ...]]:
    """The first chunk, encoded; if it is fake, all of those that are ``alike``."""
    if not is_fake(x):
        return [_run_encode(codec, x)]
    with standing_for(alike):
        first = _run_encode(codec, x)
    others = [tuple(torch.empty_like(part) for part in first) for _ in range(alike - 1)]
    return [first, *others]


def _run_encode(codec: Codec, x: Tensor) -> tuple[Tensor, ...]:
    kernels = kernels_for(codec, x.shape, x)
    return kernels.encode(codec, x) if kernels else codec.encode(x)


def _run_decode(
    codec: Codec, stored: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype
) -> Tensor:
    kernels = kernels_for(codec, shape, stored[0])
    if kernels:
        return kernels.decode(codec, *stored, shape=shape, dtype=dtype)
    return codec.decode(*stored, shape=shape, dtype=dtype)


def _chunks(codec: Codec, shape: Sequence[int], device: torch.device) -> list[slice]:
    """The slices of samples that are encoded or decoded one after the other."""
    together = codec.chunk_alignment(shape) if is_cpu(device) else None
    if together is None:
        return [slice(None)]
    count = together * max(1, _CHUNK_ENTRIES // max(1, together * math.prod(shape[1:])))
    if count >= shape[0]:
        return [slice(None)]
    return [slice(i, min(i + count, shape[0])) for i in range(0, shape[0], count)]


def decode(codec: Codec, stored: Sequence[Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """``codec.decode(*stored, shape=shape, dtype=dtype)``, opaque to a compiler."""
    if codec.is_identity(dtype):
        return codec.decode(*stored, shape=shape, dtype=dtype)
    if is_traced():
        return _decode(list(stored), spec_of(codec), shape, dtype)
    chunks = _chunks(codec, shape, stored[0].device)
    if len(chunks) == 1:
        return _run_decode(codec, stored, shape, dtype)
    value = stored[0].new_empty(shape, dtype=dtype)

    def decode_chunk(samples: slice) -> None:
        parts = (_part(encoded, samples, shape[0]) for encoded in stored)
        chunk = value[samples]
        chunk.copy_(codec.decode(*parts, shape=chunk.shape, dtype=dtype))

    if is_fake(value):
        with standing_for(len(chunks)):
            decode_chunk(chunks[0])
        return value
    for samples in chunks:
        decode_chunk(samples)
    return value


def decode_then(
    codec: Codec,
    stored: Sequence[Tensor],
    shape: torch.Size,
    dtype: torch.dtype,
    steps: Sequence[Step],
) -> Tensor | None:
    """What ``steps`` make of a value, computed in the launch that decodes the value.

    Args:
        codec: encoded the value.
        stored: the encoded tensors.
        shape: the shape of the value.
        dtype: the dtype of the value.
        steps: functions of the value, one after the other, with tensors in the shape of the value.

    Returns:
        A tensor of ``shape``; None where no kernel runs, such as on a CPU or in float64.
    """
    last_dtype = dtype_after(dtype, steps)
    if torch.float64 in (dtype, last_dtype):  # kernels compute steps in float32
        return None
    if is_traced():
        if not has_kernels(codec, stored[0].device):
            return None
        names = ",".join([step.name for step in steps])
        more = [tensor for step in steps for tensor in step.more]
        counts = [len(step.more) for step in steps]
        return _decode_then([*stored], spec_of(codec), shape, last_dtype, names, more, counts)
    kernels = kernels_for(codec, shape, stored[0])
    if kernels is None:
        return None
    return kernels.decode(codec, *stored, shape=shape, dtype=last_dtype, steps=steps)


def _part(encoded: Tensor, samples: slice, count: int) -> Tensor:
    """The part of ``encoded``, which holds ``count`` samples, that belongs to ``samples``."""
    start, stop = (len(encoded) * i // count for i in (samples.start, samples.stop))
    return encoded[start:stop]


_WITH_KERNELS = frozenset({"cuda"})


def has_kernels(codec: Codec, device: torch.device) -> bool:
    """Whether kernels of ``codec`` do more in a launch than to encode or decode, on ``device``.

    A compiled step then calls them as operators. Elsewhere the compiler joins the arithmetic around
    an encoding or a decoding by itself.
    """
    return device.type in _WITH_KERNELS and type(codec) in WITH_KERNELS


# Part of the cache key of torch.compile. Increase it whenever the stored format changes.
_FORMAT_VERSION = 2


def spec_of(codec: Codec) -> str:
    """The codec as a text, which an operator can be given. A compiler can trace this code."""
    arguments = [f"{field.name}={getattr(codec, field.name)!r}" for field in fields(codec)]
    return " ".join([str(_FORMAT_VERSION), type(codec).__name__, *arguments])


@cache
def codec_of(spec: str) -> Codec:
    """Undo :func:`spec_of`."""
    _, name, *arguments = spec.split(" ")
    pairs = (argument.split("=") for argument in arguments)
    return parse_codec({"codec": name, **{key: literal_eval(value) for key, value in pairs}})


def _encode_spec(x: Tensor, spec: str) -> list[Tensor]:
    return list(_run_encode(codec_of(spec), x))


def _decode_spec(
    stored: Sequence[Tensor], spec: str, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    return _run_decode(codec_of(spec), stored, torch.Size(shape), dtype)


def _decode_then_spec(
    stored: Sequence[Tensor],
    spec: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    names: str,
    more: Sequence[Tensor | None],
    counts: Sequence[int],
) -> Tensor:
    codec, size, left = codec_of(spec), torch.Size(shape), iter(more)
    steps = [
        Step(cast(Name, name), tuple(islice(left, count)), None)
        for name, count in zip(names.split(","), counts, strict=True)
    ]
    if kernels := kernels_for(codec, size, stored[0]):
        return kernels.decode(codec, *stored, shape=size, dtype=dtype, steps=steps)
    return apply(codec.decode(*stored, shape=size, dtype=torch.float32), steps, dtype)


_encode = torch.library.custom_op("razorlight::encode", _encode_spec, mutates_args=())
_decode = torch.library.custom_op("razorlight::decode", _decode_spec, mutates_args=())
_decode_then = torch.library.custom_op(
    "razorlight::decode_then", _decode_then_spec, mutates_args=()
)
# They consist of tensor operators with static shapes, so they run on fake tensors as they are.
_encode.register_fake(_encode_spec)
_decode.register_fake(_decode_spec)
_decode_then.register_fake(_decode_then_spec)
