"""A shortage of memory: how to recognise it, and the way out that goes with the exception.

A callback knows the recipe of the run and the command line prints the error. What the one has to
say to the other travels as a note of the exception, so that a traceback shows it too.
"""

import torch

_STORES_LESS = {
    "paper": "balanced",
    "exact": "balanced",
    "balanced": "compact",
    "compact": "checkpoint",
}
"""By recipe, the next that stores less."""

_SENDER = "BackRazor: "
"""The beginning of the notes that this module writes and reads."""


def is_shortage(error: BaseException) -> bool:
    """Whether torch raised ``error`` because a CUDA device or the CPU is out of memory."""
    on_cpu = "DefaultCPUAllocator: can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError) or on_cpu


def note_way_out(error: BaseException, recipe: str) -> None:
    """Add a note to a shortage of memory in a run that is trained by a recipe.

    Args:
        error: the shortage. Its traceback ends with the note.
        recipe: the name of the run's recipe.
    """
    less = _STORES_LESS.get(recipe)
    recipes = f"in place of {recipe} take recipe {less}, or " if less else ""
    # as add_note of Python 3.11 does
    notes = getattr(error, "__notes__", [])
    error.__notes__ = [*notes, f"{_SENDER}{recipes}take a smaller batch"]


def way_out(error: BaseException) -> str:
    """What to try after a shortage of memory, in one line.

    That is the note of :func:`note_way_out`; without one, the run was trained without a recipe.
    """
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith(_SENDER)]
    return notes[-1] if notes else "train by a recipe (callback BackRazor), or take a smaller batch"
