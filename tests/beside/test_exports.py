"""What is exported from a converted module is the dense program, in training mode too."""

import copy

import pytest
import torch
from beside.runs import IMAGES, network
from beside.test_autograd import BLOCKS, vit
from torch import nn

from razorlight import RazorError, is_converted, razor_, restore_

CASES = [(network, "balanced"), (vit, "balanced"), (vit, BLOCKS)]


def exported_strictly(model):
    return torch.export.export(model, (IMAGES,), strict=True).module()


EXPORTS = [
    (lambda model: torch.jit.trace(model, IMAGES, check_trace=False), CASES),
    (lambda model: torch.export.export(model, (IMAGES,)).module(), CASES),
    (exported_strictly, CASES[:1]),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("export", "build", "recipe"), [(export, *case) for export, cases in EXPORTS for case in cases]
)
@pytest.mark.filterwarnings("ignore")
def test_gradients_of_an_export_are_dense(export, build, recipe, training):
    torch.manual_seed(0)
    dense = build().train(training)
    for layer in dense.modules():
        if isinstance(layer, nn.Dropout):  # it draws otherwise in other programs
            layer.p = 0.0
    razor = copy.deepcopy(dense)
    razor_(razor, recipe)
    exported = export(razor)
    assert is_converted(razor)
    for model in (dense, exported):
        model(IMAGES * 2).square().sum().backward()
    actual = dict(exported.named_parameters())
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(
            actual[name].grad, parameter.grad, rtol=1e-4, atol=1e-4, msg=name
        )


@pytest.mark.parametrize("recipe", ["balanced", BLOCKS], ids=["balanced", "blocks"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_scripts_are_refused(recipe):
    razor = vit()
    razor_(razor, recipe)
    with pytest.raises(RazorError, match=r"Razor\w+: torch.jit.script takes no razor layers"):
        torch.jit.script(razor)
    assert is_converted(razor)
    restore_(razor)
    torch.jit.script(razor)
