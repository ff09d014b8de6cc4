"""Tensors that change between forward and backward, or between steps: no record lies about them."""

import copy
import io

import numpy as np
import pytest
import timm
import torch
from torch import nn

from razorlight import razor_, register
from razorlight.layers import REGISTRY
from razorlight.memory.meter import StorageMeter, model_tensors
from razorlight.planning import Role


class AfterAnUpsample(nn.Module):
    """What was upsampled is changed, and the result is read."""

    def __init__(self):
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2)
        self.relu, self.small, self.large = nn.ReLU(inplace=True), *conv_pair()

    def forward(self, x):
        x = self.first(x)
        up = self.up(x)
        return self.small(self.relu(x)).square().sum() + self.large(up).square().sum()


class Join(nn.Module):
    def forward(self, x):
        return torch.cat([x, x * 2], 1)


@pytest.fixture(autouse=True, scope="module")
def joins_are_known():
    register(Join, role=Role.VIEW)
    yield
    del REGISTRY[Join]


class AfterAJoin(AfterAnUpsample):
    """The same of parts that are joined, by a block that hands records on."""

    def __init__(self):
        super().__init__()
        self.up, self.large = Join(), nn.Conv2d(8, 4, 3)


class AfterDropout(nn.Module):
    """What was dropped out is changed; the layer that had stored it has no part in the loss."""

    def __init__(self):
        super().__init__()
        self.first, self.aside, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.first(x) * 1
        self.aside(x)
        dropped = self.drop(x)
        x.mul_(3)
        return self.last(dropped).square().sum()


class BehindAScale(nn.Module):
    """The input of a scaled Linear is changed before the scale, if at all."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.first, self.linear = nn.Linear(8, 32), nn.Linear(32, 32)
        self.scale = timm.layers.LayerScale(32, 0.5)

    def forward(self, x):
        x = self.first(x).tanh() * 1
        y = self.linear(x)
        if self.change:
            x.mul_(2)
        return self.scale(y).square().sum()


def conv_pair():
    return nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3)


def gradients(model, x):
    model.zero_grad()
    torch.manual_seed(0)
    model(x).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("build", [AfterAnUpsample, AfterAJoin, AfterDropout])
def test_gradients_of_what_was(build):
    torch.manual_seed(0)
    dense = build()
    razor = copy.deepcopy(dense)
    razor_(razor, "exact")
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(gradients(razor, x), gradients(dense, x), rtol=1e-4, atol=1e-4)


def test_where_dense_raises_razor_does():
    model = BehindAScale(change=True)
    razor_(model, "exact")
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        gradients(model, torch.randn(16, 4, 8))


def test_compiled_a_scale_reads_what_was():
    dense, x = BehindAScale(change=False), torch.randn(16, 4, 8)
    razor = copy.deepcopy(dense)
    razor_(razor, "exact")
    razor.change = True
    razor.compile(backend="aot_eager")
    torch.testing.assert_close(gradients(razor, x), gradients(dense, x), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


class Branches(nn.Module):
    """Several layers that read the batch."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(8, 4) for _ in range(4)])

    def forward(self, x):
        return sum(branch(x).square().sum() for branch in self.branches)


def test_a_batch_filled_anew_where_no_version_tells():
    torch.manual_seed(0)
    dense = Branches()
    razor = copy.deepcopy(dense)
    razor_(razor, "balanced")
    memory = np.zeros((64, 8), np.float32)
    batch = torch.from_numpy(memory)
    for step in range(3):
        memory[:] = np.random.default_rng(step).normal(size=memory.shape)
        for ours, theirs in zip(gradients(razor, batch), gradients(dense, batch), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.02 * theirs.abs().max())


def test_no_record_stays_on_the_batch():
    razor = Branches()
    razor_(razor, "balanced", include=["*"])
    batch = torch.randn(64, 8)
    gradients(razor, torch.randn(64, 8))  # so that gradients exist
    with StorageMeter() as meter:
        meter.track(model_tensors(razor), batch)
        before = meter.live
        razor(batch).backward()
        assert meter.live == before


@pytest.mark.parametrize("of", ["batch", "output"])
def test_a_copy_carries_no_record(of):
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    razor_(model, "balanced", include=["*"])
    batch = torch.randn(4, 8)
    tensor = {"batch": batch, "output": model(batch)}[of]
    file = io.BytesIO()
    torch.save(tensor, file)
    file.seek(0)
    copies = [torch.load(file, weights_only=True)]
    if tensor.is_leaf:  # others cannot be copied
        copies.append(copy.deepcopy(tensor))
    for each in copies:
        assert torch.equal(each, tensor)
        assert not getattr(each, "_razorlight", None)
        model(each).sum().backward()
