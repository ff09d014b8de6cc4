"""Attention and the loss with all their arguments, against torch's."""

import pytest
import torch
import torch.nn.functional as F
from cases import LOSSLESS, assert_gradients, compare, leaf, prepared, razored, settings
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from razorlight import register
from razorlight.layers import REGISTRY
from razorlight.planning import Role

sizes = st.integers(1, 5)


class Attend(nn.Module):
    """Fused attention with arguments of its own."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, query, key, value, mask=None):
        return F.scaled_dot_product_attention(query, key, value, mask, **self.options)


@pytest.fixture(autouse=True, scope="module")
def attend_is_known():
    register(Attend, functions=[F.scaled_dot_product_attention], role=Role.OPERANDS)
    yield
    del REGISTRY[Attend]


@st.composite
def attentions(draw):
    """Options, and the shapes of query, key, value and perhaps a mask."""
    batch, heads, queries, keys, width, values = (draw(sizes) for _ in range(6))
    grouped = draw(st.booleans())
    options = {
        "dropout_p": draw(st.sampled_from([0.0, 0.0, 0.3])),
        "is_causal": draw(st.booleans()),
        "scale": draw(st.sampled_from([None, 0.3])),
        "enable_gqa": grouped,
    }
    one = () if draw(st.integers(0, 4)) == 4 and not grouped else (batch,)
    shared = heads * draw(st.integers(1, 2)) if grouped else heads
    shapes = {
        "query": (*one, shared, queries, width),
        "key": (*one, heads, keys, width),
        "value": (*one, heads, keys, values),
    }
    if not options["is_causal"] or draw(st.integers(0, 4)) == 4:
        mask = draw(st.sampled_from([None, (queries, keys), (shared, 1, keys)]))
        shapes |= {"mask": mask} if mask else {}
    return options, shapes


@given(attentions(), settings(LOSSLESS), st.booleans())
def test_attention(attention, setting, chosen):
    options, shapes = attention

    def make():
        inputs = {
            name: leaf(shape, setting, number)
            for number, (name, shape) in enumerate(shapes.items())
        }
        if chosen and "mask" in inputs:
            inputs["mask"] = inputs["mask"].detach() > -1
        return inputs

    dense = prepared(lambda: Attend(**options), setting)
    outcomes = compare(dense, razored(dense, setting), make, setting)
    if outcomes is not None:
        assert_gradients(outcomes[1], outcomes[0], setting.tolerance)


class Judge(nn.Module):
    """A loss of logits, with targets of its own."""

    def __init__(self, loss, targets):
        super().__init__()
        self.loss = loss
        self.register_buffer("targets", targets)

    def forward(self, x):
        given = self.targets.is_floating_point()
        return self.loss(x, self.targets.to(x.dtype) if given else self.targets)


@st.composite
def losses(draw):
    """How to build a loss with its targets, and the shape of its logits."""
    classes = draw(sizes)
    rest = draw(st.lists(sizes, max_size=2))
    shape = (draw(st.integers(0, 4)), classes, *rest) if draw(st.integers(0, 5)) else (classes,)
    among = draw(st.booleans())
    options = {
        "ignore_index": -100 if among else draw(st.sampled_from([-100, 0, 1])),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
    }
    weighted, outside = draw(st.booleans()), draw(st.integers(0, 9)) == 9

    def build():
        weight = torch.rand(classes) if weighted else None
        labelled = shape[:1] + shape[2:] if len(shape) > 1 else ()
        targets = torch.rand(shape) if among else torch.randint(classes, labelled)
        return Judge(nn.CrossEntropyLoss(weight, **options), targets + outside)

    return build, shape


@given(losses(), settings())
def test_loss(loss, setting):
    build, shape = loss
    dense = prepared(build, setting)
    razor = razored(dense, setting)
    outcomes = compare(dense, razor, lambda: {"input": leaf(shape, setting)}, setting)
    if outcomes is not None:
        assert_gradients(outcomes[1], outcomes[0], setting.tolerance)
