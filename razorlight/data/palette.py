"""Colours of labels."""


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


def _spread(label: int, channel: int) -> int:
    """Bits ``channel``, ``channel + 3``, ... of ``label``, laid from the highest bit down."""
    return sum((label >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
