"""The ways in which the run of a configuration can be trained: dense, and by recipes."""

from lightning.pytorch import LightningModule

from razorlight.cli.dry_run import DryRun
from razorlight.conversion import Plan, razor_
from razorlight.planning import RecipeSpec

DENSE = "dense"


def own_way(dry: DryRun) -> str:
    """What the configuration says: a recipe's name as ``BackRazor.recipe_name``, or "dense"."""
    return DENSE if dry.razor is None else dry.razor.recipe_name


def convert(dry: DryRun, module: LightningModule, way: str) -> Plan | None:
    """Convert a module as a recipe trains it, with the other arguments of the run's BackRazor.

    Args:
        dry: the run.
        module: a copy of the run's module. It changes in place.
        way: "dense", the name of a recipe, or what :func:`own_way` gives.

    Returns:
        The plan; None if the way is dense.
    """
    razor = dry.razor
    if way == DENSE:
        return None
    if razor is None:
        return razor_(module, way)
    if way == razor.recipe_name and razor.given_plan is not None:
        return razor_(module, plan=razor.given_plan)
    recipe: RecipeSpec = razor.recipe if way == razor.recipe_name else way
    sparsity = razor.sparsity if way == razor.recipe_name else None
    return razor_(module, recipe, sparsity, razor.include, razor.exclude, razor.overrides)
