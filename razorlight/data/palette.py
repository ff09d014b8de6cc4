"""Colours for label maps and depth maps."""

from collections.abc import Sequence

import matplotlib
import torch
from torch import Tensor


def voc_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """One RGB colour per class, far apart for neighbouring ids; class 0 is black.

    The colour map of the PASCAL VOC development kit: the lowest bits of an id become the highest
    bits of red, green and blue in turn.

    Args:
        num_classes: how many colours, at most 256 before they repeat.

    Returns:
        ``num_classes`` triples of integers in 0..255.
    """
    return tuple(
        (_spread(label, 0), _spread(label, 1), _spread(label, 2)) for label in range(num_classes)
    )


def colour_labels(labels: Tensor, palette: Sequence[tuple[int, int, int]]) -> Tensor:
    """Paint a label map.

    Args:
        labels: class ids, integer (H, W); those that ``palette`` lacks (255, the label to ignore)
            get the pale colour of PASCAL VOC's void.
        palette: one RGB triple of 0..255 per class.

    Returns:
        Uint8 (3, H, W), on the CPU.
    """
    void = voc_palette(256)[255]
    colours = torch.tensor([*palette, *[void] * (256 - len(palette))], dtype=torch.uint8)
    return colours[labels.long().cpu()].permute(2, 0, 1)


def colour_depths(depths: Tensor) -> Tensor:
    """Paint a depth map, red near to blue at its farthest point, black where nothing was measured.

    Args:
        depths: metres, float (H, W), 0 where nothing was measured.

    Returns:
        Uint8 (3, H, W), on the CPU.
    """
    metres = depths.float().cpu()
    shares = metres / metres.max().clamp(min=1e-6)
    colours = torch.from_numpy(matplotlib.colormaps["Spectral"](shares.numpy(), bytes=True))
    return (colours[..., :3] * (metres > 0)[..., None]).permute(2, 0, 1)


def _spread(label: int, channel: int) -> int:
    """Bits ``channel``, ``channel + 3``, ... of ``label``, laid from the highest bit down."""
    return sum((label >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
