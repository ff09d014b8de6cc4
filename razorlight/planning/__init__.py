"""Planning: which codec each layer gets."""

from razorlight.planning.recipes import RECIPES, Recipe, find_recipe, paper

__all__ = ["RECIPES", "Recipe", "find_recipe", "paper"]
