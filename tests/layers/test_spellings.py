"""One function in all its spellings: whichever is registered, each stores as the others do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razorlight import Role, razor_, register
from razorlight.functional import FUNCTIONS
from razorlight.functional.spellings import SPELLINGS
from razorlight.layers import REGISTRY

CALLS = {
    F.softmax: (
        lambda x: F.softmax(x, -1),
        lambda x: F.softmax(input=x, dim=-1, dtype=torch.float32),
        lambda x: torch.softmax(x, -1),
        lambda x: torch.softmax(x, -1, torch.float32),
        lambda x: torch.special.softmax(x, -1),
        lambda x: x.softmax(-1, torch.float32),
        lambda x: x.softmax(dim=-1),
    ),
    torch.matmul: (
        lambda x: torch.matmul(x, x.mT),
        lambda x: torch.matmul(input=x, other=x.mT),
        lambda x: torch.bmm(x, mat2=x.mT),
        lambda x: x.bmm(x.mT),
        lambda x: x @ x.mT,
        lambda x: x.mT.__rmatmul__(x),
        lambda x: torch.linalg.matmul(x, x.mT),
        lambda x: torch.stack([torch.mm(a, mat2=a.mT) for a in x]),
        lambda x: torch.stack([a.mm(a.mT) for a in x]),
    ),
    torch.mul: (
        lambda x: torch.mul(x, x.sin()),
        lambda x: torch.multiply(x, other=x.sin()),
        lambda x: x.mul(x.sin()),
        lambda x: x.multiply(x.sin()),
        lambda x: x * x.sin(),
        lambda x: x.sin().__rmul__(x),
    ),
    F.relu: (
        lambda x: F.relu(x),
        lambda x: torch.relu(input=x),
        lambda x: x.relu(),
        lambda x: F.relu(x * 1, inplace=True),
        lambda x: torch.relu_(x * 1),
        lambda x: (x * 1).relu_(),
    ),
    F.hardtanh: (
        lambda x: F.hardtanh(x, 0, 6),
        lambda x: F.hardtanh_(x * 1, 0, 6),
        lambda x: F.relu6(x),
        lambda x: F.relu6(x * 1, inplace=True),
    ),
    F.leaky_relu: (lambda x: F.leaky_relu(x), lambda x: F.leaky_relu_(x * 1)),
    F.dropout: (
        lambda x: F.dropout(x, 0.5),
        lambda x: torch.dropout(x, 0.5, train=True),
        lambda x: torch.dropout_(x * 1, 0.5, True),
    ),
    F.layer_norm: (
        lambda x: F.layer_norm(x, [6]),
        lambda x: torch.layer_norm(x, [6], cudnn_enable=False),
        lambda x: torch.layer_norm(x, [6], None, None, 1e-5, True),
    ),
    F.group_norm: (
        lambda x: F.group_norm(x, 2),
        lambda x: torch.group_norm(x, 2, None, None, 1e-5, False),
    ),
    F.batch_norm: (
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False),
    ),
    F.rms_norm: (lambda x: F.rms_norm(x, [6]), lambda x: torch.rms_norm(x, [6])),
    F.max_pool1d: (lambda x: F.max_pool1d(x, 2), lambda x: torch.max_pool1d(x, 2)),
    F.max_pool2d: (lambda x: F.max_pool2d(x, 2), lambda x: torch.max_pool2d(x, 2)),
    F.max_pool3d: (
        lambda x: F.max_pool3d(x[None, None], (1, 2, 2)),
        lambda x: torch.max_pool3d(x[None, None], (1, 2, 2)),
    ),
    F.celu: (lambda x: F.celu(x), lambda x: torch.celu(x), lambda x: torch.celu_(x * 1)),
    F.selu: (lambda x: F.selu(x), lambda x: torch.selu(x), lambda x: torch.selu_(x * 1)),
    F.prelu: (
        lambda x: F.prelu(x, x[0, 0, :1]),
        lambda x: x.prelu(x[0, 0, :1]),
    ),
    torch.sigmoid: (
        lambda x: torch.sigmoid(x),
        lambda x: x.sigmoid(),
        lambda x: torch.special.expit(x),
        lambda x: F.sigmoid(x),
    ),
    torch.tanh: (lambda x: torch.tanh(input=x), lambda x: x.tanh(), lambda x: F.tanh(x)),
    torch.addmm: (
        lambda x: torch.addmm(x[0, 0], x[1], x[0, :2].repeat(3, 1)),
        lambda x: x[0, 0].addmm(x[1], x[0, :2].repeat(3, 1)),
    ),
}


class Calls(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def result(call):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, requires_grad=True)
    out = call(x)
    out.backward(torch.randn_like(out))
    return out.detach(), x.grad, type(out.grad_fn).__name__


def razored(call, function):
    register(Calls, functions=[function], role=Role.PRODUCT)
    try:
        layer = Calls(call)
        return razor_(layer, "exact", include=["*"]), layer, result(layer)
    finally:
        del REGISTRY[Calls]


@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
def test_each_spelling_is_replaced_whichever_is_registered(function):
    spellings = [function, *SPELLINGS[function]]
    for i, call in enumerate(CALLS[function]):
        report, layer, (out, d_x, _) = razored(call, spellings[i % len(spellings)])
        expected = result(call)
        assert torch.equal(out, expected[0])
        torch.testing.assert_close(d_x, expected[1])
        assert layer.razor_seen.called, i
        assert not report.warnings()


def test_every_spelling_is_tried_and_known():
    assert CALLS.keys() == SPELLINGS.keys()
    assert all(spelling in FUNCTIONS for group in SPELLINGS.values() for spelling in group)


def test_what_is_written_to_out_is_left_to_torch():
    def into(x):
        with torch.no_grad():
            into.out = torch.empty(2, 4, 4)
        return torch.matmul(x, x.mT, out=into.out)

    messages = []
    for run in (lambda: result(into), lambda: razored(into, torch.matmul)):
        with pytest.raises(RuntimeError) as error:
            run()
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_a_function_that_is_never_called_is_named():
    report, _, _ = razored(lambda x: x.exp() / x.exp().sum(-1, keepdim=True), F.softmax)
    (line,) = report.warnings()
    assert line.startswith("the root (Calls) never called softmax")
    assert line in str(report)


def test_functions_of_known_layers_are_alternatives():
    model = nn.TransformerEncoderLayer(8, 2, 8)
    report = razor_(model)
    model(torch.randn(3, 2, 8)).sum().backward()
    assert not report.warnings()
