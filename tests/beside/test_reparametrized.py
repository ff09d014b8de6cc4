"""Weights that are computed from others, before conversion and after it."""

import copy

import pytest
import torch
from beside.runs import IMAGES, Small, assert_same, fit, network
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from razorlight import BackRazor, is_converted, razor_, restore_


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


WAYS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "parametrization": lambda layer: parametrize.register_parametrization(
        layer, "weight", Doubled()
    ),
    "weight_norm by hooks": old_weight_norm,
    "spectral_norm by hooks": old_spectral_norm,
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


def apply(way, model):
    """To a convolution and to a Linear."""
    torch.manual_seed(1)
    for layer in (model[3], model[11]):
        WAYS[way](layer)


@pytest.mark.parametrize("converted_first", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_gradients(way, converted_first):
    torch.manual_seed(0)
    dense = network()
    razor = copy.deepcopy(dense)
    if converted_first:
        razor_(razor, "exact")
    for model in (dense, razor):
        apply(way, model)
    if not converted_first:
        razor_(razor, "exact")

    def assert_same_step():
        for model in (dense, razor):
            model.zero_grad()
            model(IMAGES).square().sum().backward()
        for (name, ours), theirs in zip(razor.named_parameters(), dense.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3, msg=name)

    assert_same_step()
    razor_(razor, "exact")  # as on_fit_start does
    assert_same_step()
    restore_(razor)
    assert not is_converted(razor)
    assert_same_step()
    assert type(razor[3]).forward is nn.Conv2d.forward


@pytest.mark.parametrize("converted_first", [True, False])
def test_parametrizations_are_removed(converted_first):
    model = network()
    if converted_first:
        razor_(model)
    parametrizations.weight_norm(model[3])
    if not converted_first:
        razor_(model)
    restore_(model)
    parametrize.remove_parametrizations(model[3], "weight")
    assert type(model[3]) is nn.Conv2d


class Normed(Small):
    """Parametrizes itself when Lightning sets it up, after its callbacks."""

    def setup(self, stage):
        parametrizations.weight_norm(self.backbone[3])


def test_a_module_that_parametrizes_itself(tmp_path):
    razor = BackRazor("exact")
    with pytest.warns(UserWarning, match=r"backbone\.3 \(Parametrized\w+\) stays dense"):
        model = fit(tmp_path, razor, module=Normed)
    assert_same(model, fit(tmp_path, module=Normed))
