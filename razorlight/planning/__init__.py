"""Planning: the roles of layers, the layer plan of one layer, and recipes that give layer plans."""

from razorlight.planning.layer_plan import CHEAP, LayerPlan
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
from razorlight.planning.roles import Role

__all__ = [
    "CHEAP",
    "RECIPES",
    "LayerPlan",
    "Recipe",
    "RecipeSpec",
    "Role",
    "balanced",
    "checkpoint",
    "compact",
    "exact",
    "find_recipe",
    "paper",
    "recipe_fields",
]
