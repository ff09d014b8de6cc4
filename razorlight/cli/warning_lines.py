"""Which warnings of a run are printed, and how."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def silence_others(command: str) -> None:
    """Leave out messages of Lightning and torch that a user of the command line cannot act on.

    Args:
        command: command that trains, such as ``fit``.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_banner)
    # Lightning's own use of torch; and frozen norms, which tasks leave in eval mode on purpose
    warnings.filterwarnings("ignore", message=".*LeafSpec|.*in eval mode at the start of training")
    # the loss of an epoch is logged however short it is
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval")
    if command != "fit":  # other commands write no checkpoint, in whatever folder
        warnings.filterwarnings("ignore", message="The dirpath has changed")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print razorlight's own warnings as a line, without the place in the code that makes them."""
    usual, own = warnings.formatwarning, Path(__file__).parents[1]

    def formatted(
        message: Any, category: Any, filename: str, lineno: int, line: str | None = None
    ) -> str:
        if Path(filename).is_relative_to(own):
            return f"warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _is_no_banner(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
