"""Recipes: named ways to choose how every layer stores."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from razorlight.codecs import (
    Codec,
    Dense,
    Mask,
    TopK,
    Uniform,
    codec_fields,
    parse_codec,
)
from razorlight.errors import RazorError
from razorlight.layers import Role
from razorlight.sharing import CHEAP, Storage


@dataclass(frozen=True)
class Recipe:
    """How each kind of layer stores: a codec by its role, and what the layers do for each other.

    Attributes:
        norm: for the inputs of norms of tokens: LayerNorm.
        map_norm: for the inputs of norms of maps: BatchNorm, GroupNorm.
        product: for the inputs of products with a weight.
        attention: for queries, keys and values.
        slope: for the inputs of curved activations.
        gate: for rectifiers: a mask, or a codec for the output that shows what passed.
        bits: for dropout and positions.
        shares: one record for each value, read and derived from by all who need it; else each
            layer stores its own input.
        reruns: multiply-adds for an entry up to which the product that follows a stored value is
            run again in backward, instead of storing what it gives.
        block: for the inputs of blocks, which then run again in backward; None: no block does.

    Raises:
        RazorError: for a codec that cannot store what it is chosen for.
    """

    norm: Codec
    map_norm: Codec
    product: Codec
    attention: Codec
    slope: Codec
    gate: Mask | Uniform = field(default_factory=Mask)
    bits: Mask = field(default_factory=Mask)
    shares: bool = True
    reruns: float = 0
    block: Codec | None = None

    def __post_init__(self) -> None:
        for role in Role:
            codec = getattr(self, role.value, None)
            if codec is not None and not (isinstance(codec, Codec) and role.accepts(codec)):
                raise RazorError(f"recipe: {role.value} cannot be stored by {codec!r}")

    @property
    def kink(self) -> Codec:
        """For the inputs of ELU and its like: six bits at least, for signs take one of them."""
        return _values(self.slope, token_scale=True)

    @property
    def bounded(self) -> Codec:
        """For the outputs of sigmoid and tanh: 0 and 1, where the slope is 0, are levels."""
        return _values(self.slope, token_scale=False)

    def storage(self, role: Role) -> Storage:
        """How a layer of ``role`` stores."""
        codec: Codec = getattr(self, role.value, Dense())
        return Storage(codec, self.shares, self.reruns, through=role is Role.LOSS)


def paper(
    sparsity: float | None = None, values: Literal["fp32", "fp16", "bf16"] = "fp16"
) -> Recipe:
    """Back Razor as published (Jiang et al., NeurIPS 2022, section 3), with an exact count.

    Operands of products and inputs of norms are pruned by magnitude in each sample; inputs of
    curved activations are kept whole. Each layer stores for itself.

    Args:
        sparsity: share pruned, in [0, 1); 0.9 by default.
        values: precision of what is kept.
    """
    pruned = TopK(0.9 if sparsity is None else sparsity, "sample", values)
    return Recipe(pruned, pruned, pruned, pruned, slope=Dense(values), shares=False)


def exact(sparsity: float | None = None) -> Recipe:
    """Nothing is lost but rounding: what a gradient needs is stored once, or derived.

    A narrow product is run again, as in :func:`balanced`.

    Raises:
        RazorError: for a ``sparsity``.
    """
    _refuse(sparsity)
    return Recipe(Dense(), Dense(), Dense(), Dense(), Dense(), reruns=CHEAP)


def checkpoint(sparsity: float | None = None) -> Recipe:
    """Activation checkpointing in 11 bits: of the inputs of blocks, and of all outside of blocks.

    Raises:
        RazorError: for a ``sparsity``.
    """
    _refuse(sparsity)
    fine = replace(_tokens(11), companded=True)
    return Recipe(fine, fine, fine, fine, fine, gate=fine, block=fine)


def _refuse(sparsity: float | None) -> None:
    if sparsity is not None:
        raise RazorError("recipes exact and checkpoint prune nothing: give no sparsity, or another")


def balanced(sparsity: float | None = None) -> Recipe:
    """Low-bit records; nothing heavier than an attention or a narrow product is run again.

    Args:
        sparsity: share pruned, in [0, 1), of what only the gradient of a weight reads: the inputs
            of products that have no record from a norm or an activation. None prunes nothing.
    """
    return Recipe(
        norm=Uniform(4, axis=-2),
        map_norm=Uniform(4, 64, axis=-2),
        product=_product(_tokens(8), sparsity),
        attention=_tokens(5),
        slope=_tokens(4),
        gate=_tokens(3),
        reruns=CHEAP,
    )


def compact(sparsity: float | None = None, bits: int = 5) -> Recipe:
    """Records of norms alone; the products behind them are run again in backward.

    Args:
        sparsity: as in :func:`balanced`.
        bits: of the records of tokens, from which all else follows.
    """
    return Recipe(
        norm=Uniform(bits, axis=-2),
        map_norm=Uniform(4, 64, axis=-2),
        # small maps between blocks, of which large ones are made
        product=_product(_tokens(8), sparsity),
        attention=_tokens(bits),
        slope=_tokens(4),
        gate=_tokens(3, 64),
        reruns=math.inf,
    )


def _values(slope: Codec, token_scale: bool) -> Codec:
    """The codec of a curved activation that ``slope``, made for GELU's inputs, does not serve."""
    values = slope.of_values()
    if isinstance(values, Uniform):
        return Uniform(max(6, values.bits), axis=-2, token_scale=token_scale)
    return values


def _tokens(bits: int, group: int = 256) -> Uniform:
    """The codec of a value that no norm has brought to one scale: tokens have their own."""
    return Uniform(bits, group, axis=-2, token_scale=True)


def _product(codec: Codec, sparsity: float | None) -> Codec:
    return codec if sparsity is None else TopK(sparsity, "block", "int8")


RECIPES: Mapping[str, Callable[..., Recipe]] = {
    "balanced": balanced,
    "checkpoint": checkpoint,
    "compact": compact,
    "exact": exact,
    "paper": paper,
}

RecipeSpec = str | Mapping[str, Any] | Recipe
"""A recipe as it is chosen: see :func:`find_recipe`."""


def find_recipe(spec: RecipeSpec, sparsity: float | None = None) -> Recipe:
    """The recipe that is meant.

    Args:
        spec: the name of one of :data:`RECIPES`; a mapping of its name and what is to be otherwise,
            its arguments or fields of :class:`Recipe`, with codecs as in
            :func:`razorlight.codecs.parse_codec`; a mapping of all fields without a name; or a
            recipe.
        sparsity: the argument of that name; None for what the recipe itself says.

    Raises:
        RazorError: for an unknown name, argument or field, one that is missing, or a sparsity
            outside [0, 1), also where the recipe prunes nothing.

    Example:
        >>> find_recipe({"name": "compact", "bits": 4})
        >>> find_recipe({"name": "balanced", "slope": {"codec": "uniform", "bits": 4}})
    """
    if isinstance(spec, Recipe):
        return spec
    chosen: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    if sparsity is not None:
        chosen["sparsity"] = sparsity
    share = chosen.get("sparsity")
    if not (share is None or (isinstance(share, int | float) and 0 <= share < 1)):
        raise RazorError(f"sparsity must be in [0, 1), the share that is pruned; got {share}")
    name = chosen.pop("name", None)
    known = [field.name for field in fields(Recipe)]
    if name is None:
        return _without_name(chosen, known)
    if name not in RECIPES:
        near = get_close_matches(str(name), RECIPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RazorError(f"unknown recipe {name!r}, choose from: {', '.join(RECIPES)}{hint}")
    arguments = [*inspect.signature(RECIPES[name]).parameters]
    _check_names(name, chosen, [*arguments, *known])
    recipe = RECIPES[name](**{key: chosen.pop(key) for key in arguments if key in chosen})
    return replace(recipe, **{key: _field(key, value) for key, value in chosen.items()})


def _without_name(chosen: Mapping[str, Any], known: list[str]) -> Recipe:
    _check_names("without a name", chosen, known)
    try:
        return Recipe(**{key: _field(key, value) for key, value in chosen.items()})
    except TypeError as error:
        raise RazorError(
            f"recipe: {error}; give these too, or a name, as in {{name: compact, bits: 4}}"
        ) from None


def _check_names(recipe: str, chosen: Mapping[str, Any], known: list[str]) -> None:
    for key in chosen:
        if key not in known:
            raise RazorError(f"recipe {recipe} has no {key!r}, only {', '.join(known)}")


def _field(name: str, value: Any) -> Any:
    """A field of a recipe as YAML gives it, as the recipe holds it."""
    if name == "shares" and isinstance(value, bool):
        return value
    if name == "reruns" and isinstance(value, int | float | str):
        try:
            return float(value)  # a string: "inf"
        except ValueError:
            pass
    if name in ("shares", "reruns"):
        kind = "true or false" if name == "shares" else "a number"
        raise RazorError(f"recipe: {name} must be {kind}, got {value!r}")
    return None if value is None and name == "block" else parse_codec(value)


def recipe_fields(spec: RecipeSpec) -> str | dict[str, Any]:
    """``spec`` in plain values, from which :func:`find_recipe` makes the same again."""
    if isinstance(spec, str):
        return spec
    if isinstance(spec, Recipe):
        spec = {field.name: getattr(spec, field.name) for field in fields(Recipe)}
    return {
        name: codec_fields(value) if isinstance(value, Codec) else _plain(value)
        for name, value in spec.items()
    }


def _plain(value: Any) -> Any:
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value
