"""The callbacks that a trainer has beside one."""

from typing import TypeVar

from lightning.pytorch import Callback, Trainer

_Kind = TypeVar("_Kind", bound=Callback)


def callbacks_of(trainer: Trainer, *kinds: type[_Kind]) -> list[_Kind]:
    """The callbacks of a trainer that are of one of ``kinds``, in their order."""
    # Lightning makes the attribute outside of the class, where mypy does not see it
    return [each for each in trainer.callbacks if isinstance(each, kinds)]  # type: ignore[attr-defined]
