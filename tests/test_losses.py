"""Losses: they store nothing that the product before them could give again."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from razorlight import razor_
from razorlight.layers import REGISTRY, register
from razorlight.memory import measure_step
from razorlight.planning import Role

CLASSES, SIDE = 12, 32
IMAGES = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4 * SIDE**2).view(4, SIDE, SIDE) % CLASSES
LOGITS = 4 * CLASSES * SIDE**2 * 4  # bytes
LOSSES = {
    "cross-entropy": nn.CrossEntropyLoss,
    "dice": lambda: smp.losses.DiceLoss("multiclass"),
    "focal": lambda: smp.losses.FocalLoss("multiclass"),
    "lovasz": lambda: smp.losses.LovaszLoss("multiclass"),
}
HEADS = {
    "wide": lambda: nn.Conv2d(64, CLASSES, 3, padding=1),  # 576 multiply-adds
    "enlarged": lambda: nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(64, CLASSES, 3, padding=1),
        nn.UpsamplingBilinear2d(scale_factor=2),
    ),
}


class Segmenter(nn.Module):
    """A small network with its loss."""

    def __init__(self, head, loss):
        super().__init__()
        torch.manual_seed(0)
        first = nn.Conv2d(3, 64, 3, padding=1)
        self.net = nn.Sequential(first, nn.BatchNorm2d(64), nn.ReLU(), head())
        self.loss = loss()

    def forward(self, images=IMAGES, labels=LABELS):
        return self.loss(self.net(images), labels)


class Mean(nn.Module):
    """In place of a loss: it stores nothing."""

    def forward(self, logits, labels):
        return logits.mean()


def stored(model):
    return measure_step(model, model, (IMAGES, LABELS)).stored


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("recipe", ["exact", "balanced", "compact"])
def test_nothing_is_stored_for_a_loss(recipe, head, loss):
    model, without = (Segmenter(HEADS[head], each) for each in (LOSSES[loss], Mean))
    dense = stored(model) - stored(without)
    for each in (model, without):
        razor_(each, recipe)
    assert dense > LOGITS
    assert abs(stored(model) - stored(without)) < 100  # bytes: sums, counts


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_is_the_dense_one(head, loss):
    dense = Segmenter(HEADS[head], LOSSES[loss])
    razor = copy.deepcopy(dense)
    razor_(razor, "exact")
    values = [model() for model in (dense, razor)]
    assert torch.equal(*values)
    for value in values:
        value.backward()
    for ours, theirs in zip(razor.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_it_runs_again_in_the_forwards_precision():
    gradients = []
    for recipe in (None, "exact"):
        model = Segmenter(HEADS["wide"], LOSSES["dice"])
        if recipe:
            razor_(model, recipe, include=["loss"])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.net(IMAGES)
            loss = model.loss(logits, LABELS)
        gradients += torch.autograd.grad(loss, logits)
    assert torch.equal(*gradients)


def test_logits_changed_before_backward_are_found_out():
    model = Segmenter(HEADS["wide"], LOSSES["dice"])
    razor_(model, "exact", include=["loss"])
    logits = model.net(IMAGES)
    loss = model.loss(logits, LABELS)
    logits.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_arguments_may_be_named():
    logits = torch.randn(4, CLASSES, SIDE, SIDE, requires_grad=True)
    loss = nn.CrossEntropyLoss()
    dense = torch.autograd.grad(loss(logits, LABELS), logits)
    razor_(loss, "exact")
    named = torch.autograd.grad(loss(target=LABELS, input=logits * 1), logits)
    torch.testing.assert_close(named, dense)


class Tempered(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits * self.scale, labels)


@pytest.fixture
def tempered():
    register(Tempered, role=Role.LOSS)
    yield Tempered
    del REGISTRY[Tempered]


@pytest.mark.parametrize("trained", [True, False])
def test_a_loss_of_ones_own(tempered, trained):
    model, without = (Segmenter(HEADS["wide"], each) for each in (tempered, Mean))
    razor_(model, "exact")
    razor_(without, "exact")
    scale = model.loss.scale.requires_grad_(trained)
    assert (abs(stored(model) - stored(without)) < 100) is not trained
    model().backward()
    assert (scale.grad is not None) is trained


def test_targets_that_need_a_gradient_get_it():
    logits, targets = (torch.randn(4, 5, requires_grad=True) for _ in range(2))
    gradients = []
    for razor in (False, True):
        loss = nn.CrossEntropyLoss()
        if razor:
            razor_(loss, "exact")
        value = loss(logits * 1, target=targets.softmax(1))
        gradients.append(torch.autograd.grad(value, [logits, targets]))
    torch.testing.assert_close(*gradients)
