"""Each function beside torch's own, called as it is, without a layer."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from within_backward import in_backward

from razorlight import Dense, Mask, Slope, Uniform
from razorlight.functional import FUNCTIONS, SPELLINGS
from razorlight.functional.loss import run_loss
from razorlight.functional.one_function import as_one_function
from razorlight.planning import LayerPlan
from razorlight.records import find, made_from, store
from razorlight.records.sharing import LinearOutput

EXACT = LayerPlan(Dense(), shares=True, max_rerun_cost=math.inf)
ALONE = LayerPlan(Dense())
TOKENS, MAPS, VOLUMES, ROWS = (2, 6, 8), (2, 4, 6, 5), (2, 4, 4, 3, 5), (2, 4, 9)
HEADS = (2, 3, 5, 4)
STATISTICS = {"running_mean": torch.zeros(4), "running_var": torch.ones(4)}


def case(function, *shapes, **options):
    name = getattr(function, "__name__", str(function))
    extra = "".join(f", {key}" for key in options if options[key] is not None)
    return pytest.param(function, shapes, options, id=f"{name}{extra} {shapes[0]}")


CASES = [
    case(F.linear, TOKENS, (5, 8), (5,)),
    case(F.linear, TOKENS, (5, 8)),
    case(F.linear, (8,), (5, 8)),
    case(torch.addmm, (5,), (6, 8), (8, 5)),
    case(torch.addmm, (6, 5), (6, 8), (8, 5)),
    case(torch.addmm, (5,), (6, 8), (8, 5), beta=2, alpha=0.5),
    case(torch.matmul, TOKENS, (2, 8, 3)),
    case(torch.matmul, TOKENS, (8, 3)),
    case(torch.matmul, (8,), (8, 3)),
    case(torch.mul, TOKENS, TOKENS),
    case(torch.mul, MAPS, (2, 4, 1, 1)),
    case(torch.mul, (8,), TOKENS),
    case(F.conv1d, ROWS, (6, 4, 3), (6,)),
    case(F.conv2d, MAPS, (6, 4, 3, 3), (6,), padding=1),
    case(F.conv2d, MAPS, (6, 2, 3, 3), stride=2, groups=2, dilation=(1, 2)),
    case(F.conv2d, MAPS, (6, 4, 2, 2), padding="same"),
    case(F.conv2d, MAPS, (6, 4, 2, 2), padding="valid"),
    case(F.conv2d, MAPS[1:], (6, 4, 3, 3)),
    case(F.conv3d, VOLUMES, (6, 4, 2, 2, 2)),
    case(F.conv_transpose1d, ROWS, (4, 6, 3), stride=2, output_padding=1),
    case(F.conv_transpose2d, MAPS, (4, 3, 3, 3), (6,), groups=2),
    case(F.conv_transpose3d, VOLUMES, (4, 6, 2, 2, 2)),
    case(F.pad, MAPS, pad=(1, 2, 2, 1), mode="reflect"),
    case(F.pad, MAPS, pad=(1, 2), value=3.0),
    case(F.batch_norm, MAPS, weight=(4,), bias=(4,), training=True, **STATISTICS),
    case(F.batch_norm, MAPS, running_mean=None, running_var=None, training=True),
    case(F.batch_norm, MAPS, weight=(4,), bias=(4,), **STATISTICS),
    case(F.instance_norm, MAPS, weight=(4,), bias=(4,)),
    case(F.instance_norm, MAPS, use_input_stats=False, **STATISTICS),
    case(F.layer_norm, TOKENS, normalized_shape=(8,), weight=(8,), bias=(8,)),
    case(F.layer_norm, TOKENS, normalized_shape=(6, 8)),
    case(F.rms_norm, TOKENS, normalized_shape=(8,), weight=(8,)),
    case(F.rms_norm, TOKENS, normalized_shape=(8,), eps=0.1),
    case(F.group_norm, MAPS, num_groups=2, weight=(4,), bias=(4,)),
    case(F.relu, MAPS),
    case(F.leaky_relu, MAPS, negative_slope=0.3),
    case(F.leaky_relu, MAPS, negative_slope=-0.3),
    case(F.hardtanh, MAPS, min_val=-0.5, max_val=0.7),
    case(F.hardsigmoid, MAPS),
    case(F.prelu, MAPS, (4,)),
    case(F.prelu, MAPS, (1,)),
    case(F.gelu, TOKENS),
    case(F.gelu, TOKENS, approximate="tanh"),
    case(F.silu, TOKENS),
    case(F.hardswish, TOKENS),
    case(F.mish, TOKENS),
    case(F.softplus, TOKENS, beta=2.0, threshold=1.0),
    case(F.elu, TOKENS, alpha=0.7),
    case(F.celu, TOKENS, alpha=0.7),
    case(F.selu, TOKENS),
    case(F.glu, TOKENS, dim=1),
    case(F.glu, TOKENS),
    case(torch.sigmoid, TOKENS),
    case(torch.tanh, TOKENS),
    case(F.max_pool1d, ROWS, kernel_size=3, stride=2, padding=1),
    case(F.max_pool2d, MAPS, kernel_size=2, dilation=2),
    case(F.max_pool2d, MAPS, kernel_size=(3, 2), stride=1, ceil_mode=True),
    case(F.max_pool3d, VOLUMES, kernel_size=2),
    case(F.avg_pool1d, ROWS, kernel_size=3),
    case(F.avg_pool2d, MAPS, kernel_size=2),
    case(F.avg_pool3d, VOLUMES, kernel_size=2),
    case(F.adaptive_avg_pool1d, ROWS, output_size=4),
    case(F.adaptive_avg_pool2d, MAPS, output_size=3),
    case(F.adaptive_avg_pool3d, VOLUMES, output_size=2),
    case(F.softmax, TOKENS, dim=-1),
    case(F.softmax, TOKENS, dim=1, dtype=torch.float64),
    case(F.scaled_dot_product_attention, HEADS, HEADS, HEADS),
    case(F.scaled_dot_product_attention, HEADS, HEADS, HEADS, is_causal=True, scale=0.3),
    case(F.scaled_dot_product_attention, HEADS, HEADS, HEADS, attn_mask=(5, 5)),
]
DRAWN = {F.dropout, F.alpha_dropout, F.dropout1d, F.dropout2d, F.dropout3d}
TABLED = {F.embedding, torch.einsum, *DRAWN}


def tensors(shapes, options):
    generator = torch.Generator().manual_seed(0)

    def make(shape):
        return torch.randn(shape, generator=generator).requires_grad_()

    parameters = {"weight", "bias", "attn_mask"}
    made = {key: make(value) if key in parameters else value for key, value in options.items()}
    made = {
        k: v.clone() if isinstance(v, torch.Tensor) and v.is_leaf else v for k, v in made.items()
    }
    return [make(shape) for shape in shapes], made


def gradients(function, shapes, options):
    args, kwargs = tensors(shapes, options)
    leaves = [*args, *(v for v in kwargs.values() if getattr(v, "requires_grad", False))]
    out = function(*args, **kwargs)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weights).sum().backward()
    return out, [leaf.grad for leaf in leaves], kwargs


@pytest.mark.parametrize("plan", [EXACT, ALONE], ids=["shared", "alone"])
@pytest.mark.parametrize(("function", "shapes", "options"), CASES)
def test_as_in_torch(function, shapes, options, plan):
    expected, theirs, state = gradients(function, shapes, options)
    out, ours, own_state = gradients(partial(FUNCTIONS[function], plan), shapes, options)
    assert torch.equal(out, expected)
    assert out.stride() == expected.stride()
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for key in ("running_mean", "running_var"):
        if isinstance(state.get(key), torch.Tensor):
            assert torch.equal(own_state[key], state[key])


def test_every_function_is_tried():
    tried = {case.values[0] for case in CASES} | TABLED
    others = {spelling for spellings in SPELLINGS.values() for spelling in spellings}
    assert FUNCTIONS.keys() - others <= tried


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("function", [F.dropout, F.alpha_dropout, F.dropout1d, F.dropout2d])
def test_dropout_draws_as_torch_does(function, in_place):
    shape = (3, 4, 5, 5) if function is F.dropout2d else (3, 4, 5)
    results = []
    for call in (function, partial(FUNCTIONS[function], EXACT)):
        torch.manual_seed(0)
        x = torch.linspace(-1, 1, math.prod(shape)).view(shape).requires_grad_()
        out = call(x * 1, 0.4, training=True, inplace=in_place)
        out.square().sum().backward()
        results.append((out.detach(), x.grad))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=1e-6)
    torch.testing.assert_close(results[1][1], results[0][1])


@pytest.mark.parametrize("function", [F.dropout, F.dropout2d])
def test_without_dropout_records_go_on(function):
    x = torch.randn(2, 3, 4, 4, requires_grad=True) * 1
    record = store(x, EXACT)
    for options in ({"p": 0.0}, {"training": False}):
        out = FUNCTIONS[function](EXACT, x, **options)
        assert torch.equal(out, x)
        assert find(out, EXACT) is record


@pytest.mark.parametrize("function", [F.dropout, F.alpha_dropout, F.dropout1d])
def test_the_record_behind_a_dropout_gives_the_output(function):
    x = torch.randn(3, 4, 5, requires_grad=True) * 1
    store(x, EXACT)
    out = FUNCTIONS[function](EXACT, x, 0.4, training=True)
    torch.testing.assert_close(in_backward(find(out, EXACT).read), out.detach())


EQUATIONS = [
    ("bhqd,bhkd->bhqk", HEADS, (2, 3, 6, 4)),
    ("b h q k, b k h d -> b q h d", (2, 3, 5, 6), (2, 6, 3, 4)),
    ("...qd,...kd->...qk", HEADS, (1, 3, 6, 4)),  # which repeats the first dim of the second
    ("bqd,ed->bqe", TOKENS, (5, 8)),
    ("bqd,bqd->bd", TOKENS, TOKENS),
    ("bhqd,bhkd", HEADS, (2, 3, 6, 4)),  # the rest is left to torch
    ("bqd,ked->bqe", TOKENS, (3, 5, 8)),
    ("bqq,bqd->bqd", (2, 6, 6), TOKENS),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("equation", "shape", "other"), EQUATIONS)
def test_einsum(equation, shape, other, dtype):
    def step(function):
        (a, b), _ = tensors([shape, other], {})
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            out = function(equation, a * 1, b * 1)
        out.float().square().sum().backward()
        return out, a.grad, b.grad

    theirs, ours = step(torch.einsum), step(partial(FUNCTIONS[torch.einsum], EXACT))
    assert torch.equal(ours[0], theirs[0])
    assert ours[0].dtype == theirs[0].dtype
    rtol, atol = (1e-4, 1e-5) if dtype is torch.float32 else (0.03, 0.1)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def test_einsum_of_other_numbers_of_operands():
    a, b, c = (torch.randn(3, 3, requires_grad=True) for _ in range(3))
    ours = partial(FUNCTIONS[torch.einsum], EXACT)
    assert torch.equal(ours("ij->ji", a), a.T)
    torch.testing.assert_close(ours("ij,jk,kl->il", a, b, c), a @ b @ c)


def test_an_outer_product_is_left_to_torch():
    a, b = torch.randn(6, 1, requires_grad=True), torch.randn(1, 8, requires_grad=True)
    out = FUNCTIONS[torch.mul](EXACT, a, b)
    assert torch.equal(out, a * b)
    assert find(out, EXACT) is None


def test_a_product_with_a_constant_has_no_record():
    x = torch.randn(4, 8, requires_grad=True) * 1
    out = FUNCTIONS[torch.mul](EXACT, x, torch.randn(4, 8))
    assert find(out, EXACT) is None


def test_embedding_is_looked_up_again():
    ids, weight = torch.tensor([[1, 0], [3, 3]]), torch.randn(5, 4, requires_grad=True)
    out = FUNCTIONS[F.embedding](EXACT, ids, weight)
    assert torch.equal(out, F.embedding(ids, weight))
    assert torch.equal(find(out, EXACT).read(), out)
    changed = FUNCTIONS[F.embedding](EXACT, ids, weight.detach().clone(), max_norm=1.0)
    assert find(changed, EXACT) is None


@pytest.mark.parametrize(("function", "shapes", "options"), CASES)
def test_the_record_of_the_output_gives_the_output(function, shapes, options):
    args, kwargs = tensors(shapes, options)
    first = args[1] if function is torch.addmm else args[0]
    if first.ndim > 1:
        store(first := first * 1, EXACT)
        args[1 if function is torch.addmm else 0] = first
    out = FUNCTIONS[function](EXACT, *args, **kwargs)
    through = LayerPlan(Dense(), True, read_through_products=True)
    record = find(out, through)
    if record is not None:
        value = in_backward(record.read)
        torch.testing.assert_close(value, out.detach(), rtol=1e-5, atol=1e-5)
    pools = ("avg_pool", "adaptive")
    left = (torch.matmul, F.pad, F.softmax, torch.addmm, F.scaled_dot_product_attention)
    is_batched = first.ndim > 1 and shapes[0] != MAPS[1:]
    if is_batched and function not in left and not function.__name__.startswith(pools):
        assert record is not None


def test_a_frozen_weight_stores_nothing():
    x, weight = torch.randn(4, 8, requires_grad=True) * 1, torch.randn(5, 8)
    FUNCTIONS[F.linear](EXACT, x, weight).sum().backward()
    assert find(x, EXACT) is None
    images = torch.randn(2, 3, 4, 4, requires_grad=True) * 1
    FUNCTIONS[F.conv2d](EXACT, images, torch.randn(5, 3, 1, 1)).sum().backward()
    assert find(images, EXACT) is None


def test_a_scale_behind_a_linear_needs_the_input_of_the_linear_alone():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 4, 8), torch.randn(5, 8), torch.randn(5)
    scale = nn.Parameter(torch.randn(5))
    expected = [t.clone().requires_grad_() for t in (x, weight, bias)]
    (F.linear(*expected) * scale).square().sum().backward()
    theirs, scale.grad = scale.grad, None
    given = [t.clone().requires_grad_() for t in (x, weight, bias)]
    hidden = FUNCTIONS[F.linear](EXACT, *given)
    assert isinstance(made_from(hidden), LinearOutput)
    out = FUNCTIONS[torch.mul](EXACT, hidden, scale)
    assert find(hidden, LayerPlan(Dense(), True)) is not None
    out.square().sum().backward()
    for a, b in zip((*given, scale), (*expected, theirs), strict=True):
        torch.testing.assert_close(a.grad, b.grad if b is not theirs else theirs)


@pytest.mark.parametrize("codec", [Mask(), Uniform(4, axis=-2, preserves="zeros"), Dense()])
def test_the_gate_of_a_rectifier_is_exact(codec):
    x = torch.randn(2, 40, 8, requires_grad=True)
    FUNCTIONS[F.relu](LayerPlan(codec, True), x).sum().backward()
    assert torch.equal(x.grad, (x > 0).float())


def test_a_gate_is_not_read_through_a_product():
    x = torch.randn(4, 8, requires_grad=True)
    weight = torch.randn(6, 8, requires_grad=True)
    plan = LayerPlan(Uniform(2, axis=-1, preserves="zeros"), True, max_rerun_cost=math.inf)
    hidden = FUNCTIONS[F.linear](plan, x * 1, weight)
    hidden.retain_grad()
    FUNCTIONS[F.relu](plan, hidden).sum().backward()
    assert torch.equal(hidden.grad, (hidden > 0).float())


@pytest.mark.parametrize("function", [F.gelu, F.silu, F.hardswish])
def test_slopes_are_stored_where_nothing_is_yet(function):
    x = torch.linspace(-4, 4, 256, requires_grad=True)
    FUNCTIONS[function](LayerPlan(Slope(4), True), x).sum().backward()
    leaf = x.detach().clone().requires_grad_()
    function(leaf).sum().backward()
    assert (x.grad - leaf.grad).abs().max() < 0.1  # hardswish's slope jumps

    known = x.detach().clone().requires_grad_() * 1
    store(known, EXACT)
    known.retain_grad()
    FUNCTIONS[function](LayerPlan(Slope(2), True), known).sum().backward()
    torch.testing.assert_close(known.grad, leaf.grad)


@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh])
def test_a_bounded_output_stays_in_its_bounds(function):
    x = (torch.randn(4, 64) * 9).requires_grad_()
    out = FUNCTIONS[function](LayerPlan(Uniform(2), True), x)
    value = in_backward(find(out, EXACT).read)
    assert value.max() <= 1
    assert value.min() >= (0 if function is torch.sigmoid else -1)


def test_a_loss_runs_again_as_it_ran():
    torch.manual_seed(0)
    logits = torch.randn(8, 16, requires_grad=True)
    labels = torch.arange(8)
    weight = torch.randn(16, 16)
    seen = []

    def loss(x, y, power):
        product = x @ weight  # in the dtype of autocast
        seen.append((product.dtype, torch.is_grad_enabled()))
        return F.cross_entropy(product.float(), y) ** power

    with torch.autocast("cpu", torch.bfloat16):
        expected = loss(logits, labels, 2)
        expected.backward()
        theirs, logits.grad = logits.grad, None
        out = run_loss(EXACT, loss, (logits, labels), {"power": 2})
    assert torch.equal(out, expected)
    out.backward()  # outside of autocast
    torch.testing.assert_close(logits.grad, theirs)
    assert [dtype for dtype, _ in seen] == [torch.bfloat16] * 3
    assert seen[-1][1]


def test_a_loss_of_two_that_need_gradients_is_left_as_it_is():
    x, y = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    out = run_loss(EXACT, F.mse_loss, (x, y), {})
    assert "Mse" in out.grad_fn.name()
    assert "Razor" in run_loss(EXACT, F.mse_loss, (x, y.detach()), {}).grad_fn.name()


def test_as_one_function():
    x = torch.randn(4, 8, requires_grad=True)
    scale = torch.randn(8)

    def forward(x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True)) * scale

    def equivalent(x):
        return FUNCTIONS[F.rms_norm](EXACT, x, (8,), scale)

    out = as_one_function(forward, equivalent, x)
    assert torch.equal(out, forward(x))
    assert find(out, EXACT) is not None
    out.square().sum().backward()
    ours, x.grad = x.grad, None
    forward(x).square().sum().backward()
    torch.testing.assert_close(ours, x.grad, rtol=1e-3, atol=1e-4)


LAST = {"memory_format": torch.channels_last}


@pytest.mark.parametrize(
    ("function", "x", "more"),
    [
        (F.linear, torch.randn(2, 64, 8), [torch.randn(4, 8, requires_grad=True)]),
        (F.conv2d, torch.randn(2, 8, 6, 6).to(**LAST), [torch.randn(4, 8, 1, 1).requires_grad_()]),
        (F.layer_norm, torch.randn(2, 64, 8), [[8]]),
        (F.batch_norm, torch.randn(2, 8, 6, 6).to(**LAST), [None, None, None, None, True]),
        (F.gelu, torch.randn(2, 64, 8), []),
        (F.gelu, torch.randn(2, 8, 6, 6).to(**LAST), []),
    ],
)
def test_each_channel_is_quantised_on_its_own(function, x, more):
    plan = LayerPlan(Uniform(4, axis=-2), shares=True)
    x = x.requires_grad_() * 1
    out = FUNCTIONS[function](plan, x, *more)
    record = find(x, plan) or find(out, plan)
    (channels,) = {stored.shape[-1] for stored in record.tensors if stored.ndim == 6}
    assert channels == 8  # one step for each


def test_a_norm_of_four_values_is_not_quantised():
    plan = LayerPlan(Uniform(2, axis=-2), shares=True)
    x, weight = torch.randn(3, 8, 2, 2), torch.randn(3, 8, 2, 2)
    gradients = []
    for function in (F.group_norm, partial(FUNCTIONS[F.group_norm], plan)):
        leaf = x.clone().requires_grad_()
        (function(leaf * 1, 8) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
