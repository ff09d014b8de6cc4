"""Weights of the classes in a loss: given, or such that all classes count alike."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from razorlight.data.class_balance import balancing_weights, positive_weights
from razorlight.errors import RazorError
from razorlight.protocols import Counted, MultiLabelled, output_names

ClassWeights = list[float] | Literal["auto"] | None
"""A weight for each class, ``auto`` to take them from the training data, or None for no weights."""


def cross_entropy(weights: ClassWeights, num_classes: int, **kwargs: Any) -> nn.CrossEntropyLoss:
    """Torch's cross-entropy with weights; those of ``auto`` are 1 until :func:`weigh` sets them.

    Args:
        weights: weights of the classes.
        num_classes: number of classes.
        **kwargs: further arguments of the loss.

    Raises:
        RazorError: for weights of another number.
    """
    values = _tensor("class_weights", weights, num_classes)
    loss = nn.CrossEntropyLoss(**kwargs)
    # not persistent: a checkpoint holds the network, and nothing that belongs to the loss
    loss.register_buffer("weight", values, persistent=False)
    return loss


def binary_cross_entropy(weights: ClassWeights, num_classes: int) -> nn.BCEWithLogitsLoss:
    """Torch's binary cross-entropy of logits, whose weights are those of images with the class.

    Args:
        weights: ``pos_weight`` of the loss; those of ``auto`` are 1 until :func:`weigh` sets them.
        num_classes: number of classes.

    Raises:
        RazorError: for weights of another number.
    """
    values = _tensor("pos_weight", weights, num_classes)
    loss = nn.BCEWithLogitsLoss()
    loss.register_buffer("pos_weight", values, persistent=False)
    return loss


def _tensor(argument: str, weights: ClassWeights, num_classes: int) -> Tensor | None:
    if isinstance(weights, list) and len(weights) != num_classes:
        raise RazorError(f"{argument}: {len(weights)} given, for {num_classes} classes")
    given = [1.0] * num_classes if weights == "auto" else weights
    return None if given is None else torch.tensor(given)


def weigh(module: nn.Module, weights: Sequence[float]) -> None:
    """Set the weights of the losses in a module that :func:`cross_entropy` and the other made."""
    for loss in module.modules():
        if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is not None:
            loss.weight.copy_(torch.tensor(weights))
        if isinstance(loss, nn.BCEWithLogitsLoss) and loss.pos_weight is not None:
            loss.pos_weight.copy_(torch.tensor(weights))


def weights_of_data(trainer: Trainer, num_classes: int) -> list[float]:
    """The weights by the training data of a run, which its first process reads; a line says them.

    Args:
        trainer: a trainer whose data are set up.
        num_classes: number of classes.

    Raises:
        RazorError: if the data module does not count labels, or a file cannot be read.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, Counted):
        raise RazorError(
            f"class_weights: auto asks the data module for label_counts(), and "
            f"{type(data).__name__} has none; give a list of numbers"
        )

    def find() -> list[float]:
        counts = data.label_counts()
        return balancing_weights([counts[label] for label in range(num_classes)])

    return _found_and_said("class_weights", trainer, find)


def positive_weights_of_data(trainer: Trainer) -> list[float]:
    """The weights of images with a class by the training data of a run; a line says them.

    Args:
        trainer: a trainer whose data are set up.

    Raises:
        RazorError: if the data module does not say how many images have each class.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, MultiLabelled):
        raise RazorError(
            f"pos_weight: auto asks the data module for class_shares(), and "
            f"{type(data).__name__} has none; give a list of numbers"
        )
    return _found_and_said("pos_weight", trainer, lambda: positive_weights(data.class_shares()))


def _found_and_said(
    argument: str, trainer: Trainer, find: Callable[[], list[float]]
) -> list[float]:
    """Weights that the first process finds, for all processes."""
    found: list[float] | RazorError = []
    if trainer.is_global_zero:
        try:
            found = find()
        except RazorError as error:
            found = error  # for all processes
    found = trainer.strategy.broadcast(found)
    if isinstance(found, RazorError):
        raise found
    names = output_names(trainer.datamodule) or range(len(found))  # type: ignore[attr-defined]
    ranked = sorted(zip(found, map(str, names), strict=True))
    shown = ranked if len(found) <= _NAMED else [ranked[0], ranked[-1]]
    said = (", " if len(found) <= _NAMED else " to ").join(f"{w:.3g} {n}" for w, n in shown)
    rank_zero_info(f"{argument} by the shares of the training data: {said}")
    return found


_NAMED = 10
"""The most classes that are named, each with its weight."""
