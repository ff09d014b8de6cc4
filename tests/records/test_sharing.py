"""Records that are attached to tensors: who finds them, and when they are void."""

import copy
import pickle

import pytest
import torch
from torch import nn

from razorlight import Dense, TopK, Uniform
from razorlight.planning import CHEAP, LayerPlan
from razorlight.records import (
    LinearOutput,
    Record,
    as_it_is,
    attach_encoded,
    attach_product,
    attach_record,
    carry_joined,
    carry_record,
    find,
    forget_leaves,
    made_from,
    store,
)
from razorlight.records.sharing import Rearranged

SHARED = LayerPlan(Uniform(8), shares=True)
ALONE = LayerPlan(Uniform(8))


def activation(*shape):
    return torch.randn(*(shape or (4, 8)), requires_grad=True) * 1.0


def test_a_value_is_stored_once():
    x = activation()
    assert find(x, SHARED) is None
    record = store(x, SHARED)
    assert store(x, SHARED) is record
    assert find(x, LayerPlan(Dense(), shares=True)) is record
    torch.testing.assert_close(record.read(), x.detach(), rtol=0, atol=0.05)


def test_who_shares_nothing_reads_records_of_the_same_codec_alone():
    x = activation()
    record = store(x, ALONE)
    assert find(x, ALONE) is record
    assert find(x, LayerPlan(Uniform(4))) is None
    assert find(x, ALONE, torch.float64) is None


def test_a_pruned_record_is_for_its_own_codec_alone():
    x, pruned = activation(), LayerPlan(TopK(0.5), shares=True)
    record = store(x, pruned)
    assert find(x, pruned) is record
    assert find(x, SHARED) is None


def test_an_in_place_change_makes_a_record_void():
    x = activation()
    record = store(x, SHARED)
    with torch.no_grad():
        x.add_(1)
    assert find(x, SHARED) is None
    assert store(x, SHARED) is not record


def test_a_change_of_what_the_record_holds_makes_it_void():
    x, weight = activation(), torch.ones(4, 8)
    attach_record(x, as_it_is(weight), SHARED)
    assert find(x, SHARED) is not None
    weight.mul_(2)
    assert find(x, SHARED) is None


def test_a_record_is_read_in_the_dtype_of_the_operation():
    x = activation()
    store(x, SHARED)
    record = find(x, SHARED, torch.bfloat16)
    assert record.read().dtype == torch.bfloat16
    assert store(activation(), SHARED, torch.bfloat16).read().dtype == torch.bfloat16


def test_what_is_attached_to_leaves_is_forgotten_when_backward_begins():
    batch = torch.randn(4, 8)
    record = store(batch, SHARED)
    assert find(batch, SHARED) is record
    assert find(batch, LayerPlan(Uniform(4), shares=True)) is None, "it may be another network's"
    forget_leaves()
    assert find(batch, SHARED) is None


def test_nothing_is_attached_to_a_parameter_or_an_inference_tensor():
    weight = nn.Parameter(torch.randn(4, 8))
    store(weight, SHARED)
    assert not hasattr(weight, "_razorlight")
    with torch.inference_mode():
        x = torch.randn(4, 8)
        store(x, SHARED)
        assert find(x, SHARED) is None


def test_a_copy_has_nothing_attached():
    x = torch.randn(4, 8)
    store(x, SHARED)
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert find(twin, SHARED) is None


@pytest.mark.parametrize("layout", ["whole", "part"])
def test_a_small_part_does_not_keep_a_large_tensor_alive(layout):
    tokens = activation(4, 16, 8)
    x = tokens[:, 0] if layout == "part" else tokens
    record = store(x, LayerPlan(Dense(), shares=True))
    shares_memory = record.tensors[0].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert shares_memory == (layout == "whole")


def test_a_record_of_what_is_overwritten_has_its_own_memory():
    x = activation()
    record = store(x, LayerPlan(Dense(), shares=True), overwritten=True)
    assert record.tensors[0].data_ptr() != x.data_ptr()


def test_who_does_not_share_attaches_nothing():
    x = activation()
    attach_record(x, as_it_is(x), ALONE)
    assert find(x, SHARED) is None
    attach_record(x, None, SHARED)
    assert not hasattr(x, "_razorlight")
    attach_encoded(x, as_it_is(x), ALONE)
    assert find(x, ALONE) is not None


def product(record, plan, columns, x=None):
    x = activation(4, 3) if x is None else x
    weight = torch.randn(3, columns)
    attach_product(x, record, plan, nn.functional.linear, weight, None)
    return x


@pytest.mark.parametrize(
    ("cost", "columns", "is_found"),
    [(0, 8, False), (CHEAP, CHEAP, True), (CHEAP, CHEAP + 1, False), (1000, 999, True)],
)
def test_a_product_is_found_where_it_is_cheap(cost, columns, is_found):
    x = product(as_it_is(torch.randn(4, columns)), LayerPlan(Dense(), True, cost), columns)
    assert (find(x, SHARED) is not None) == is_found
    through = LayerPlan(Dense(), True, read_through_products=True)
    assert find(x, through) is not None, "whoever reads through products finds all"


@pytest.mark.parametrize(("columns", "is_found"), [(CHEAP, True), (CHEAP + 1, False)])
def test_the_second_product_is_cheap_and_the_third_is_stored(columns, is_found):
    plan = LayerPlan(Dense(), True, max_rerun_cost=10**6)
    once = as_it_is(torch.randn(4, 8)).recomputed(torch.neg)
    assert (find(product(once, plan, columns), SHARED) is not None) == is_found
    twice = once.recomputed(torch.neg)
    assert find(product(twice, plan, 1), SHARED) is None


def test_a_product_of_what_is_pruned_or_unknown_has_no_record():
    plan = LayerPlan(Dense(), True, max_rerun_cost=10**6)
    pruned = store(activation(4, 8), LayerPlan(TopK(0.5), True))
    for record in (pruned, None):
        assert not hasattr(product(record, plan, 8), "_razorlight")


def test_weights_that_are_freed_are_not_read():
    x, weight = activation(), torch.randn(4, 8)
    attach_record(x, as_it_is(weight), SHARED)
    weight.untyped_storage().resize_(0)
    assert find(x, SHARED) is None


def test_what_a_tensor_was_made_from():
    x, record = activation(), as_it_is(torch.randn(4, 2))
    source = LinearOutput(x.detach(), torch.randn(8, 2), None, record, x.dtype)
    attach_record(x, None, SHARED, source)
    assert made_from(x) is source
    assert find(x, SHARED) is None
    x.retain_grad()
    assert made_from(x) is None, "somebody waits for the gradient"
    assert made_from(activation()) is None

    hooked = activation()
    attach_record(hooked, None, SHARED, source)
    hooked.register_hook(lambda grad: grad)
    assert made_from(hooked) is None


def test_a_record_is_carried_on():
    x = activation()
    record = store(x, SHARED)
    same, turned = x.view_as(x), x.mT
    carry_record(x, same)
    assert find(same, SHARED) is record
    carry_record(x, turned, lambda value: value.mT)
    assert torch.equal(find(turned, SHARED).read(), record.read().mT)
    carry_record(activation(), plain := activation())
    assert find(plain, SHARED) is None


def test_what_is_enlarged_is_stored_where_it_was_small():
    small = activation(2, 3, 4, 4)
    large = nn.functional.interpolate(small, scale_factor=2.0)
    carry_record(small, large, lambda x: nn.functional.interpolate(x, scale_factor=2.0))
    assert isinstance(made_from(large), Rearranged)
    record = store(large, LayerPlan(Dense(), True))
    assert sum(tensor.nbytes for tensor in record.tensors) == small.nbytes
    assert torch.equal(record.read(), large.detach())
    assert find(small, SHARED) is not None

    smaller = small[:, :1]
    carry_record(activation(2, 3, 4, 4), smaller, lambda x: x[:, :1])
    assert made_from(smaller) is None


def test_joined_values_are_derived_from_their_parts():
    parts = [activation(2, 3), activation(2, 4)]
    whole = torch.cat(parts, 1)
    carry_joined(parts, whole, SHARED, lambda xs: torch.cat([*xs], 1), within_samples=True)
    assert find(whole, SHARED) is None
    record = store(whole, LayerPlan(Dense(), True))
    assert torch.equal(record.read(), whole.detach())
    assert all(find(part, SHARED) for part in parts)

    again = torch.cat(parts, 1)
    carry_joined(parts, again, SHARED, lambda xs: torch.cat([*xs], 1), within_samples=True)
    assert torch.equal(find(again, SHARED).read(), whole.detach())
    with torch.no_grad():
        parts[0].add_(1)
    assert find(again, SHARED) is None


def test_a_costly_record_is_not_carried_on():
    plan = LayerPlan(Dense(), True, max_rerun_cost=0)
    x = product(as_it_is(torch.randn(4, 8)), plan, 8)
    carry_record(x, turned := x.mT, lambda value: value.mT)
    assert find(turned, LayerPlan(Dense(), True, read_through_products=True)) is None
    assert isinstance(store(turned, SHARED), Record)
