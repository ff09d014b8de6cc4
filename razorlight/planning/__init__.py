"""Planning: how each layer stores."""

from razorlight.planning.recipes import (
    RECIPES,
    Recipe,
    balanced,
    checkpoint,
    compact,
    exact,
    find_recipe,
    paper,
)

__all__ = [
    "RECIPES",
    "Recipe",
    "balanced",
    "checkpoint",
    "compact",
    "exact",
    "find_recipe",
    "paper",
]
