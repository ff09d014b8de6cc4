"""How a plan is made: what each layer of a network becomes, or why the layer stays dense."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from razorlight._torch import NORMS, PRODUCTS, is_dtensor, is_traceable_wrapper_subclass
from razorlight.codecs import Codec, Dense, Mask, parse_codec
from razorlight.conversion.plan import Line, Plan
from razorlight.errors import RazorError
from razorlight.functional.sizes import each
from razorlight.layers import (
    REGISTRY,
    Known,
    RazorBlock,
    RazorModule,
    find_blocks,
    find_known,
)
from razorlight.patterns import check_patterns, matches, matches_any
from razorlight.planning import LayerPlan, Recipe, RecipeSpec, Role, find_recipe

_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)

_Layers = Mapping[str, Known]


def make_plan(
    model: nn.Module,
    recipe: RecipeSpec = "balanced",
    sparsity: float | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide what each layer of ``model`` becomes. The model is not changed.

    Arguments and errors are those of :func:`razorlight.razor_`.
    """
    chosen = find_recipe(recipe, sparsity)
    known = known_layers(model, blocks=find_blocks(model) if chosen.block else set())
    for what, patterns in (("include", include), ("exclude", exclude), ("overrides", overrides)):
        check_patterns(patterns or (), [*known], what)
    codecs = {glob: parse_codec(spec) for glob, spec in (overrides or {}).items()}

    ends = _ends(model) if include is None else _Ends()
    skipped = _reasons_to_skip(model, known, chosen, ends, include, exclude)
    frozen = _gates_of_frozen_products(model, known)
    stored = {
        name: _layer_plan(name, layer, chosen, ends, frozen, codecs)
        for name, layer in known.items()
        if name not in skipped
    }
    _check_overrides(codecs, stored)
    plan = Plan(tuple(_describe(model, known, stored, skipped)))
    if not stored:
        raise RazorError(
            f"nothing to convert in {type(model).__name__}: {plan.reasons()}; name layers "
            "with include=[...], register their classes with razorlight.layers.register, or train "
            "without the razor"
        )
    return plan


def known_layers(model: nn.Module, blocks: Set[str]) -> dict[str, Known]:
    """The registry entry of each layer that can be converted, by name, in the model's order.

    Args:
        model: the network.
        blocks: names of the modules that are taken as blocks, registered or not.
    """
    found = {}
    for name, layer in model.named_modules():
        known = find_known(dense_class_of(layer))
        if known and name not in blocks:
            found[name] = known
    return found | dict.fromkeys(blocks, RazorBlock.known)


def dense_class_of(layer: nn.Module) -> type[nn.Module]:
    """The class of ``layer``, or its dense class if it is converted."""
    if isinstance(layer, RazorModule) and not is_parametrized(layer):
        return layer.dense_class
    return type(layer)


def _layer_plan(
    name: str,
    known: Known,
    recipe: Recipe,
    ends: "_Ends",
    gates_of_frozen_products: Set[str],
    overrides: Mapping[str, Codec],
) -> LayerPlan:
    plan = recipe.layer_plan(known.role)
    if name == ends.head:  # its input is small, and every gradient passes through it
        plan = replace(plan, codec=Dense())
    if name in gates_of_frozen_products:  # no other layer needs its output
        plan = replace(plan, codec=Mask())
    for glob, codec in overrides.items():
        if matches(name, glob) and known.role.accepts(codec):
            plan = replace(plan, codec=codec)
    return replace(plan, codec=known.role.fit(plan.codec))


def _gates_of_frozen_products(model: nn.Module, known: _Layers) -> set[str]:
    """The rectifiers whose next product, in the order of the modules, is frozen or missing."""
    gates, trained = set(), False
    for name, layer in reversed([*known.items()]):
        if layer.role is Role.PRODUCT:
            weights = model.get_submodule(name).parameters(recurse=False)
            trained = any(p.requires_grad for p in weights)
        elif layer.role is Role.RECTIFIER and not trained:
            gates.add(name)
    return gates


def _check_overrides(overrides: Mapping[str, Codec], plan: Mapping[str, LayerPlan]) -> None:
    for glob, codec in overrides.items():
        chosen = {layer.codec for name, layer in plan.items() if matches(name, glob)}
        if chosen.isdisjoint(role.fit(codec) for role in Role):
            raise RazorError(
                f"overrides: no layer that {glob!r} matches can store by {codec}: each of them "
                "stays dense, stores bits, or is an activation or block, which is never pruned"
            )


def unsafe_layers(model: nn.Module, known: _Layers) -> dict[str, str]:
    """The reason for each known layer that no recipe may convert, by name."""
    reasons = {}
    for name, of_class in known.items():
        layer = model.get_submodule(name)
        for child in of_class.uses_weights_of:
            reasons[f"{name}.{child}".lstrip(".")] = f"its weights are used by {name or 'the root'}"
        if isinstance(layer, _MAX_POOLS) and (reason := _why_not_pool(layer)):
            reasons[name] = reason
        elif of_class.equivalent is not None and "forward" in vars(layer):
            reasons[name] = "its forward was set on the instance, and may be another function"
        elif kind := _kind_of_weights(layer, of_class.uses_weights_of):
            reasons[name] = f"its weights are of {kind}"
    return reasons


def _reasons_to_skip(
    model: nn.Module,
    known: _Layers,
    recipe: Recipe,
    ends: "_Ends",
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
) -> dict[str, str]:
    """The reason for each known layer that stays dense, by name."""
    reasons = {ends.first: "first layer: its input is the batch"} if ends.first else {}
    if not recipe.shares:  # as published
        reasons |= {ends.head: "head"} if ends.head else {}
        reasons |= dict.fromkeys(ends.norms, "norm before the head")
    reasons |= unsafe_layers(model, known)
    for name, of_class in known.items():
        if include is not None and not matches_any(name, include):
            reasons[name] = "not included"
        elif matches_any(name, exclude or ()):
            reasons[name] = "excluded"
        elif of_class.is_view and not recipe.shares:
            reasons[name] = "this recipe shares no records"
    blocks = {n for n, c in known.items() if c.role is Role.BLOCK and n not in reasons}
    for name in known:
        if not blocks.isdisjoint(parents_of(name)):
            reasons.setdefault(name, "inside a block that runs again")
    return reasons


def parents_of(name: str) -> list[str]:
    """The names of the modules that hold the one of this name, but for the root."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _why_not_pool(pool: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) -> str | None:
    if pool.return_indices:
        return "its caller wants the int64 indices"
    rank = next(rank for rank, kind in enumerate(_MAX_POOLS, 1) if isinstance(pool, kind))
    window = math.prod(each(pool.kernel_size, rank))
    return "a window of more than 256 entries" if window > 256 else None


def _kind_of_weights(layer: nn.Module, children: Set[str]) -> str | None:
    """The class of weights that are no plain tensors, such as quantised ones; None if all are."""
    for part in (layer, *(layer.get_submodule(child) for child in children)):
        for weight in part.parameters(recurse=False):
            # in place of a DTensor, FSDP gives the layer a plain tensor while it runs
            if is_traceable_wrapper_subclass(weight) and not is_dtensor(weight):
                return type(weight).__name__
    return None


class _Ends(NamedTuple):
    """The ends of a network.

    Attributes:
        first: the name of the product that reads the batch.
        head: the name of the Linear at the end.
        norms: the names of the LayerNorms directly before the head.
    """

    first: str | None = None
    head: str | None = None
    norms: tuple[str, ...] = ()


def _ends(model: nn.Module) -> _Ends:
    # an Embedding reads the batch too, but stores no value
    ends = (*PRODUCTS, *NORMS, nn.Embedding)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, ends)]
    if not layers:
        return _Ends()
    first, layer = layers[0]
    known = find_known(dense_class_of(layer))
    if not isinstance(layer, PRODUCTS) or (known and known.pads_input):
        first = None  # this layer does not read the batch itself
    head, last = layers.pop()
    if not isinstance(last, nn.Linear):
        return _Ends(first)
    norms = []
    while layers and isinstance(layers[-1][1], nn.LayerNorm):
        norms.append(layers.pop()[0])
    return _Ends(first, head, tuple(norms))


def _describe(
    model: nn.Module,
    known: _Layers,
    plans: Mapping[str, LayerPlan],
    skipped: Mapping[str, str],
) -> Iterator[Line]:
    # A subclass of Embedding that stays dense costs nothing: torch keeps only the indices.
    relatives = (*(REGISTRY.keys() - {nn.Embedding}), *PRODUCTS, *NORMS)
    for name, layer in model.named_modules():
        dense = dense_class_of(layer)
        if plan := plans.get(name):
            is_block = known[name].role is Role.BLOCK
            detail = how_it_stores(known[name], plan)
            yield Line(name, dense.__name__, "converted", detail, plan, is_block)
        elif name in skipped:
            yield Line(name, dense.__name__, "skipped", skipped[name])
        elif isinstance(layer, nn.RNNBase):
            yield Line(name, dense.__name__, "near miss", "torch's kernel keeps what it needs")
        elif isinstance(layer, relatives):
            relative = next(known for known in dense.__mro__[1:] if known in relatives)
            reason = f"a {relative.__name__} of a class that is not registered"
            if isinstance(layer, LazyModuleMixin):
                reason = "it has no weights yet: run a batch through the network first"
            if dense is nn.SyncBatchNorm:
                reason = "its statistics are of all processes; sync_batchnorm=False converts it"
            yield Line(name, dense.__name__, "near miss", reason)


def how_it_stores(known: Known, plan: LayerPlan) -> str:
    """How the layer stores, in the words of the report."""
    if known.role is not Role.VIEW:
        return str(plan)
    return "carries records on" if known.is_view else "nothing"
