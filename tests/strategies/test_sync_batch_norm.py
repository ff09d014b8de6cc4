"""``Trainer(sync_batchnorm=True)`` makes layers that stay dense, and that is said.

On a CPU DDP refuses them, and torch itself where there are several processes.
"""

import pytest
import torch
from runs import Module, cnn, cosine, images, loader, trainer
from torch import nn

from razorlight import BackRazor, razor_


def synchronised():
    return nn.SyncBatchNorm.convert_sync_batchnorm(cnn())


def test_they_are_near_misses():
    model, razor = Module(synchronised), BackRazor()
    with pytest.warns(UserWarning, match="SyncBatchNorm") as caught:
        trainer(callbacks=[razor], max_epochs=1).fit(model, loader(8))
    (said,) = [str(each.message) for each in caught if "stays dense" in str(each.message)]
    assert said.startswith("BackRazor: net.0.1 (SyncBatchNorm) stays dense, as do 1 more: its ")
    assert "Conv2d" in {line.layer for line in razor.plan.only("converted")}


@pytest.mark.parametrize("recipe", ["exact", "balanced"])
def test_made_of_razor_layers_they_are_dense(recipe):
    """As when they are made between setup and on_fit_start."""
    net = cnn()
    razor_(net, recipe)
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    razor_(net, recipe)
    assert type(net[0][1]) is nn.SyncBatchNorm
    gradients = []
    for model in (net, cnn()):
        model(images(8)[:][0]).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert cosine(*gradients) > (0.99999 if recipe == "exact" else 0.99)
