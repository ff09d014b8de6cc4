"""Classes of layers that a user registers: by class and by path, with and without functions."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from razorlight import RazorError, razor_, register
from razorlight.layers import BY_PATH, REGISTRY
from razorlight.planning import Role


def test_register_a_layer_of_ones_own():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            return nn.functional.linear(x, self.weight) * 2

    model = nn.Sequential(nn.Linear(4, 4), Scaled())
    register(Scaled, functions=[nn.functional.linear], role=Role.PRODUCT)
    try:
        razor_(model, include=["1"])
        model(torch.randn(2, 4)).sum().backward()
        assert model[1].weight.grad is not None
    finally:
        del REGISTRY[Scaled]
    for classes, options, message in [
        ([Scaled], {"functions": [torch.cos]}, "no razor function for cos"),
        ([Scaled], {"functions": torch.cos}, "functions must be a list"),
        ([Scaled], {"role": "product"}, "role must be a razorlight.Role, got 'product'"),
        ([Scaled()], {}, "give classes of layers"),
        (["Scaled"], {}, "give classes of layers"),
    ]:
        with pytest.raises(RazorError, match=message):
            register(*classes, **{"role": Role.PRODUCT, **options})


class Squared(nn.Module):
    """Known by its path alone; writes a product out in other operations."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return (x[:, None] * self.weight).sum(-1)


def squared(layer, x, bias=None):
    return nn.functional.linear(x, layer.weight, bias)


class AsLinear:
    def __call__(self, layer, x):
        return squared(layer, x)


@pytest.mark.parametrize(
    "equivalent",
    [lambda layer, x: squared(layer, x), partial(squared, bias=None), AsLinear()],
    ids=["function", "partial", "object"],
)
def test_register_by_path_what_is_written_out(equivalent):
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(4, 4), Squared())
    razor = copy.deepcopy(dense)
    register(
        f"{Squared.__module__}.Squared",
        functions=[nn.functional.linear],
        role=Role.PRODUCT,
        equivalent=equivalent,
    )
    try:
        razor_(razor, "exact", include=["1"])
        assert type(pickle.loads(pickle.dumps(razor))[1]) is Squared
        x = torch.randn(2, 4)
        outputs = [model(x) for model in (dense, razor)]
        assert torch.equal(*outputs)
        for out in outputs:
            out.square().sum().backward()
        assert type(outputs[1].grad_fn).__name__ == "_RazorBackward"
        for p, q in zip(dense.parameters(), razor.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
    finally:
        del REGISTRY[Squared]


class Outer:
    class Layer(nn.Linear):
        pass


def test_register_by_path_a_class_within_a_class():
    path = f"{Outer.__module__}.Outer.Layer"
    register(path, "nowhere.at.All", functions=[nn.functional.linear], role=Role.PRODUCT)
    try:
        plan = razor_(nn.Sequential(nn.Linear(4, 4), Outer.Layer(4, 4)), include=["1"])
        assert [line.layer for line in plan.only("converted")] == ["Layer"]
    finally:
        del REGISTRY[Outer.Layer], BY_PATH["nowhere.at.All"]
