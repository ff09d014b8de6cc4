"""How a tensor becomes a record: a codec encodes the tensor in the order of its memory."""

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
    """View ``x`` in the order of its memory, with tokens or places in dim -2.

    Args:
        x: any value; a value of less than two dims is viewed as one token.
        channels: the dim of the channels. With 1, ``(batch, channels, *spatial)`` is viewed as
            ``(batch, channels, places, 1)``, or as ``(batch, places, channels)`` if the memory
            format is channels-last. With -1, ``(batch, *tokens, channels)`` is viewed as ``(batch,
            tokens, channels)``. With None, ``x`` stays as it is.
        like: the tensor whose memory format counts; ``x`` itself by default.

    Raises:
        RazorError: for a DTensor, because each process holds only a part of it.
    """
    if is_dtensor(x):
        raise RazorError(
            "a tensor that is spread over processes (DTensor, of tensor or sequence parallelism) "
            "cannot be stored: leave the layers that compute with such tensors dense, with "
            "exclude=[...]"
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
    """The record of a value that was encoded in the layout of :func:`as_stored_layout`.

    Args:
        encoded: the tensors that ``codec`` made of the value.
        x: a tensor of the value's shape and memory format.
        codec: the codec that encoded the value.
        dtype: the dtype of the value.
        channels: the dim of the channels, as for :func:`as_stored_layout`.
    """
    view = as_stored_layout(x, channels)
    channels_last = view.ndim < x.ndim and not x.is_contiguous()
    return Record(tuple(encoded), Decode(codec, view.shape, x.shape, dtype, channels_last))


def record_of(
    x: Tensor,
    codec: Codec,
    dtype: torch.dtype,
    channels: int | None = None,
    of: Callable[[Tensor], Tensor] | None = None,
    unshared_with: Tensor | None = None,
) -> Record:
    """Encode ``x``, or ``of(x)``, and return the record that reads the value in ``dtype``.

    Args:
        x: the value.
        codec: encodes the value.
        dtype: the dtype of the value that is read.
        channels: the dim of the channels, as for :func:`as_stored_layout`.
        of: an elementwise function whose result is encoded in place of ``x``.
        unshared_with: a tensor whose memory the record may not share.
    """
    x = x.detach()
    encoded = encode(codec, as_stored_layout(x, channels), of)
    if unshared_with is not None:
        encoded = tuple(unshared(part, unshared_with) for part in encoded)
    return encoded_record(encoded, x, codec, dtype, channels)
