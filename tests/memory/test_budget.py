"""A plan within a budget of the peak."""

import pytest
import torch
from small_networks import tiny_vit
from torch.nn.functional import cross_entropy

from razorlight import Plan, RazorError, razor_
from razorlight.memory import measure_step, plan_within
from razorlight.memory.amounts import parse_budget


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = tiny_vit(64, 8, width=64, drop_path_rate=0.1)
    return model, (torch.randn(16, 3, 64, 64), torch.randint(3, (16,)))


def loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def measured_peak(model, batch):
    return measure_step(model, lambda: loss(model, batch), batch).peak


def test_the_measured_peak_is_within_the_budget(network, tmp_path):
    model, batch = network
    dense, peaks = measured_peak(model, batch), []
    for share in (0.9, 0.7, 0.55):
        found = plan_within(share, model, loss, batch)
        assert found.dense_peak == pytest.approx(dense, rel=0.01)
        razor_(model, plan=found.plan)
        peaks.append(measured_peak(model, batch))
        assert peaks[-1] == pytest.approx(found.peak, rel=0.01)
        assert 0.8 * share * dense < peaks[-1] <= share * dense
        assert f"within {found.limit / 2**20:.1f} MiB" in str(found)
        assert {*found.ways.values()} - {"dense"}
        found.plan.save(tmp_path / "plan.yaml")
        assert Plan.load(tmp_path / "plan.yaml").layers == found.plan.layers
    assert peaks == sorted(peaks, reverse=True)


def test_dense_is_kept_where_it_fits(network):
    model, batch = network
    found = plan_within(2**30, model, loss, batch)
    assert not found.plan.layers
    assert str(found).startswith("dense fits into 1024.0 MiB, ")


def test_a_budget_that_is_too_small_names_the_smallest(network):
    model, batch = network
    with pytest.raises(
        RazorError, match=r"within 1\.0 MiB; the smallest budget .* is [\d.]+ MiB"
    ) as e:
        plan_within(2**20, model, loss, batch)
    smallest = int(float(str(e.value).split()[-2]) * 2**20)
    assert plan_within(smallest, model, loss, batch).peak <= smallest


def test_a_network_without_known_layers():
    model, x = torch.nn.Sequential(torch.nn.Linear(64, 64)), torch.randn(8, 64)
    found = plan_within(2**30, model, lambda model, x: model(x).sum(), x)
    assert not found.plan.layers


def test_with_the_optimizer(network):
    model, batch = network
    chosen = {"exclude": ["blocks.0"]}

    def optimizer(model):
        return torch.optim.AdamW(model.parameters())

    without = plan_within(0.9, model, loss, batch, **chosen)
    found = plan_within(0.9, model, loss, batch, optimizer, **chosen)
    assert found.dense_peak > without.dense_peak
    assert not [name for name in found.plan.layers if name.startswith("blocks.0")]


@pytest.mark.parametrize(
    ("given", "budget"),
    [("6GiB", 6 * 2**30), ("0.25", 0.25), (0.25, 0.25), ("500 MB", 500 * 2**20)],
)
def test_budgets(given, budget):
    assert parse_budget(given) == budget


@pytest.mark.parametrize("given", [0, 1, 2.5, "3", "1.0", -0.5])
def test_no_budgets(given):
    with pytest.raises(RazorError, match=r"memory_budget is .*; give an amount such as 6GiB"):
        parse_budget(given)
