"""The plan of a conversion: what each layer of a network becomes, and why others stay dense."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import timm.layers
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from razorlight.codecs import Codec, Dense, Mask, parse_codec
from razorlight.errors import RazorError
from razorlight.functional.sizes import each
from razorlight.layers import (
    PRODUCTS,
    REGISTRY,
    RazorLayer,
    Role,
    block_class,
    find_blocks,
    find_razor_class,
)
from razorlight.patterns import check_patterns, matches, matches_any
from razorlight.planning.recipes import Recipe, RecipeSpec, find_recipe
from razorlight.report import Line, Report
from razorlight.sharing import Storage

_PADDING = (timm.layers.Conv2dSame, timm.layers.StdConv2dSame, timm.layers.ScaledStdConv2dSame)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)

_Known = dict[str, type[RazorLayer]]


@dataclass(frozen=True)
class Plan:
    """What each layer of a network becomes.

    Attributes:
        layers: the class and the storage of each layer that is converted, by name.
        report: one line for each layer, converted or not.
    """

    layers: Mapping[str, tuple[type[RazorLayer], Storage]]
    report: Report


def make_plan(
    model: nn.Module,
    recipe: RecipeSpec = "balanced",
    sparsity: float | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide what each layer of ``model`` becomes; the model stays as it is.

    Arguments and errors are those of :func:`razorlight.razor_`.
    """
    chosen = find_recipe(recipe, sparsity)
    known = _known_layers(model, chosen)
    for what, patterns in (("include", include), ("exclude", exclude), ("overrides", overrides)):
        check_patterns(patterns or (), [*known], what)
    codecs = {glob: parse_codec(spec) for glob, spec in (overrides or {}).items()}

    ends = _ends(model) if include is None else _Ends()
    skipped = _reasons_to_skip(model, known, chosen, ends, include, exclude)
    frozen = _gates_of_frozen_products(model, known)
    stored = {
        name: _storage_for(name, razor_class, chosen, ends, frozen, codecs)
        for name, razor_class in known.items()
        if name not in skipped
    }
    _check_overrides(codecs, stored)
    report = Report(tuple(_describe(model, known, stored, skipped)))
    if not stored:
        raise RazorError(
            f"nothing to convert in {type(model).__name__}: {report.reasons()}; name layers "
            "with include=[...], or register their classes with razorlight.layers.register"
        )
    return Plan({name: (known[name], storage) for name, storage in stored.items()}, report)


def dense_class_of(layer: nn.Module) -> type[nn.Module]:
    """The class of ``layer``, or that which it had before it was converted."""
    if isinstance(layer, RazorLayer) and not is_parametrized(layer):
        return layer.dense_class
    return type(layer)


def _known_layers(model: nn.Module, recipe: Recipe) -> dict[str, type[RazorLayer]]:
    """What can be converted, by name, and the class that each would get."""
    known = {
        name: razor_class
        for name, layer in model.named_modules()
        if (razor_class := find_razor_class(dense_class_of(layer)))
    }
    blocks = find_blocks(model) if recipe.block else ()
    return known | {n: block_class(dense_class_of(model.get_submodule(n))) for n in blocks}


def _storage_for(
    name: str,
    layer: type[RazorLayer],
    recipe: Recipe,
    ends: "_Ends",
    gates_of_frozen_products: Set[str],
    overrides: Mapping[str, Codec],
) -> Storage:
    storage = recipe.storage(layer.role)
    if name == ends.head:  # its input is small, and every gradient passes through it
        storage = replace(storage, codec=Dense())
    if name in gates_of_frozen_products:  # no one else needs its output
        storage = replace(storage, codec=Mask())
    for glob, codec in overrides.items():
        if matches(name, glob) and layer.role.accepts(codec):
            storage = replace(storage, codec=codec)
    return replace(storage, codec=layer.role.fit(storage.codec))


def _gates_of_frozen_products(model: nn.Module, known: _Known) -> set[str]:
    """Gates after which comes a product, in the order of the modules, that is not trained."""
    gates, trained = set(), False
    for name, razor_class in reversed(known.items()):
        if razor_class.role is Role.PRODUCT:
            weights = model.get_submodule(name).parameters(recurse=False)
            trained = any(p.requires_grad for p in weights)
        elif razor_class.role is Role.GATE and not trained:
            gates.add(name)
    return gates


def _check_overrides(overrides: Mapping[str, Codec], plan: Mapping[str, Storage]) -> None:
    for glob, codec in overrides.items():
        chosen = {storage.codec for name, storage in plan.items() if matches(name, glob)}
        if chosen.isdisjoint(role.fit(codec) for role in Role):
            raise RazorError(
                f"overrides: no layer that {glob!r} matches can be stored by {codec}: they are "
                "left dense, keep bits, or are activations and blocks, which are never pruned"
            )


def _reasons_to_skip(
    model: nn.Module,
    known: _Known,
    recipe: Recipe,
    ends: "_Ends",
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
) -> dict[str, str]:
    """Known layers that stay dense, and why."""
    reasons = {ends.first: "first layer: its input is the batch"} if ends.first else {}
    if not recipe.shares:  # as published
        reasons |= {ends.head: "head"} if ends.head else {}
        reasons |= dict.fromkeys(ends.norms, "norm before the head")
    for name, razor_class in known.items():
        layer = model.get_submodule(name)
        for child in razor_class.runs:
            reasons[f"{name}.{child}".lstrip(".")] = f"its weights are used by {name or 'the root'}"
        if include is not None and not matches_any(name, include):
            reasons[name] = "not included"
        elif matches_any(name, exclude or ()):
            reasons[name] = "excluded"
        elif _is_mere_carrier(razor_class) and not recipe.shares:
            reasons[name] = "no record goes on by this recipe"
        elif isinstance(layer, _MAX_POOLS) and (reason := _why_not_pool(layer)):
            reasons[name] = reason
        elif razor_class.same_as is not None and "forward" in vars(layer):
            reasons[name] = "its forward was set on the instance, and may be another function"
        elif kind := _kind_of_weights(layer, razor_class.runs):
            reasons[name] = f"its weights are of {kind}"
    blocks = {n for n, c in known.items() if c.role is Role.BLOCK and n not in reasons}
    for name in known:
        if not blocks.isdisjoint(_parents(name)):
            reasons.setdefault(name, "inside a block that runs again")
    return reasons


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _why_not_pool(pool: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) -> str | None:
    if pool.return_indices:
        return "its caller wants the int64 indices"
    rank = next(rank for rank, kind in enumerate(_MAX_POOLS, 1) if isinstance(pool, kind))
    window = math.prod(each(pool.kernel_size, rank))
    return "a window of more than 256 entries" if window > 256 else None


def _kind_of_weights(layer: nn.Module, runs: Set[str]) -> str | None:
    """The class that holds weights of ``layer`` in a form of its own, such as a quantised one."""
    for part in (layer, *(layer.get_submodule(child) for child in runs)):
        for weight in part.parameters(recurse=False):
            # of a DTensor, FSDP gives the layer the plain tensor
            if is_traceable_wrapper_subclass(weight) and not isinstance(weight, DTensor):
                return type(weight).__name__
    return None


class _Ends(NamedTuple):
    """The product that reads the batch, and a Linear at the end with the LayerNorms before it."""

    first: str | None = None
    head: str | None = None
    norms: tuple[str, ...] = ()


def _ends(model: nn.Module) -> _Ends:
    ends = (*PRODUCTS, *_NORMS, nn.Embedding)  # whose input is the batch too, but no values
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, ends)]
    if not layers:
        return _Ends()
    reads_batch = isinstance(layers[0][1], PRODUCTS) and not isinstance(layers[0][1], _PADDING)
    first = layers[0][0] if reads_batch else None
    head, last = layers.pop()
    if not isinstance(last, nn.Linear):
        return _Ends(first)
    norms = []
    while layers and isinstance(layers[-1][1], nn.LayerNorm):
        norms.append(layers.pop()[0])
    return _Ends(first, head, tuple(norms))


def _describe(
    model: nn.Module,
    known: _Known,
    plan: Mapping[str, Storage],
    skipped: Mapping[str, str],
) -> Iterator[Line]:
    # a subclass of Embedding that stays dense costs nothing: it holds its indices alone
    relatives = (*(REGISTRY.keys() - {nn.Embedding}), *PRODUCTS, *_NORMS)
    for name, layer in model.named_modules():
        dense = dense_class_of(layer)
        if name in plan:
            yield Line(name, dense.__name__, "converted", _how(known[name], plan[name]))
        elif name in skipped:
            yield Line(name, dense.__name__, "skipped", skipped[name])
        elif isinstance(layer, nn.RNNBase):
            yield Line(name, dense.__name__, "near miss", "torch's kernel keeps what it needs")
        elif isinstance(layer, relatives):
            relative = next(known for known in dense.__mro__[1:] if known in relatives)
            reason = f"a {relative.__name__} of a class that is not registered"
            if dense is nn.SyncBatchNorm:
                reason = "its statistics are of all processes; sync_batchnorm=False converts it"
            yield Line(name, dense.__name__, "near miss", reason)


def _how(layer: type[RazorLayer], storage: Storage) -> str:
    if layer.role is not Role.CARRIER:
        return str(storage)
    return "records go on through it" if _is_mere_carrier(layer) else "nothing"


def _is_mere_carrier(layer: type[RazorLayer]) -> bool:
    return layer.role is Role.CARRIER and not layer.functions
