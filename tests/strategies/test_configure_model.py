"""Networks that are made late, or without memory for their weights at first."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from runs import Module, cnn, fit, images, loader, parameters, trainer, vit

from razorlight import BackRazor, is_converted, razor_


class OnMeta(Module):
    """Made in configure_model on no device, then given memory and weights."""

    def __init__(self, build):
        LightningModule.__init__(self)
        self.build, self.net = build, None
        self.first_output = self.first_gradient = None

    def configure_model(self):
        if self.net is None:
            with torch.device("meta"):
                self.net = self.build()
            self.net.to_empty(device="cpu")
            self.net.load_state_dict(self.build().state_dict())


@pytest.mark.parametrize("recipe", ["exact", "balanced", "checkpoint"])
def test_made_on_meta_in_configure_model(recipe):
    model, razor = OnMeta(vit), BackRazor(recipe)
    trainer(callbacks=[razor]).fit(model, loader(8))
    assert razor.plan.only("converted")
    assert not is_converted(model)
    assert np.array_equal(parameters(model), fit(vit, recipe))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("build", [vit, cnn])
def test_weights_given_after_the_conversion(build, assign):
    with torch.device("meta"):
        late = build()
    razor_(late)
    late.to_empty(device="cpu")
    late.load_state_dict(build().state_dict(), assign=assign)
    early = build()
    razor_(early)
    batch = images(8)[:][0]
    for net in (late, early):
        net(batch).square().sum().backward()
    for a, b in zip(late.parameters(), early.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_made_empty_by_the_trainer():
    run = trainer("balanced")
    with run.init_module(empty_init=True):
        model = Module(cnn)
    model.net.load_state_dict(copy.deepcopy(cnn().state_dict()))
    run.fit(model, loader(8))
    assert np.array_equal(parameters(model), fit(cnn, "balanced"))
