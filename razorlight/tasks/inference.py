"""Dense networks on images of any size."""

from collections.abc import Callable
from itertools import product
from math import ceil
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

OVERLAP = 1 / 3
"""Share of a window that the next one covers again, at least."""


def pad_to_stride(images: Tensor, net: Any) -> Tensor:
    """Pad images until the stride of an smp network divides their sides.

    Args:
        images: images, float (B, 3, H, W); padded on the right and below by 0, the mean colour.
        net: network of segmentation_models_pytorch.
    """
    stride = net.encoder.output_stride if net.requires_divisible_input_shape else 1
    below, right = (-size % stride for size in images.shape[-2:])
    # without padding return the batch itself, which pad would copy
    return pad(images, (0, right, 0, below)) if below or right else images


def crop_like(outputs: Tensor, images: Tensor) -> Tensor:
    """Undo a padding: ``outputs`` (B, channels, ...) cut to the height and width of ``images``."""
    height, width = images.shape[-2:]
    # without a cut return the tensor itself, since its record does not follow a view
    return outputs if outputs.shape[-2:] == (height, width) else outputs[..., :height, :width]


def slide(
    forward: Callable[[Tensor], Tensor], images: Tensor, window: int, channels: int
) -> Tensor:
    """Outputs by square windows that overlap by at least a third, averaged where they do.

    Args:
        forward: function that maps float (B, 3, window, window) to (B, channels, window, window).
        images: images, float (B, 3, H, W); padded as by :func:`pad_to_stride` where the window is
            larger.
        window: side of the windows, in pixels.
        channels: number of channels of the outputs.

    Returns:
        Float32 (B, channels, H, W).
    """
    height, width = images.shape[-2:]
    padded = pad(images, (0, max(0, window - width), 0, max(0, window - height)))
    total = padded.new_zeros((len(padded), channels, *padded.shape[-2:]))
    count = padded.new_zeros(padded.shape[-2:])
    for top, left in product(*(_starts(size, window) for size in padded.shape[-2:])):
        tile = (..., slice(top, top + window), slice(left, left + window))
        total[tile] += forward(padded[tile])
        count[tile] += 1
    return crop_like(total / count, images)


def _starts(size: int, window: int) -> list[int]:
    """Where windows begin along one axis: spread evenly, from edge to edge."""
    slack = size - window
    steps = ceil(slack / (window * (1 - OVERLAP)))
    return [round(slack * step / steps) for step in range(steps + 1)] if steps else [0]
