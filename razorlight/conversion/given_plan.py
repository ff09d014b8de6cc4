"""A plan that is given: it is read, and has to fit the network before anything is converted."""

from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from razorlight.conversion.make_plan import (
    dense_class_of,
    how_it_stores,
    known_layers,
    parents_of,
    unsafe_layers,
)
from razorlight.conversion.plan import Line, Plan
from razorlight.errors import RazorError
from razorlight.layers import RazorBlock, RazorLayer, RazorModule
from razorlight.planning import RecipeSpec, Role


def read_given(plan: Plan | str | Path, recipe: RecipeSpec, *others: Any) -> Plan:
    """The plan that a caller gives, as it is or by its path.

    Args:
        plan: the plan, or the path of its file.
        recipe: the recipe beside it; only the default is accepted.
        others: the other arguments from which a plan is made; only None is accepted.

    Raises:
        RazorError: if any argument is given beside the plan, the plan is of another type, or the
            file holds no plan.
    """
    if not isinstance(plan, Plan | str | Path):
        raise RazorError(f"a plan is a Plan, or the path of a file; got {plan!r}")
    if recipe != "balanced" or any(other is not None for other in others):
        raise RazorError(
            "a plan says for each layer how it stores: give no recipe, sparsity, include, exclude "
            "or overrides beside it, or edit the plan"
        )
    return plan if isinstance(plan, Plan) else Plan.load(plan)


def fit_plan(plan: Plan, model: nn.Module) -> Plan:
    """The plan, with the details that a plan made for ``model`` has.

    Raises:
        RazorError: if the plan is one of another network, or converts a layer that cannot be.
    """
    modules = dict(model.named_modules())
    _check_layers(plan, modules)
    known = known_layers(model, blocks=set())
    if not plan.layers:
        raise RazorError("the plan converts no layer: give one of them a codec")
    blocks = {line.name for line in plan.lines if line.runs_again}
    _check_is_safe(plan.layers.keys(), blocks, unsafe_layers(model, known))
    if missing := known.keys() - {line.name for line in plan.lines}:
        name = next(name for name in known if name in missing)
        raise RazorError(f"the plan is of another network: it has no layer {name}")
    lines = (_checked(line, modules[line.name]) for line in plan.lines)
    return replace(plan, lines=tuple(lines))


def razor_class_of(line: Line, layer: nn.Module) -> type[RazorModule] | None:
    """The class that a line turns its layer into; None if the layer's class is not registered."""
    base = RazorBlock if line.runs_again else RazorLayer
    return base.class_for(dense_class_of(layer))


def _check_layers(plan: Plan, modules: dict[str, nn.Module]) -> None:
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


def _check_is_safe(converted: Set[str], blocks: Set[str], unsafe: dict[str, str]) -> None:
    """Refuse to convert layers that every recipe leaves dense, whatever the plan says."""
    for name in converted:
        around = blocks & {*parents_of(name)}
        if name in unsafe:
            raise RazorError(f"the plan converts {name}, which stays dense: {unsafe[name]}")
        if around and name not in blocks:
            raise RazorError(f"the plan converts {name}, but {min(around)} around it runs again")


def _checked(line: Line, layer: nn.Module) -> Line:
    """A line whose codec can store what the layer reads, in the words of the report."""
    if line.plan is None:
        return line
    name, razor_class = line.name or "the root", razor_class_of(line, layer)
    if razor_class is None:
        raise RazorError(f"the plan converts {name}, whose class is not registered")
    role, codec = razor_class.known.role, line.plan.codec
    if role is not Role.VIEW and not role.accepts(codec):
        raise RazorError(f"the plan stores {name} by {codec}, which cannot store {role.value}")
    return replace(line, detail=how_it_stores(razor_class.known, line.plan))
