"""Tensors that are not plain real numbers in rows: complex, sparse, nested, of other classes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from razorlight import razor_
from razorlight.layers import REGISTRY, register
from razorlight.planning import Role


def complex_(*shape):
    return torch.randn(shape, dtype=torch.cfloat, requires_grad=True)


def real(*shape):
    return torch.randn(shape, requires_grad=True)


CALLS = [
    (F.linear, lambda: (complex_(5, 4), complex_(3, 4), complex_(3))),
    (F.linear, lambda: (torch.randn(5, 4, dtype=torch.cfloat), complex_(3, 4))),
    (torch.addmm, lambda: (complex_(3), complex_(5, 4), complex_(4, 3))),
    (torch.matmul, lambda: (complex_(2, 5, 4), complex_(2, 4, 3))),
    (torch.bmm, lambda: (complex_(2, 5, 4), complex_(2, 4, 3))),
    (torch.mul, lambda: (complex_(5, 4), complex_(5, 4))),
    (torch.mul, lambda: (real(5, 4), complex_(5, 4))),
    (torch.mul, lambda: (complex_(50, 4), real(4))),
    (torch.mul, lambda: (real(50, 4), complex_(4))),
    (F.conv1d, lambda: (complex_(2, 3, 9), complex_(4, 3, 3), complex_(4))),
    (F.conv2d, lambda: (complex_(2, 3, 9, 9), complex_(4, 3, 3, 3), complex_(4))),
    (F.conv3d, lambda: (complex_(2, 3, 5, 5, 5), complex_(4, 3, 3, 3, 3))),
    (F.conv_transpose2d, lambda: (complex_(2, 3, 9, 9), complex_(3, 4, 3, 3), complex_(4))),
    (F.pad, lambda: (complex_(2, 3, 9, 9), [1, 1, 1, 1], "reflect")),
    (F.rms_norm, lambda: (complex_(5, 4), [4], complex_(4))),
]


def gradients(make, call):
    torch.manual_seed(0)
    arguments = make()
    out = call(*arguments)
    torch.manual_seed(1)
    out.backward(torch.randn_like(out))
    return [out.detach(), *(x.grad for x in arguments if isinstance(x, torch.Tensor))]


@pytest.mark.parametrize("recipe", ["exact", "balanced", "paper"])
@pytest.mark.parametrize(("function", "make"), CALLS)
def test_complex_gradients_are_those_of_torch(function, make, recipe):
    class Calls(nn.Module):
        def forward(self, *arguments):
            return function(*arguments)

    register(Calls, functions=[function], role=Role.PRODUCT)
    try:
        razor = Calls()
        razor_(razor, recipe, include=["*"])
        with pytest.warns(UserWarning, match=r"the root \(Calls\) meets a complex tensor"):
            ours = gradients(make, razor)
        theirs = gradients(make, function)
    finally:
        del REGISTRY[Calls]
    for gradient, expected in zip(ours, theirs, strict=True):
        assert gradient is expected or torch.equal(gradient, expected)


class Complex(nn.Module):
    """A block that moves complex numbers about and gives real ones to its layers."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6, dtype=torch.cfloat), nn.Linear(6, 6)
        self.act, self.loss = nn.GELU(), nn.CrossEntropyLoss()

    def forward(self, x):
        z = self.first(torch.complex(x, x.flip(-1))).unflatten(0, (2, -1)).flatten(0, 1)
        return self.act(self.last(z.conj().imag)) * self.last(z.real)


def as_jagged(x):
    parts = [x[:3], x[3:]]
    return torch.nested.as_nested_tensor(parts, layout=torch.jagged)


def as_strided_nest(x):
    return torch.nested.as_nested_tensor([x[:3], x[3:]])


class Marked(torch.Tensor):
    """A class of tensors of somebody's own, as those that carry what is known of an image."""


NETWORKS = {
    "complex": (Complex, lambda x: x),
    **{
        name: (lambda: nn.Linear(6, 6), to)
        for name, to in {
            "sparse COO": torch.Tensor.to_sparse,
            "sparse CSR": torch.Tensor.to_sparse_csr,
            "sparse CSC": torch.Tensor.to_sparse_csc,
        }.items()
    },
    **{
        name: (lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU()), to)
        for name, to in {
            "jagged": as_jagged,
            "nested": as_strided_nest,
            "marked": lambda x: x.as_subclass(Marked),
        }.items()
    },
}


def loss_of(out):
    out = torch.cat(out.unbind()) if out.is_nested else out
    return out.square().mean()


def flat_gradients(model):
    gradients = [p.grad for p in model.parameters()]
    return torch.cat([torch.view_as_real(g + 0j).flatten() for g in gradients])


@pytest.mark.parametrize("recipe", ["exact", "balanced", "compact", "paper"])
@pytest.mark.parametrize("name", NETWORKS)
def test_other_tensors_are_as_dense(name, recipe):
    make, to = NETWORKS[name]
    torch.manual_seed(0)
    dense = nn.ModuleList([make()])
    razor = copy.deepcopy(dense)
    razor_(razor, recipe, include=["*"])
    x = torch.randn(8, 6)
    expected = loss_of(dense[0](to(x)))
    with pytest.warns(UserWarning, match=r"razorlight: 0.* is left to torch"):
        loss = loss_of(razor[0](to(x)))
    assert type(loss) is type(expected)
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    ours, theirs = flat_gradients(razor), flat_gradients(dense)
    if name != "complex" or recipe == "exact":  # the others are wholly torch's
        torch.testing.assert_close(ours, theirs)
    else:
        assert torch.cosine_similarity(ours, theirs, dim=0) > (0.5 if recipe == "paper" else 0.98)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.b(self.a(x))


@pytest.mark.parametrize("to", [torch.Tensor.to_sparse, as_jagged])
def test_blocks_take_other_tensors(to):
    dense = nn.ModuleList([Block()])
    razor = copy.deepcopy(dense)
    razor_(razor, "checkpoint")
    gradients = []
    for model in (dense, razor):
        x = torch.linspace(-1, 1, 48).view(8, 6).requires_grad_()
        loss_of(model[0](to(x))).backward()
        gradients.append([x.grad, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*gradients)


def test_a_loss_of_complex_logits():
    class Modulus(nn.Module):
        def forward(self, z):
            return (z * z.conj()).real.sum()

    register(Modulus, role=Role.LOSS)
    try:
        loss = Modulus()
        razor_(loss, "balanced")
        z = torch.randn(4, 4, dtype=torch.cfloat, requires_grad=True)
        loss(z).backward()
        torch.testing.assert_close(z.grad, 2 * z.detach())
    finally:
        del REGISTRY[Modulus]
