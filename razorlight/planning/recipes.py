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
from razorlight.fields import as_number, check_types
from razorlight.planning.layer_plan import CHEAP, LayerPlan
from razorlight.planning.roles import Role


@dataclass(frozen=True)
class Recipe:
    """How each kind of layer stores: a codec for each role, and whether records are shared.

    Attributes:
        norm: codec for the inputs of norms of tokens: LayerNorm, RMSNorm.
        channel_norm: codec for the inputs of norms of maps: BatchNorm, GroupNorm.
        product: codec for the inputs of products with a weight.
        operands: codec for queries, keys and values, and other operands of products of activations.
        smooth_activation: codec for the inputs of curved activations.
        rectifier: codec for rectifiers: a mask for the gate, or a codec for the output.
        mask: codec for the gates of dropout, and for places in windows.
        shares: Whether all layers that need a value share one record, from which other values are
            derived too. If not, each layer stores its own input.
        max_rerun_cost: the most multiply-adds for an entry with which the product that follows a
            stored value runs again in backward, so that its output need not be stored.
        block: codec for the inputs of blocks, which then run again in backward. With None, no block
            runs again.

    Raises:
        RazorError: for a codec that cannot store the values of its role.

    Example:
        >>> from razorlight import Recipe, Uniform
        >>> four = Uniform(4, axis=-2)
        >>> recipe = Recipe(four, four, four, four, four)
    """

    norm: Codec
    channel_norm: Codec
    product: Codec
    operands: Codec
    smooth_activation: Codec
    rectifier: Mask | Uniform = field(default_factory=Mask)
    mask: Mask = field(default_factory=Mask)
    shares: bool = True
    max_rerun_cost: float = 0
    block: Codec | None = None

    def __post_init__(self) -> None:
        for role, codec in self._codecs().items():
            if codec is not None and not (isinstance(codec, Codec) and role.accepts(codec)):
                raise RazorError(f"recipe: {role.value} cannot be stored by {codec!r}")

    def layer_plan(self, role: Role) -> LayerPlan:
        """How a layer of ``role`` stores."""
        codec = self._derived_codec(role) or self._codecs().get(role) or Dense()
        return LayerPlan(codec, self.shares, self.max_rerun_cost, role is Role.LOSS)

    def _codecs(self) -> dict[Role, Codec | None]:
        """The codec of each role that has a field. Another role needs none, or a derived one."""
        return {
            Role.NORM: self.norm,
            Role.CHANNEL_NORM: self.channel_norm,
            Role.PRODUCT: self.product,
            Role.OPERANDS: self.operands,
            Role.SMOOTH_ACTIVATION: self.smooth_activation,
            Role.RECTIFIER: self.rectifier,
            Role.MASK: self.mask,
            Role.BLOCK: self.block,
        }

    def _derived_codec(self, role: Role) -> Codec | None:
        """The codec of a curved activation for which ``smooth_activation`` will not do; or None.

        A preserved sign takes one bit, so the codec has six bits or more. A bounded activation has
        no scale of tokens: 0 and 1, where the slope of a sigmoid is 0, are then levels.
        """
        if role not in (Role.KINKED_ACTIVATION, Role.BOUNDED_ACTIVATION):
            return None
        values = self.smooth_activation.of_values()
        if isinstance(values, Uniform):
            scaled = role is Role.KINKED_ACTIVATION
            return Uniform(max(6, values.bits), axis=-2, token_scale=scaled)
        return values


def paper(
    sparsity: float | None = None, values: Literal["fp32", "fp16", "bf16"] = "fp16"
) -> Recipe:
    """Back Razor as published (Jiang et al., NeurIPS 2022, section 3), with an exact count.

    Operands of products and inputs of norms are pruned by magnitude in each sample. Inputs of
    curved activations are stored whole. Each layer stores its own input.

    Args:
        sparsity: share of the entries that is pruned, in [0, 1); 0.9 by default.
        values: precision of the stored entries.
    """
    pruned = TopK(0.9 if sparsity is None else sparsity, "sample", values)
    return Recipe(pruned, pruned, pruned, pruned, smooth_activation=Dense(values), shares=False)


def exact(sparsity: float | None = None) -> Recipe:
    """Lose nothing but rounding: each value that a gradient needs is stored once, or derived.

    A narrow product runs again, as in :func:`balanced`.

    Args:
        sparsity: None; this recipe prunes nothing.

    Raises:
        RazorError: for any ``sparsity``.
    """
    _refuse(sparsity)
    return Recipe(Dense(), Dense(), Dense(), Dense(), Dense(), max_rerun_cost=CHEAP)


def checkpoint(sparsity: float | None = None) -> Recipe:
    """Activation checkpointing, with the inputs of blocks stored in 11 bits.

    Layers outside of blocks store in 11 bits too.

    Args:
        sparsity: None; this recipe prunes nothing.

    Raises:
        RazorError: for any ``sparsity``.
    """
    _refuse(sparsity)
    fine = replace(_tokens(11), companded=True)
    return Recipe(fine, fine, fine, fine, fine, rectifier=fine, block=fine)


def _refuse(sparsity: float | None) -> None:
    if sparsity is not None:
        raise RazorError("recipes exact and checkpoint prune nothing: give no sparsity, or another")


def balanced(sparsity: float | None = None) -> Recipe:
    """Store low-bit records. Nothing costlier than an attention or a narrow product runs again.

    Args:
        sparsity: share of the entries that is pruned, in [0, 1), in values that only the gradient
            of a weight reads: the inputs of products that have no record from a norm or an
            activation. None prunes nothing.
    """
    return Recipe(
        norm=Uniform(4, axis=-2),
        channel_norm=Uniform(4, 64, axis=-2),
        product=_product(_tokens(8), sparsity),
        operands=_tokens(5),
        smooth_activation=_tokens(4),
        rectifier=_tokens(3),
        max_rerun_cost=CHEAP,
    )


def compact(sparsity: float | None = None, bits: int = 5) -> Recipe:
    """Store the inputs of norms, and run the products that follow again in backward.

    Args:
        sparsity: share of the entries that is pruned, as in :func:`balanced`.
        bits: bits of the records of tokens, from which the other values are derived.
    """
    return Recipe(
        norm=Uniform(bits, axis=-2),
        channel_norm=Uniform(4, 64, axis=-2),
        # eight bits: the small maps between blocks, from which the large maps are derived
        product=_product(_tokens(8), sparsity),
        operands=_tokens(bits),
        smooth_activation=_tokens(4),
        rectifier=_tokens(3, 64),
        max_rerun_cost=math.inf,
    )


def _tokens(bits: int, group: int = 256) -> Uniform:
    """The codec of a value whose tokens differ in scale, because no norm precedes the value."""
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
"""The ways to name a recipe; :func:`find_recipe` says what each means."""


def find_recipe(spec: RecipeSpec, sparsity: float | None = None) -> Recipe:
    """Find or make the recipe that ``spec`` describes.

    Args:
        spec: the name of one of :data:`RECIPES`; a mapping with such a name, and the arguments of
            that recipe or fields of :class:`Recipe` that differ; a mapping of all fields without a
            name; or a recipe. Codecs in a mapping are given as in
            :func:`razorlight.codecs.parse_codec`.
        sparsity: the argument ``sparsity`` of the recipe; None leaves it to ``spec``.

    Raises:
        RazorError: for another type, an unknown or missing name, argument or field, a sparsity
            outside [0, 1), or a sparsity beside a recipe that is given as an object.

    Example:
        >>> find_recipe({"name": "compact", "bits": 4}).norm
        Uniform(bits=4, group=256, axis=-2, ...)
        >>> find_recipe({"name": "balanced", "mask": "mask"}) == find_recipe("balanced")
        True
    """
    if not isinstance(spec, str | Mapping | Recipe):
        raise RazorError(
            "a recipe is a name, a mapping like {name: compact, bits: 4}, or a Recipe; got "
            f"{spec!r}"
        )
    if isinstance(spec, Recipe):
        if sparsity is not None:
            raise RazorError("sparsity is an argument of a named recipe: a Recipe has its codecs")
        return spec
    chosen: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    if sparsity is not None:
        chosen["sparsity"] = sparsity
    share = chosen.get("sparsity")
    if not (share is None or (type(share) in (int, float) and 0 <= share < 1)):
        raise RazorError(f"sparsity must be in [0, 1), the share that is pruned; got {share!r}")
    name = chosen.pop("name", None)
    known = [field.name for field in fields(Recipe)]
    if name is None:
        return _without_name(chosen, known)
    if not isinstance(name, str) or name not in RECIPES:
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
    """The value of a recipe's field, from what YAML gives for it."""
    if name in ("shares", "max_rerun_cost"):
        value = as_number(value)
        check_types(Recipe, {name: value}, "recipe: ")
        return value
    return None if value is None and name == "block" else parse_codec(value)


def recipe_fields(spec: RecipeSpec) -> str | dict[str, Any]:
    """``spec`` in plain values, from which :func:`find_recipe` makes the same recipe again."""
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
