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
from razorlight.planning.layer_plan import CHEAP, LayerPlan
from razorlight.planning.roles import Role


@dataclass(frozen=True)
class Recipe:
    """How each kind of layer stores: a codec by its role, and what layers do for each other.

    Attributes:
        norm: for the inputs of norms of tokens: LayerNorm, RMSNorm.
        channel_norm: for the inputs of norms of maps: BatchNorm, GroupNorm.
        product: for the inputs of products with a weight.
        operands: for queries, keys and values, and other factors of products of activations.
        smooth_activation: for the inputs of curved activations.
        rectifier: for rectifiers: a mask, or a codec for the output that shows what passed.
        mask: for dropout and places in windows.
        shares: Whether there is one record for each value, which is read and derived from by all
            who need it. If not, each layer stores its own input.
        max_rerun_cost: multiply-adds for an entry up to which the product that follows a stored
            value is run again in backward, so that its output need not be stored.
        block: for the inputs of blocks, which then run again in backward; None: no block does.

    Raises:
        RazorError: for a codec that cannot store what it is chosen for.

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
        """The codecs that are chosen; a layer of another role needs none, or a derived one."""
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
        """The codec of a curved activation that the codec for GELU's inputs does not serve.

        Where signs are preserved they take one bit, so that six are the least. Without the scale of
        tokens 0 and 1, where a sigmoid's slope is 0, are levels.
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

    Operands of products and inputs of norms are pruned by magnitude in each sample; inputs of
    curved activations are kept whole. Each layer stores for itself.

    Args:
        sparsity: share pruned, in [0, 1); 0.9 by default.
        values: precision of what is kept.
    """
    pruned = TopK(0.9 if sparsity is None else sparsity, "sample", values)
    return Recipe(pruned, pruned, pruned, pruned, smooth_activation=Dense(values), shares=False)


def exact(sparsity: float | None = None) -> Recipe:
    """Nothing is lost but rounding: what a gradient needs is stored once, or derived.

    A narrow product is run again, as in :func:`balanced`.

    Raises:
        RazorError: for a ``sparsity``.
    """
    _refuse(sparsity)
    return Recipe(Dense(), Dense(), Dense(), Dense(), Dense(), max_rerun_cost=CHEAP)


def checkpoint(sparsity: float | None = None) -> Recipe:
    """Activation checkpointing in 11 bits: of the inputs of blocks, and of all outside of blocks.

    Raises:
        RazorError: for a ``sparsity``.
    """
    _refuse(sparsity)
    fine = replace(_tokens(11), companded=True)
    return Recipe(fine, fine, fine, fine, fine, rectifier=fine, block=fine)


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
        channel_norm=Uniform(4, 64, axis=-2),
        product=_product(_tokens(8), sparsity),
        operands=_tokens(5),
        smooth_activation=_tokens(4),
        rectifier=_tokens(3),
        max_rerun_cost=CHEAP,
    )


def compact(sparsity: float | None = None, bits: int = 5) -> Recipe:
    """Records of norms alone; the products behind them are run again in backward.

    Args:
        sparsity: as in :func:`balanced`.
        bits: of the records of tokens, from which all else follows.
    """
    return Recipe(
        norm=Uniform(bits, axis=-2),
        channel_norm=Uniform(4, 64, axis=-2),
        # small maps between blocks, of which large ones are made
        product=_product(_tokens(8), sparsity),
        operands=_tokens(bits),
        smooth_activation=_tokens(4),
        rectifier=_tokens(3, 64),
        max_rerun_cost=math.inf,
    )


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
        >>> find_recipe({"name": "balanced", "smooth_activation": {"codec": "uniform", "bits": 4}})
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
    if name == "max_rerun_cost" and isinstance(value, int | float | str):
        try:
            return float(value)  # a string: "inf"
        except ValueError:
            pass
    if name in ("shares", "max_rerun_cost"):
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
