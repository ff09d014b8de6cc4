"""How a tensor becomes a record: seen as its memory lies, and encoded by a codec."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from razorlight._torch import is_dtensor, unshared
from razorlight.codecs import Codec, encode
from razorlight.errors import RazorError
from razorlight.records.readers import Decode
from razorlight.records.record import Record

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def as_stored_layout(x: Tensor, channels: int | None = None, like: Tensor | None = None) -> Tensor:
    """See ``x`` in the order of its memory, with tokens or places in dim -2.

    Args:
        x: any value; a value of less than two dims is seen as one token.
        channels: the dim that holds the channels. 1: ``(batch, channels, *spatial)`` is seen as
            ``(batch, channels, places, 1)``, or as ``(batch, places, channels)`` where the channels
            lie last in memory. -1: ``(batch, *tokens, channels)`` is seen as ``(batch, tokens,
            channels)``. None: ``x`` as it is.
        like: the tensor whose layout in memory counts; ``x`` itself by default.

    Raises:
        RazorError: for a DTensor, of which each process holds a part.
    """
    if is_dtensor(x):
        raise RazorError(
            "a tensor that is spread over processes (DTensor, of tensor or sequence parallelism) "
            "cannot be stored: leave the layers that compute on such dense, with exclude=[...]"
        )
    like = x if like is None else like
    if like.ndim < 2:
        return x.reshape(1, -1)
    if like.ndim < 3 or not like.numel():
        return x
    if like.is_contiguous():
        if channels == -1:
            return x if x.ndim == 3 else x.flatten(1, -2)
        return x if channels is None else x.reshape(*x.shape[:2], -1, 1)
    form = _CHANNELS_LAST.get(like.ndim)
    if channels != 1 or form is None or not like.is_contiguous(memory_format=form):
        return x
    return x.movedim(1, -1).flatten(1, -2)


def encoded_record(
    encoded: Sequence[Tensor],
    x: Tensor,
    codec: Codec,
    dtype: torch.dtype,
    channels: int | None = None,
) -> Record:
    """The record of a value in ``dtype`` from its encoding :func:`as_stored_layout`.

    Args:
        encoded: what ``codec`` made of the value.
        x: a tensor of the value's shape and memory format.
        codec: encoded the value.
        dtype: of the value.
        channels: as for :func:`as_stored_layout`.
    """
    seen = as_stored_layout(x, channels)
    channels_last = seen.ndim < x.ndim and not x.is_contiguous()
    return Record(tuple(encoded), Decode(codec, seen.shape, x.shape, dtype, channels_last))


@torch.no_grad()
def record_of(
    x: Tensor,
    codec: Codec,
    dtype: torch.dtype,
    channels: int | None = None,
    of: Callable[[Tensor], Tensor] | None = None,
    unshared_with: Tensor | None = None,
) -> Record:
    """Encode ``x``, or ``of(x)``, entry by entry; the record gives it back in ``dtype``.

    Args:
        x: the value.
        codec: encodes it.
        dtype: of the value that is read.
        channels: as for :func:`as_stored_layout`.
        of: gives what is encoded in place of ``x``.
        unshared_with: a tensor whose memory the record may not share.
    """
    encoded = encode(codec, as_stored_layout(x, channels), of)
    if unshared_with is not None:
        encoded = tuple(unshared(part, unshared_with) for part in encoded)
    return encoded_record(encoded, x, codec, dtype, channels)
