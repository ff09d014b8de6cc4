"""Planning: how each layer stores."""

from razorlight.planning.recipes import (
    RECIPES,
    Recipe,
    RecipeSpec,
    balanced,
    checkpoint,
    compact,
    exact,
    find_recipe,
    paper,
    recipe_fields,
)

__all__ = [
    "RECIPES",
    "Recipe",
    "RecipeSpec",
    "balanced",
    "checkpoint",
    "compact",
    "exact",
    "find_recipe",
    "paper",
    "recipe_fields",
]
