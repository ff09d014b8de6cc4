"""The one autograd Function, with operations made here."""

from dataclasses import dataclass

import pytest
import torch

from razorlight import Dense, RazorError
from razorlight.functional.operation import (
    Operation,
    Result,
    accumulate,
    run,
    run_in_place,
    run_with_by_products,
)
from razorlight.planning import LayerPlan
from razorlight.records import NOTHING, as_it_is, find, store


@dataclass(frozen=True)
class Scale(Operation):
    """``factor * x * scale``, with the largest entry as a by-product."""

    factor: float

    def forward(self, needs, x, scale):
        assert len(needs) == 2
        out = self.factor * x * scale
        return Result(out, (scale if needs[0] else None,), (out.amax(),) if self.factor > 1 else ())

    def forward_in_place(self, x, scale):
        x.mul_(self.factor).mul_(scale)

    def backward(self, grad, record, saved, needs):
        assert not torch.is_grad_enabled()
        d_scale = (self.factor * grad * record.read()).sum() if needs[1] else None
        if not saved:  # in place, nothing is
            return self.factor * grad, d_scale
        return (self.factor * grad * saved[0] if needs[0] else None), d_scale


X = torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("needs_x", "needs_scale"), [(True, True), (True, False), (False, True)])
def test_gradients_where_they_are_needed(needs_x, needs_scale):
    x, scale = X.clone().requires_grad_(needs_x), torch.tensor(5.0, requires_grad=needs_scale)
    out = run(Scale(0.5), as_it_is(x), x, scale)
    assert torch.equal(out, 2.5 * X)
    out.sum().backward()
    assert (x.grad is None) != needs_x
    assert not needs_x or torch.equal(x.grad, torch.full((3,), 2.5))
    assert not needs_scale or scale.grad == 3.0


def test_by_products_come_behind_the_output_and_need_no_gradient():
    x = X.clone().requires_grad_()
    out, (largest,) = run_with_by_products(Scale(2.0), as_it_is(x), x, torch.tensor(1.0))
    assert largest == 6.0
    assert not largest.requires_grad
    out.sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_in_place():
    leaf = X.clone().requires_grad_()
    x = leaf * 1
    out = run_in_place(Scale(3.0), NOTHING, x, torch.tensor(1.0))
    assert out is x
    assert torch.equal(x, 3 * X)
    out.sum().backward()
    assert torch.equal(leaf.grad, torch.full((3,), 3.0))


@dataclass(frozen=True)
class View(Operation):
    def forward(self, needs, x):
        return Result(x.view(3, 1))

    def backward(self, grad, record, saved, needs):
        return (grad.flatten(),)


def test_an_output_may_be_changed_in_place():
    x = X.clone().requires_grad_()
    out = run(View(), NOTHING, x)
    out.mul_(2)
    out.sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_a_second_derivative_is_refused():
    x = X.clone().requires_grad_()
    out = run(Scale(0.5), NOTHING, x, torch.tensor(1.0))
    with pytest.raises(RazorError, match="cannot be differentiated again"):
        torch.autograd.grad(out.sum(), x, create_graph=True)


def test_what_is_attached_to_leaves_is_forgotten_in_backward():
    batch, plan = torch.randn(3), LayerPlan(Dense(), shares=True)
    store(batch, plan)
    x = X.clone().requires_grad_()
    out = run(Scale(0.5), NOTHING, x, torch.tensor(1.0))
    assert find(batch, plan) is not None
    out.sum().backward()
    assert find(batch, plan) is None


def test_a_stored_tensor_that_changes_is_noticed():
    x, scale = X.clone().requires_grad_(), torch.tensor(5.0, requires_grad=True)
    value = X.clone()
    out = run(Scale(0.5), as_it_is(value), x, scale)
    value.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_sums_are_in_float32_at_least():
    part = torch.ones(2, dtype=torch.bfloat16)
    total = accumulate(None, part)
    assert total.dtype == torch.float32
    assert accumulate(total, part) is total
    assert torch.equal(total, torch.full((2,), 2.0))
    assert accumulate(None, part.double()).dtype == torch.float64
    assert accumulate(total, None) is None
