"""Images, masks and depths as pictures: uint8 tensors (3, H, W) on the CPU."""

from collections.abc import Sequence

import matplotlib
import torch
from torch import Tensor
from torch.nn.functional import pad

from razorlight.data.palette import voc_palette
from razorlight.protocols import Palette

VOID = voc_palette(256)[255]
"""Colour of pixels without a class or a depth."""

GUTTER = 4
"""Pixels between the panels of a picture."""

OPACITY = 0.5
"""Opacity of the colours that are laid over a photograph."""


def denormalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The picture behind a normalised image.

    Args:
        image: float (3, H, W).
        mean: mean of each channel that the normalisation subtracts, for values in 0..1.
        std: standard deviation of each channel, likewise.
    """
    shift, scale = (torch.tensor(channels).view(3, 1, 1) for channels in (mean, std))
    return ((image.float().cpu() * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)


def stretch(image: Tensor) -> Tensor:
    """Three bands as a picture, each from its 2nd to its 98th percentile.

    Args:
        image: float (bands, H, W). Of two bands the second is green and blue, one alone is grey.
    """
    values = image.float().cpu()
    values = values[[min(band, len(values) - 1) for band in range(3)]]
    # a sample of a large image is enough; torch.quantile takes 16 million values at most
    sample = values.flatten(1)[:, :: max(1, values[0].numel() // 2**16)]
    low, high = torch.quantile(sample, torch.tensor([0.02, 0.98]), dim=1).view(2, 3, 1, 1)
    shares = (values - low) / (high - low).clamp(min=1e-6)
    return (shares * 255).round().clamp(0, 255).to(torch.uint8)


def full_palette(palette: Palette) -> Tensor:
    """The colours of 256 labels, uint8 (256, 3): those of the classes, then void."""
    return torch.tensor([*palette, *[VOID] * (256 - len(palette))], dtype=torch.uint8)


def colour_labels(labels: Tensor, palette: Palette) -> Tensor:
    """A label map, integer (H, W), in the colours of its classes; void where it has none."""
    return full_palette(palette)[labels.long().cpu()].permute(2, 0, 1)


def colour_depths(depths: Tensor, farthest: float | None = None) -> Tensor:
    """A depth map, red near to blue far away; void where nothing was measured.

    Args:
        depths: metres, float (H, W), 0 where nothing was measured.
        farthest: depth of the bluest colour; that of the farthest point if None.
    """
    metres = depths.float().cpu()
    shares = metres / (farthest or metres.max().clamp(min=1e-6))
    colours = torch.from_numpy(
        matplotlib.colormaps["Spectral"](shares.numpy(), bytes=True)[..., :3]
    )
    colours[metres == 0] = torch.tensor(VOID, dtype=torch.uint8)
    return colours.permute(2, 0, 1)


def overlay(
    photograph: Tensor, labels: Tensor, palette: Palette, names: Sequence[str] = ()
) -> Tensor:
    """A photograph with half of the colours of its classes over it.

    Args:
        photograph: uint8 (3, H, W).
        labels: class ids, integer (H, W).
        palette: colours of the classes.
        names: names of the classes. Where the class is called background, the photograph stays as
            it is.
    """
    photograph, labels = photograph.cpu(), labels.cpu()
    colours = colour_labels(labels, palette)
    mixed = torch.lerp(photograph.float(), colours.float(), OPACITY).round().to(torch.uint8)
    plain = torch.tensor([label for label, name in enumerate(names) if is_background(name)])
    return torch.where(torch.isin(labels, plain), photograph, mixed)


def colours_of(
    labels: Tensor, palette: Palette, names: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    """The colours that :func:`overlay` lays over photographs, by the names of the classes.

    Args:
        labels: class ids, integer, of any shape; classes that do not occur are left out.
        palette: colours of the classes.
        names: names of the classes.
    """
    present = labels.unique().tolist()
    known = [label for label in present if label < len(names) and not is_background(names[label])]
    colours = {names[label]: palette[label] for label in known}
    return colours | ({"ignored": VOID} if max(present) >= len(names) else {})


def is_background(name: str) -> bool:
    """Whether a class is what is around all others, by its name, as tools for masks spell it."""
    return name.lower().strip("_") in ("background", "bg")


def side_by_side(panels: Sequence[Tensor]) -> Tensor:
    """Panels of one height, with white between them."""
    spaced = [pad(panel, (0, GUTTER), value=255) for panel in panels[:-1]]
    return torch.cat([*spaced, panels[-1]], dim=2)
