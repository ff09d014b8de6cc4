"""Weights under which rare classes count as much as common ones."""

from collections.abc import Sequence


def balancing_weights(counts: Sequence[int]) -> list[float]:
    """Weights that are inverse to the shares of the classes.

    Each class then has the same part in a weighted loss. The weight of the average sample is 1, as
    in the ``balanced`` weights of scikit-learn.

    Args:
        counts: images or pixels of each class.

    Returns:
        A weight for each class; 1 for a class that does not occur.

    Example:
        >>> balancing_weights([30, 10, 0])
        [0.6666666666666666, 2.0, 1.0]
    """
    present = sum(count > 0 for count in counts)
    return [sum(counts) / (present * count) if count else 1.0 for count in counts]


def positive_weights(shares: Sequence[float]) -> list[float]:
    """Weights of the images that have a class, under which they count as much as all others.

    Args:
        shares: the share of the images that have each class.

    Returns:
        A weight for each class, the images without it for each image with it; 1 for a class that
        no image has, or that all have.

    Example:
        >>> positive_weights([0.25, 0.5, 0.0])
        [3.0, 1.0, 1.0]
    """
    return [(1 - share) / share if 0 < share < 1 else 1.0 for share in shares]
