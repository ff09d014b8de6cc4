"""Convert a network's layers in place, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from razorlight.errors import RazorError
from razorlight.layers import RazorLayer, Seen
from razorlight.layers.base import make_dense, make_razor
from razorlight.planning import RecipeSpec
from razorlight.planning.plan import Plan, make_plan
from razorlight.report import Report
from razorlight.sharing import Storage


def razor_(
    model: nn.Module,
    recipe: RecipeSpec = "balanced",
    sparsity: float | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Report:
    """Make the layers of ``model`` store less for backward, in place.

    Each layer whose exact class is registered (:func:`razorlight.layers.register`) changes its
    class; parameters, buffers, hooks, ``state_dict`` and the forward's output stay as they are.
    Left dense, unless ``include`` names it: the first layer, whose input is the batch, which is
    held anyway; by the recipe ``paper`` also the classifier with the norm before it. Calling it
    again replaces what was chosen before.

    Args:
        model: any network; a LightningModule too.
        recipe: name of a recipe (:data:`razorlight.planning.RECIPES`), a mapping such as
            ``{"name": "compact", "bits": 4}``, or one of your own; see
            :func:`razorlight.planning.find_recipe`.
        sparsity: share of the entries that is pruned, in [0, 1), where the recipe prunes.
        include: globs of layer names; only these are converted.
        exclude: globs of layer names that stay dense.
        overrides: ``{glob: codec}`` for what single layers store, the codec as in
            :func:`razorlight.codecs.parse_codec`; the last match wins.

    Returns:
        What was converted, what was not, and why. Prints as a table.

    Raises:
        RazorError: if nothing would be converted, a glob matches nothing, or an argument is
            outside of its range. The model is then untouched.
    """
    plan = make_plan(model, recipe, sparsity, include, exclude, overrides)
    conversion = Conversion(model, plan)
    conversion.apply()
    return conversion.report


class Conversion:
    """What the layers of one network become, made ready to be applied and taken back often.

    Args:
        model: the network.
        plan: what each of its layers becomes.

    Attributes:
        report: that of the plan, with what the layers meet while they run.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        restore_(model)
        self._model = model
        self._tree = [(m, type(m), [*m._modules.values()]) for m in model.modules()]
        met: list[Seen] = []
        self._layers: list[tuple[nn.Module, type[RazorLayer], Storage, Seen]] = []
        for name, (razor_class, storage) in plan.layers.items():
            seen = Seen(name, razor_class.dense_class.__name__, razor_class.named, met)
            met.append(seen)
            self._layers.append((model.get_submodule(name), razor_class, storage, seen))
        self.report = replace(plan.report, seen=met)

    def apply(self) -> None:
        """Make the layers razor layers."""
        for layer, razor_class, storage, seen in self._layers:
            make_razor(layer, razor_class, storage, seen)

    def fits(self) -> bool:
        """Whether the network has the modules that it was planned for, of the same classes."""
        return all(
            type(module) is its_type and [*module._modules.values()] == children
            for module, its_type, children in self._tree
        )

    def take_back(self) -> None:
        """Make the layers dense again, and copies of them that the network was given meanwhile.

        Raises:
            RazorError: as :func:`restore_`.
        """
        for layer, razor_class, _, _ in self._layers:
            if type(layer) is razor_class:
                make_dense(layer)
        if is_converted(self._model):  # a copy, or a layer whose class was changed since
            restore_(self._model)


def restore_(model: nn.Module) -> None:
    """Turn every razor layer of ``model`` back into its dense class, in place.

    Raises:
        RazorError: if the class of a razor layer was changed meanwhile. The model is then
            untouched.
    """
    converted = {n: m for n, m in model.named_modules() if isinstance(m, RazorLayer)}
    for name, layer in converted.items():
        if "dense_class" not in vars(type(layer)) and not is_parametrized(layer):
            raise RazorError(
                f"{name} was made a {type(layer).__name__} after razor_ and cannot go back; call "
                "razor_ after whatever changes classes, such as fully_shard"
            )
    for layer in converted.values():
        if is_parametrized(layer):  # since: its class is one of its own, derived from ours
            type(layer).__bases__ = (layer.dense_class,)
            make_dense(layer, type(layer))
        else:
            make_dense(layer)


def is_converted(model: nn.Module) -> bool:
    """Whether any layer of ``model`` is a razor layer.

    Example:
        >>> import torch
        >>> from razorlight import razor_
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())
        >>> is_converted(model)
        False
        >>> report = razor_(model)
        >>> is_converted(model)
        True
    """
    return any(isinstance(layer, RazorLayer) for layer in model.modules())
