"""How the layers of a network are converted in place, and restored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from razorlight.conversion.given_plan import fit_plan, razor_class_of, read_given
from razorlight.conversion.make_plan import make_plan
from razorlight.conversion.plan import Plan
from razorlight.errors import RazorError
from razorlight.layers import RazorModule, Seen, make_dense, make_razor
from razorlight.planning import LayerPlan, RecipeSpec


def razor_(
    model: nn.Module,
    recipe: RecipeSpec = "balanced",
    sparsity: float | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    plan: Plan | str | Path | None = None,
) -> Plan:
    """Make the layers of ``model`` store less for backward, in place.

    Each layer whose exact class is registered (:func:`razorlight.layers.register`) changes its
    class. Parameters, buffers, hooks, ``state_dict`` and the output of the forward stay as they
    are. The first layer stays dense, because its input is the batch, which is in memory anyway. By
    the recipe ``paper`` the classifier and the norm before it stay dense too. ``include`` can name
    such layers all the same. A second call replaces the choices of the first.

    Args:
        model: any network, such as a LightningModule.
        recipe: name of a recipe (:data:`razorlight.planning.RECIPES`), a mapping such as
            ``{"name": "compact", "bits": 4}``, or a :class:`razorlight.Recipe`; see
            :func:`razorlight.planning.find_recipe`.
        sparsity: share of the entries that is pruned, in [0, 1), if the recipe prunes.
        include: globs of layer names; only these layers are converted.
        exclude: globs of the names of layers that stay dense.
        overrides: codecs of single layers, as ``{glob: codec}``, with codecs as in
            :func:`razorlight.codecs.parse_codec`. The last glob that matches a layer counts.
        plan: a plan that an earlier call returned, or the path of a ``plan.yaml``. It takes the
            place of all other arguments.

    Returns:
        The plan: what each layer becomes, or why it stays dense. It prints as a table.

    Raises:
        RazorError: if nothing would be converted, a glob matches nothing, an argument is outside of
            its range, or the plan is one of another network. The model is then untouched.

    Example:
        >>> import torch
        >>> from razorlight import razor_, restore_
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
        >>> plan = razor_(net, recipe="balanced")
        >>> net(torch.randn(4, 8)).sum().backward()
        >>> restore_(net)
        >>> razor_(net, plan=plan) == plan
        True
    """
    if plan is None:
        chosen = make_plan(model, recipe, sparsity, include, exclude, overrides)
    else:
        given = read_given(plan, recipe, sparsity, include, exclude, overrides)
        chosen = fit_plan(given, model)
    conversion = Conversion(model, chosen)
    conversion.apply()
    return conversion.plan


class Conversion:
    """The conversion of one network by a plan, prepared to be applied and taken back often.

    Args:
        model: the network.
        plan: the plan of the network.

    Attributes:
        plan: the same plan, with notes of what the layers meet while they run.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        restore_(model)
        self._model = model
        self._tree = [(m, type(m), [*m._modules.values()]) for m in model.modules()]
        met: list[Seen] = []
        self._layers: list[tuple[nn.Module, type[RazorModule], LayerPlan, Seen]] = []
        for line in plan.lines:
            if line.plan is None:
                continue
            layer = model.get_submodule(line.name)
            razor_class = razor_class_of(line, layer)
            assert razor_class is not None
            seen = Seen(line.name, line.layer, razor_class.known.expected, met)
            met.append(seen)
            self._layers.append((layer, razor_class, line.plan, seen))
        self.plan = replace(plan, seen=met)

    def apply(self) -> None:
        """Turn the layers into razor layers."""
        for layer, razor_class, plan, seen in self._layers:
            make_razor(layer, razor_class, plan, seen)

    def fits(self) -> bool:
        """Whether the network still has the same modules, of the same dense classes."""
        return all(
            type(module) is its_type and [*module._modules.values()] == children
            for module, its_type, children in self._tree
        )

    def take_back(self) -> None:
        """Make the layers dense again, and copies of them that have come into the network since.

        Raises:
            RazorError: as for :func:`restore_`.
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

    Example:
        >>> import torch
        >>> from razorlight import razor_
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())
        >>> plan = razor_(model)
        >>> restore_(model)
        >>> type(model[1]) is torch.nn.GELU
        True
    """
    converted = {n: m for n, m in model.named_modules() if isinstance(m, RazorModule)}
    for name, layer in converted.items():
        if "dense_class" not in vars(type(layer)) and not is_parametrized(layer):
            raise RazorError(
                f"{name} was made a {type(layer).__name__} after razor_ and cannot be restored; "
                "call razor_ after functions that change classes, such as fully_shard"
            )
    for layer in converted.values():
        if is_parametrized(layer):  # torch has since derived a class from the razor class
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
        >>> plan = razor_(model)
        >>> is_converted(model)
        True
    """
    return any(isinstance(layer, RazorModule) for layer in model.modules())
