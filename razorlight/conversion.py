"""Convert a network's layers in place, and back."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from razorlight.codecs import Codec, parse_codec
from razorlight.errors import RazorError
from razorlight.functional.sizes import each
from razorlight.layers import REGISTRY, RazorLayer
from razorlight.patterns import check_patterns, matches, matches_any
from razorlight.planning import Recipe, find_recipe
from razorlight.report import Line, Report

_PRODUCTS = (nn.Linear, nn.modules.conv._ConvNd)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def razor_(
    model: nn.Module,
    recipe: str | Recipe = "paper",
    sparsity: float = 0.9,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Report:
    """Make the layers of ``model`` store less for backward, in place.

    Each layer whose exact class is registered (:func:`razorlight.layers.register`) changes its
    class; parameters, buffers, hooks, ``state_dict`` and the forward's output stay as they are.
    Left dense, unless ``include`` names them: the first layer (its input is the batch, which is
    held anyway) and the classifier with the norm before it (small, and everything passes through
    them). Calling it again replaces what was chosen before.

    Args:
        model: any network; a LightningModule too.
        recipe: name of a recipe (:data:`razorlight.planning.RECIPES`), or one of your own.
        sparsity: share of the entries that is pruned, in [0, 1).
        include: globs of layer names; only these are converted.
        exclude: globs of layer names that stay dense.
        overrides: ``{glob: codec}`` for single layers, the codec as in
            :func:`razorlight.codecs.parse_codec`; the last match wins.

    Returns:
        What was converted, what was not, and why. Prints as a table.

    Raises:
        RazorError: if nothing would be converted, a glob matches nothing, or an argument is
            outside of its range. The model is then untouched.
    """
    chosen = find_recipe(recipe, sparsity)
    names = [name for name, *_ in _known_layers(model)]
    for what, patterns in (("include", include), ("exclude", exclude), ("overrides", overrides)):
        check_patterns(patterns or (), names, what)
    codecs = {glob: parse_codec(spec) for glob, spec in (overrides or {}).items()}

    skipped = _reasons_to_skip(model, include, exclude)
    plan = {
        name: _codec_for(name, razor_class, chosen, codecs)
        for name, _, razor_class in _known_layers(model)
        if name not in skipped
    }
    _check_overrides(codecs, plan)
    report = Report(tuple(_describe(model, plan, skipped)))
    if not plan:
        raise RazorError(
            f"nothing to convert in {type(model).__name__}: {report.reasons()}; name layers "
            "with include=[...], or register their classes with razorlight.layers.register"
        )
    restore_(model)
    for name, codec in plan.items():
        layer = model.get_submodule(name)
        layer.__class__ = REGISTRY[type(layer)]
        layer.razor_codec = codec  # type: ignore[assignment]
    return report


def restore_(model: nn.Module) -> None:
    """Turn every razor layer of ``model`` back into its dense class, in place."""
    for layer in model.modules():
        if isinstance(layer, RazorLayer):
            del layer.razor_codec
            layer.__class__ = layer.dense_class  # type: ignore[assignment]


def is_converted(model: nn.Module) -> bool:
    """Whether any layer of ``model`` is a razor layer."""
    return any(isinstance(layer, RazorLayer) for layer in model.modules())


def _dense_class(layer: nn.Module) -> type[nn.Module]:
    return layer.dense_class if isinstance(layer, RazorLayer) else type(layer)


def _known_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, type[RazorLayer]]]:
    for name, layer in model.named_modules():
        if razor_class := REGISTRY.get(_dense_class(layer)):
            yield name, layer, razor_class


def _codec_for(
    name: str, layer: type[RazorLayer], recipe: Recipe, overrides: Mapping[str, Codec]
) -> Codec:
    codec = recipe.codec(layer.role)
    for glob, override in overrides.items():
        if matches(name, glob) and layer.role.accepts(override):
            codec = override
    return codec


def _check_overrides(overrides: Mapping[str, Codec], plan: Mapping[str, Codec]) -> None:
    for glob, codec in overrides.items():
        if codec not in (chosen for name, chosen in plan.items() if matches(name, glob)):
            raise RazorError(
                f"overrides: no layer that {glob!r} matches can be stored by {codec}: it is left "
                "dense, gates store bits, and the input of a curved activation is never pruned"
            )


def _reasons_to_skip(
    model: nn.Module, include: Sequence[str] | None, exclude: Sequence[str] | None
) -> dict[str, str]:
    """Known layers that stay dense, and why."""
    reasons = {} if include is not None else _first_and_last(model)
    for name, layer, razor_class in _known_layers(model):
        for child in razor_class.runs:
            reasons[f"{name}.{child}".lstrip(".")] = f"its weights are used by {name or 'the root'}"
        if include is not None and not matches_any(name, include):
            reasons[name] = "not included"
        elif matches_any(name, exclude or ()):
            reasons[name] = "excluded"
        elif isinstance(layer, nn.Dropout) and layer.p == 0:
            reasons[name] = "p = 0: stores nothing"
        elif isinstance(layer, nn.MaxPool2d) and (reason := _why_not_pool(layer)):
            reasons[name] = reason
    return reasons


def _why_not_pool(pool: nn.MaxPool2d) -> str | None:
    if pool.return_indices:
        return "its caller wants the int64 indices"
    window = math.prod(each(pool.kernel_size, 2))
    return "a window of more than 256 entries" if window > 256 else None


def _first_and_last(model: nn.Module) -> dict[str, str]:
    """The layer that reads the batch, and a Linear at the end with the LayerNorms before it."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (*_PRODUCTS, *_NORMS))]
    if not layers:
        return {}
    reasons = {}
    name, first = layers[0]
    if isinstance(first, _PRODUCTS):
        reasons[name] = "first layer: its input is the batch"
    name, last = layers.pop()
    if isinstance(last, nn.Linear):
        reasons[name] = "head"
        while layers and isinstance(layers[-1][1], nn.LayerNorm):
            reasons[layers.pop()[0]] = "norm before the head"
    return reasons


def _describe(
    model: nn.Module, plan: Mapping[str, Codec], skipped: Mapping[str, str]
) -> Iterator[Line]:
    relatives = (*REGISTRY, *_PRODUCTS, *_NORMS)
    for name, layer in model.named_modules():
        dense = _dense_class(layer)
        if name in plan:
            yield Line(name, dense.__name__, "converted", str(plan[name]))
        elif name in skipped:
            yield Line(name, dense.__name__, "skipped", skipped[name])
        elif isinstance(layer, relatives):
            relative = next(known for known in dense.__mro__[1:] if known in relatives)
            reason = f"a {relative.__name__} of a class that is not registered"
            yield Line(name, dense.__name__, "near miss", reason)
