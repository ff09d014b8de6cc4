"""How the layers of a network are converted in place, and restored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from razorlight.conversion.make_plan import (
    dense_class_of,
    how_it_stores,
    known_layers,
    make_plan,
    parents_of,
    unsafe_layers,
)
from razorlight.conversion.plan import Line, Plan
from razorlight.errors import RazorError
from razorlight.layers import (
    RazorBlock,
    RazorLayer,
    RazorModule,
    Seen,
    make_dense,
    make_razor,
)
from razorlight.planning import LayerPlan, RecipeSpec, Role


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
    conversion = Conversion(
        model, choose_plan(model, recipe, sparsity, include, exclude, overrides, plan)
    )
    conversion.apply()
    return conversion.plan


def choose_plan(
    model: nn.Module,
    recipe: RecipeSpec = "balanced",
    sparsity: float | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    plan: Plan | str | Path | None = None,
) -> Plan:
    """Return the given plan, if it fits the model; without one, make a plan.

    Arguments and errors are those of :func:`razor_`.
    """
    if plan is None:
        return make_plan(model, recipe, sparsity, include, exclude, overrides)
    check_only_plan(recipe, sparsity, include, exclude, overrides)
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
    _check_fits(plan, model)
    return replace(plan, lines=tuple(_described(line, model) for line in plan.lines))


def _described(line: Line, model: nn.Module) -> Line:
    """A line with the detail that a plan of this network gives, however the line was edited."""
    razor_class = None if line.plan is None else _class_for(line, model.get_submodule(line.name))
    if line.plan is None or razor_class is None:
        return line
    return replace(line, detail=how_it_stores(razor_class.known, line.plan))


def check_only_plan(recipe: RecipeSpec, *others: Any) -> None:
    """Refuse the arguments from which a plan is made, because a plan is given already.

    Args:
        recipe: the recipe; only the default is accepted.
        others: the other arguments; only None is accepted.

    Raises:
        RazorError: if any argument is given.
    """
    if recipe != "balanced" or any(other is not None for other in others):
        raise RazorError(
            "a plan says for each layer how it stores: give no recipe, sparsity, include, exclude "
            "or overrides beside it, or edit the plan"
        )


def _check_fits(plan: Plan, model: nn.Module) -> None:
    modules = dict(model.named_modules())
    for line in plan.lines:
        name = line.name or "the root"
        if line.name not in modules:
            raise RazorError(f"the plan is of another network: this one has no layer {name}")
        layer = dense_class_of(modules[line.name])
        if layer.__name__ != line.layer:
            raise RazorError(
                f"the plan is of another network: {name} is a {layer.__name__} here, and a "
                f"{line.layer} in the plan"
            )
        if line.plan is not None:
            _check_stores(name, line.plan, _class_for(line, modules[line.name]))
    _check_is_safe(plan, model)
    planned = {line.name for line in plan.lines}
    for name in known_layers(model, blocks=set()):
        if name not in planned:
            raise RazorError(f"the plan is of another network: it has no layer {name}")


def _check_is_safe(plan: Plan, model: nn.Module) -> None:
    """Refuse to convert layers that every recipe leaves dense, whatever the plan says."""
    blocks = {line.name for line in plan.lines if line.runs_again}
    unsafe = unsafe_layers(model, known_layers(model, blocks=set()))
    if not plan.layers:
        raise RazorError("the plan converts no layer: give one of them a codec")
    for name in plan.layers:
        around = blocks.intersection(parents_of(name))
        if name in unsafe:
            raise RazorError(f"the plan converts {name}, which stays dense: {unsafe[name]}")
        if around and name not in blocks:
            raise RazorError(f"the plan converts {name}, but {min(around)} around it runs again")


def _check_stores(name: str, plan: LayerPlan, razor_class: type[RazorModule] | None) -> None:
    if razor_class is None:
        raise RazorError(f"the plan converts {name}, whose class is not registered")
    role = razor_class.known.role
    if role is not Role.VIEW and not role.accepts(plan.codec):
        raise RazorError(f"the plan stores {name} by {plan.codec}, which cannot store {role.value}")


def _class_for(line: Line, layer: nn.Module) -> type[RazorModule] | None:
    base = RazorBlock if line.runs_again else RazorLayer
    return base.class_for(dense_class_of(layer))


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
            razor_class = _class_for(line, layer)
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
