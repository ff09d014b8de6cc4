"""What to do when memory does not suffice."""

import torch

_STORES_LESS = {
    "paper": "balanced",
    "exact": "balanced",
    "balanced": "compact",
    "compact": "checkpoint",
}
"""By recipe, the next that stores less."""


def is_shortage(error: BaseException) -> bool:
    """Whether ``error`` is torch's, of a CUDA device or of the CPU, that memory is used up."""
    on_cpu = "DefaultCPUAllocator: can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError) or on_cpu


def way_out(recipe: str | None) -> str:
    """What to try, in one line, where a run found too little memory.

    Args:
        recipe: the name of the run's; None without one.
    """
    if recipe is None:
        return "train by a recipe (callback BackRazor), or take a smaller batch"
    less = _STORES_LESS.get(recipe)
    recipes = f"in place of {recipe} take recipe {less}, or " if less else ""
    return f"{recipes}take a smaller batch"
