"""Amounts of memory, as people write them."""

import re

from razorlight.errors import RazorError

_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_bytes(text: str) -> int:
    """The bytes of an amount such as ``8GiB``, ``500 MB`` or ``1.5g``; units are powers of 1024.

    Args:
        text: the amount.

    Raises:
        RazorError: for anything else.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt])(?:i?b)?\s*", text.lower())
    if not match or float(match[1]) <= 0:
        raise RazorError(f"{text!r} is no amount of memory; give one such as 8GiB or 500MiB")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_budget(given: str | float) -> int | float:
    """A budget of memory, in bytes or as a share of what the dense step takes.

    Args:
        given: an amount with its unit, or a share in (0, 1).

    Raises:
        RazorError: for anything else.
    """
    if isinstance(given, str) and not given.replace(".", "", 1).isdigit():
        return parse_bytes(given)
    share = float(given)
    if not 0 < share < 1:
        raise RazorError(
            f"memory_budget is {given!r}; give an amount such as 6GiB, or a share of the dense "
            "step's peak, such as 0.25"
        )
    return share
