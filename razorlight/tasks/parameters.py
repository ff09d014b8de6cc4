"""Groups of parameters: the learning rate of each, and whether weight decay applies."""

from collections.abc import Collection, Mapping
from math import prod
from typing import Any, Protocol, runtime_checkable

from timm.models import group_parameters
from torch import nn

from razorlight.errors import RazorError
from razorlight.patterns import check_patterns, matches

LR_SCALE = "lr_scale"
"""Key of a parameter group: its learning rate as a factor of the optimizer's."""


@runtime_checkable
class _WithLayers(Protocol):
    """A network of timm that numbers its layers."""

    def group_matcher(self, coarse: bool) -> Any:
        """The regular expressions by which timm finds a parameter's layer."""


@runtime_checkable
class _WithUndecayed(Protocol):
    """A network of timm with parameters that weight decay should leave alone."""

    def no_weight_decay(self) -> Collection[str]:
        """The names of these parameters."""


def parameter_groups(
    module: nn.Module, layer_decay: float | None, lr_multipliers: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    Vectors and scalars (biases, the scale and shift of norms), and what timm's network lists as
    ``no_weight_decay``, are not decayed, as is usual since He et al. 2019 ("Bag of tricks").

    Args:
        module: module with the parameters.
        layer_decay: factor from the learning rate of each layer of timm's network to that of the
            layer below. The topmost layer, and all outside of that network, have the full rate.
        lr_multipliers: further factors by globs of parameter names. If several globs match a name,
            their factors multiply.

    Returns:
        Groups for an optimizer, each with its ``lr_scale``.

    Raises:
        RazorError: if a glob matches nothing, a factor is negative or above 1 for
            ``layer_decay``, or no part of the module knows its layers.
    """
    parameters = dict(module.named_parameters())
    check_patterns(lr_multipliers, list(parameters), "lr_multipliers")
    for pattern, factor in lr_multipliers.items():
        if factor < 0:
            raise RazorError(f"lr_multipliers: {pattern} is {factor}; it must be 0 or more")
    scales = {} if layer_decay is None else _layer_scales(module, layer_decay)
    undecayed = _without_weight_decay(module)
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        factors = [factor for glob, factor in lr_multipliers.items() if matches(name, glob)]
        scale = scales.get(name, 1.0) * prod(factors)
        decayed = parameter.ndim > 1 and name not in undecayed
        group = groups.setdefault((scale, decayed), {LR_SCALE: scale, "params": []})
        if not decayed:
            group["weight_decay"] = 0.0
        group["params"].append(parameter)
    return list(groups.values())


def _layer_scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """Factors of the rates, by the names of the parameters that belong to a layer."""
    if not 0 < layer_decay <= 1:
        raise RazorError(f"layer_decay is {layer_decay}; it must be in (0, 1]")
    for prefix, part in _parts(module):
        if isinstance(part, _WithLayers):
            layers = group_parameters(part, part.group_matcher(coarse=False), reverse=True)
            top = max(layers.values())
            return {prefix + name: layer_decay ** (top - layer) for name, layer in layers.items()}
    raise RazorError(
        "layer_decay: this network does not number its layers, only classifiers of timm and smp's "
        "DPT on a ViT do; leave it out, or take lr_multipliers: {net.encoder: 0.1}"
    )


def _without_weight_decay(module: nn.Module) -> set[str]:
    return {
        prefix + name
        for prefix, part in _parts(module)
        if isinstance(part, _WithUndecayed)
        for name in part.no_weight_decay()
    }


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """All submodules, each with the prefix of its parameters' names."""
    return [(f"{name}." if name else "", part) for name, part in module.named_modules()]
