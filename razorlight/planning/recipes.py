"""Recipes: named ways to choose how every layer stores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from razorlight.codecs import Codec, Dense, Mask, TopK
from razorlight.errors import RazorError
from razorlight.layers import Role


@dataclass(frozen=True)
class Recipe:
    """The codec of each role: what a layer stores follows from what it reads in backward.

    Attributes:
        value: for operands of products and norms.
        slope: for the inputs of curved activations.
        bits: for gates and positions.
    """

    value: Codec
    slope: Codec
    bits: Mask = field(default_factory=Mask)

    def codec(self, role: Role) -> Codec:
        """The codec for a layer of ``role``."""
        return {Role.VALUE: self.value, Role.SLOPE: self.slope, Role.BITS: self.bits}[role]


def paper(sparsity: float = 0.9, values: Literal["fp32", "fp16", "bf16"] = "fp16") -> Recipe:
    """Back Razor as published (Jiang et al., NeurIPS 2022, section 3), with an exact count.

    Operands of products and inputs of norms are pruned by magnitude in each sample; inputs of
    curved activations are kept whole.

    Args:
        sparsity: share pruned, in [0, 1).
        values: precision of what is kept.
    """
    return Recipe(value=TopK(sparsity, "sample", values), slope=Dense(values))


RECIPES: Mapping[str, Callable[[float], Recipe]] = {"paper": paper}


def find_recipe(name: str | Recipe, sparsity: float) -> Recipe:
    """The recipe of that name at that sparsity; a :class:`Recipe` is taken as it is.

    Raises:
        RazorError: for an unknown name, or a sparsity outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise RazorError(f"sparsity must be in [0, 1), the share that is pruned; got {sparsity}")
    if isinstance(name, Recipe):
        return name
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RazorError(f"unknown recipe {name!r}, choose from: {', '.join(RECIPES)}{hint}")
    return RECIPES[name](sparsity)
