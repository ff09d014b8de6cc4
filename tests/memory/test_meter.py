import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from razorlight.errors import RazorError
from razorlight.memory.meter import StorageMeter, meter_for, model_tensors, storage_bytes


@torch.library.custom_op("razorlight_tests::with_scratch", mutates_args=())
def with_scratch(x: torch.Tensor) -> torch.Tensor:
    """An operator that needs 10 times its input for a while."""
    return x.repeat(10).view(10, -1).sum(0)


def test_counts_outputs_until_they_are_freed():
    with StorageMeter() as meter:
        a = torch.zeros(100)
        b = a + 1
        assert meter.live == 800
        del a
        assert meter.live == 400
        c = b.to(torch.float64)
        del b, c
    assert meter.live == 0
    assert meter.peak == 1200


def test_views_and_in_place_results_add_nothing():
    with StorageMeter() as meter:
        a = torch.zeros(10, 10)
        view = a.t()[2:].relu_()
        del a
        assert meter.live == meter.peak == 400  # the view alone keeps the storage
        del view
    assert meter.live == 0


def test_tracked_tensors_count_once_and_leave_with_their_storage():
    a, b = torch.zeros(100), torch.zeros(50)
    meter = StorageMeter()
    meter.track(a, {"again": [a.view(10, 10)], "b": (b, "text", None)})
    assert meter.live == storage_bytes(a, b) == 600
    with meter:
        a.mul_(2)
        assert meter.live == 600
        del a
    assert (meter.live, meter.peak) == (200, 600)


def test_follows_a_storage_that_is_resized_and_one_allocated_at_the_same_place():
    with StorageMeter() as meter:
        a = torch.zeros(10)
        a.resize_(100)
        assert meter.live == 400
        del a
        for _ in range(5):
            b = torch.zeros(100)
            del b
        assert (meter.live, meter.peak) == (0, 400)


@pytest.mark.parametrize("inplace", [False, True])
def test_linear_relu_linear_stores_one_activation(inplace):
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace), nn.Linear(16, 2))
    x = torch.randn(4, 8)
    with StorageMeter() as meter:
        meter.track(model_tensors(net), x)
        before = meter.live
        y = net(x)
        # autograd keeps ReLU's result for ReLU and for the second Linear: (4, 16); y is (4, 2)
        after = 4 * 16 * 4 + 4 * 2 * 4
        assert meter.live - before == after
    both_sides_of_relu = 2 * 4 * 16 * 4
    assert meter.peak - before == (after if inplace else both_sides_of_relu)
    del y
    assert meter.live == before


def test_convolution_keeps_its_input_and_frees_it_in_backward():
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    with StorageMeter() as meter:
        meter.track(model_tensors(conv))
        weight = 8 * 3 * 9 * 4
        loss = conv(torch.randn(2, 3, 6, 6)).sum()
        assert meter.live == weight + 2 * 3 * 36 * 4 + 4
        loss.backward()
        assert meter.live == 2 * weight + 4  # the weight, its gradient, the loss


def test_backward_is_seen_to_the_byte():
    x = torch.randn(1000, requires_grad=True)
    with StorageMeter() as meter:
        meter.track(x)
        x.exp().sum().backward()  # keeps exp's result
        assert meter.live == 2 * 4000  # x and its gradient
    assert meter.peak == 3 * 4000 + 2 * 4  # with exp's result, the loss and its gradient


def test_sees_recomputation_under_checkpoint():
    x = torch.randn(1000, requires_grad=True)
    with StorageMeter() as meter:
        meter.track(x)
        y = checkpoint(lambda t: t.exp().exp(), x, use_reentrant=False)
        assert meter.live == 2 * 4000  # x, y: neither of the two results is kept
        y.sum().backward()
    assert meter.peak == 5 * 4000 + 2 * 4  # x, y, both results again, one gradient


def test_scratch_within_a_custom_operator_counts():
    x = torch.ones(100)
    with StorageMeter() as meter:
        y = with_scratch(x)
        assert meter.live == 400
    assert torch.equal(y, torch.full((100,), 10.0))
    assert meter.peak == 4000 + 400


def test_sparse_gradients_count():
    table = nn.Embedding(1000, 4, sparse=True)
    with StorageMeter() as meter:
        index = torch.tensor([1, 2])
        table(index).sum().backward()
        assert table.weight.grad.is_sparse
        assert storage_bytes(table.weight.grad) == 2 * 8 + 2 * 4 * 4
        assert meter.live == storage_bytes(index, table.weight.grad)


def test_meters_nest():
    with StorageMeter() as outer, StorageMeter() as inner:
        a = F.relu(torch.zeros(100))
        assert outer.live == inner.live == storage_bytes(a)


def test_refuses_a_device_it_cannot_measure():
    with pytest.raises(RazorError, match="cpu and cuda"):
        meter_for(torch.device("meta"))


@pytest.mark.parametrize("is_compiled_before", [False, True])
def test_compiled_code_runs_eagerly_even_as_one_graph(is_compiled_before):
    def function(x):
        return (x + 1) * 2

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    x = torch.zeros(100)
    if is_compiled_before:
        compiled(x)
    peaks = []
    for each in (function, compiled):
        with StorageMeter() as meter:
            each(x)
        peaks.append(meter.peak)
    assert peaks == [800, 800]
