"""Weights of the classes in a cross-entropy: given, or such that all classes count alike."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from razorlight.data.class_balance import balancing_weights
from razorlight.errors import RazorError
from razorlight.protocols import Counted, Labelled

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
    if isinstance(weights, list) and len(weights) != num_classes:
        raise RazorError(f"class_weights: {len(weights)} given, for {num_classes} classes")
    loss = nn.CrossEntropyLoss(**kwargs)
    given = [1.0] * num_classes if weights == "auto" else weights
    values = None if given is None else torch.tensor(given)
    # not persistent: a checkpoint holds the network, and nothing that belongs to the loss
    loss.register_buffer("weight", values, persistent=False)
    return loss


def weigh(module: nn.Module, weights: Sequence[float]) -> None:
    """Set the weights of the cross-entropies in a module."""
    for loss in module.modules():
        if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is not None:
            loss.weight.copy_(torch.tensor(weights))


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
    found: list[float] | RazorError = []
    if trainer.is_global_zero:
        try:
            counts = data.label_counts()
            found = balancing_weights([counts[label] for label in range(num_classes)])
        except RazorError as error:
            found = error  # for all processes
    found = trainer.strategy.broadcast(found)
    if isinstance(found, RazorError):
        raise found
    names = data.class_names if isinstance(data, Labelled) else range(num_classes)
    ranked = sorted(zip(found, map(str, names), strict=True))
    shown = ranked if num_classes <= _NAMED else [ranked[0], ranked[-1]]
    said = (", " if num_classes <= _NAMED else " to ").join(f"{w:.3g} {n}" for w, n in shown)
    rank_zero_info(f"class_weights by the shares of the training data: {said}")
    return found


_NAMED = 10
"""The most classes that are named, each with its weight."""
