import pytest
import torch
from torch import nn

from razorlight.errors import RazorError
from razorlight.memory.meter import AllocatorMeter, storage_bytes
from razorlight.memory.step import StepMemory, measure_step


def test_stored_and_peak_of_one_linear():
    net = nn.Linear(8, 16, bias=False)
    x = torch.randn(4, 8)
    y, weight, loss = 4 * 16 * 4, 8 * 16 * 4, 4
    measured = measure_step(net, lambda: net(x).exp().sum(), x)
    assert measured.stored == y + loss  # exp keeps its result, Linear the batch
    # in Linear's backward: its gradient, the weight's, those of exp and the loss, the loss
    assert measured.peak == storage_bytes(net.weight, x) + y + weight + 2 * loss


def test_peak_holds_the_gradients():
    net = nn.Linear(1000, 1000, bias=False)
    x = torch.randn(1, 1000)
    weight = 4 * 1000**2
    peak = measure_step(net, lambda: net(x).sum(), x).peak
    assert 2 * weight < peak < 2 * weight + 5 * 4 * 1000


def test_leaves_the_model_as_it_was():
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    x = torch.randn(4, 8, requires_grad=True)
    gradient = net[0].weight.grad = torch.ones(8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random_state = torch.get_rng_state()
    first = measure_step(net, lambda: net(x).sum(), x)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net[0].weight.grad is gradient
    assert torch.equal(gradient, torch.ones(8, 8))
    assert net[0].bias.grad is None
    assert x.grad is None
    assert measure_step(net, lambda: net(x).sum(), x) == first


def test_restores_after_a_failure():
    net = nn.BatchNorm1d(4)

    def step():
        net(torch.randn(8, 4))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure_step(net, step)
    assert net.num_batches_tracked == 0


@pytest.mark.parametrize("wrong", [None, torch.zeros(()), torch.zeros(3, requires_grad=True)])
def test_refuses_what_is_no_loss(wrong):
    with pytest.raises(RazorError, match=r"scalar loss, got|requires no gradient"):
        measure_step(nn.Linear(1, 1), lambda: wrong)


@pytest.mark.parametrize("others", [0, 10**9])
def test_what_others_hold_on_cuda_is_left_out(allocator, monkeypatch, others):
    device = torch.device("cuda")
    monkeypatch.setattr("razorlight.memory.step.meter_for", lambda _: AllocatorMeter(device))
    net = nn.Linear(1000, 1)
    own = storage_bytes(list(net.parameters()))
    allocator.allocate(others + own)

    def step():
        allocator.allocate(500)
        loss = net(torch.ones(1000)).sum()
        loss.register_hook(lambda _: allocator.allocate(700))
        return loss

    assert measure_step(net, step) == StepMemory(stored=500, peak=own + 1200)
