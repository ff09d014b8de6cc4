"""The optimizer's step within backward: bit for bit the step after backward."""

import copy
import inspect
import pickle
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from small_networks import tiny_vit
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from razorlight import RECIPES, RazorError, razor_, step_in_backward
from razorlight.memory import StorageMeter, measure_step, storage_bytes


class Words(nn.Module):
    """Ties the weights of its ends, and uses one block twice."""

    def __init__(self, mode="plain"):
        super().__init__()
        self.mode = mode
        self.embedding = nn.Embedding(12, 16)
        self.position = nn.Parameter(torch.randn(6, 16))
        self.blocks = nn.ModuleList([block(), block()])
        self.norm = nn.LayerNorm(16)

    def forward(self, words):
        x = self.embedding(words) + self.position
        for each in (*self.blocks, self.blocks[0]):
            if self.mode == "plain":
                x = x + each(x)
            else:
                x = x + checkpoint(each, x, use_reentrant=self.mode == "reentrant")
        return F.linear(self.norm(x), self.embedding.weight).flatten(0, 1)


def block():
    return nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))


class Stopped(nn.Module):
    """A predictor of its own features, through which no gradient flows, as in SimSiam."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16))
        self.predictor = nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 16))
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, x):
        features = self.features(x)
        predicted = self.predictor(features) + F.gelu(features.detach()) * self.scale
        return predicted + self.features(predicted).detach() * self.scale


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.GroupNorm(2, 8), nn.SiLU()),
        nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1), nn.GELU()),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(128, 3),
    )


def words():
    return torch.randint(12, (4, 6))


def images():
    return torch.randn(4, 3, 8, 8)


def tokens():
    return torch.randn(4, 6, 16)


class StoppedInside(nn.Module):
    """Has a gradient that is whole before the checkpointed block runs again."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(16))
        self.inner = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.last = nn.Linear(16, 16)

    def forward(self, x):
        return self.last(checkpoint(self.block, x, use_reentrant=False))

    def block(self, x):
        shifted = x + self.shift
        return shifted + self.inner(shifted.detach())


NETWORKS = {
    "vit": (lambda: tiny_vit(8, 4), images),
    "cnn": (cnn, images),
    "tied": (Words, words),
    "tied, checkpointed": (lambda: Words("not reentrant"), words),
    "stopped": (Stopped, tokens),
    "stopped inside": (StoppedInside, tokens),
}


def linears():
    return nn.Sequential(
        nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 8, bias=False), nn.Linear(8, 8)
    )


def loss_of(network, x):
    out = network(x)
    return (out.square() * torch.linspace(-1, 2, out.shape[-1])).mean()


def made(build, recipe=None, **options):
    torch.manual_seed(0)
    network = build(**options)
    if recipe:
        razor_(network, recipe)
    return network


@contextmanager
def gradients_seen(network):
    """The gradients by parameter, as they are before another hook takes them."""
    seen = {}

    def see(parameter):
        seen[parameter] = parameter.grad.clone()

    trained = [p for p in network.parameters() if p.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(see) for p in trained]
    yield seen
    for hook in hooks:
        hook.remove()


def train(network, optimizer, within, inputs=tokens, steps=3, loss_of=loss_of, **options):
    """The gradients of all steps."""
    gradients = []
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(network, inputs())
        if within:
            with gradients_seen(network) as seen, step_in_backward(optimizer, **options):
                loss.backward()
            assert all(p.grad is None for p in network.parameters())
            gradients.append([seen.get(p) for p in network.parameters()])
        else:
            loss.backward()
            gradients.append([copy.deepcopy(p.grad) for p in network.parameters()])
            if "clip_value" in options:
                nn.utils.clip_grad_value_(network.parameters(), options["clip_value"])
        optimizer.step()
    return gradients


def assert_equal(a, b):
    """Every tensor bit for bit, in whatever lists and dicts."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a.to_dense(), b.to_dense())
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def assert_steps_alike(build, make_optimizer, recipe=None, **options):
    runs = []
    for within in (False, True):
        network = made(build, recipe)
        optimizer = make_optimizer(network)
        before = copy.deepcopy(network.state_dict())
        gradients = train(network, optimizer, within, **options)
        runs.append((gradients, network.state_dict(), optimizer.state_dict()))
        assert any(not torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert_equal(*runs)


@pytest.mark.parametrize("recipe", [None, *RECIPES])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_by_every_recipe(network, recipe):
    build, inputs = NETWORKS[network]
    assert_steps_alike(
        build,
        lambda network: optim.SGD(network.parameters(), lr=0.5, momentum=0.9, nesterov=True),
        recipe,
        inputs=inputs,
    )


OPTIMIZERS = {
    name: made
    for name, made in vars(optim).items()
    if inspect.isclass(made) and issubclass(made, Optimizer) and name not in ("Optimizer", "LBFGS")
}


def variants():
    for name, optimizer in OPTIMIZERS.items():
        yield pytest.param(optimizer, {}, id=name)
        for variant in ("foreach", "fused", "amsgrad"):
            if variant in inspect.signature(optimizer).parameters:
                yield pytest.param(optimizer, {variant: True}, id=f"{name}, {variant}")


@pytest.mark.parametrize(("optimizer", "variant"), [*variants()])
def test_every_optimizer_of_torch(optimizer, variant):
    def make(network):
        options = {"lr": 0.05, **variant}
        if "weight_decay" in inspect.signature(optimizer).parameters:
            options["weight_decay"] = 0.1
        rows = [p for p in network.parameters() if p.ndim > 1 or optimizer is not optim.Muon]
        frozen = [rows.pop(1).requires_grad_(False)]
        groups = [{"params": rows[:1], "lr": 0.2}, {"params": [*frozen, *rows[1:]]}]
        for parameter in set(network.parameters()) - {*rows, *frozen}:  # nobody steps these
            parameter.requires_grad_(False)
        return optimizer(groups, **options)

    def bag():
        return nn.Sequential(*[nn.Embedding(12, 8, sparse=True) for _ in range(3)])

    def summed(network, x):
        return sum(loss_of(each, x) for each in network)

    if optimizer is optim.SparseAdam:
        assert_steps_alike(bag, make, inputs=words, loss_of=summed)
    else:
        assert_steps_alike(linears, make)


def test_clipping_by_value():
    def sgd(network):
        return optim.SGD(network.parameters(), lr=0.5)

    assert_steps_alike(linears, sgd, clip_value=1e-3)
    assert_steps_alike(Words, sgd, "balanced", inputs=words, clip_value=1e-3)


def test_a_parameter_without_a_gradient_stays():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.calls = nn.Linear(16, 16), nn.Linear(16, 16), 0

        def forward(self, x):
            self.calls += 1
            return self.first(x) if self.calls % 2 else self.second(x)

    def adam(network):
        return optim.Adam(network.parameters(), lr=0.1)

    assert_steps_alike(Sometimes, adam, steps=4)


def test_two_optimizers_in_one_backward():
    runs = []
    for within in (False, True):
        network = made(linears)
        first = optim.Adam(network[0].parameters(), lr=0.1)
        second = optim.SGD(network[2:].parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            loss = loss_of(network, torch.ones(2, 16))
            if within:
                with step_in_backward(first), step_in_backward(second):
                    loss.backward()
            else:
                loss.backward()
                first.step()
                second.step()
            network.zero_grad()
        runs.append(network.state_dict())
    assert_equal(*runs)


def test_a_scheduler_and_hooks_of_the_step_meet_one_step():
    network, calls = made(linears), []
    optimizer = optim.SGD(network.parameters(), lr=1.0)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(2):
        train(network, optimizer, within=True, steps=1)
        scheduler.step()
    assert calls == ["before", "after"] * 2
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_state_that_is_loaded_goes_on():
    def adam(network):
        return optim.Adam(network.parameters(), lr=0.1)

    whole, half = made(linears), made(linears)
    ordinary, optimizer = adam(whole), adam(half)
    train(whole, ordinary, within=False, steps=2)
    train(half, optimizer, within=True, steps=2)
    train(half, optimizer, within=False)
    saved = pickle.dumps((whole.state_dict(), ordinary.state_dict()))
    resumed = made(linears)
    following = adam(resumed)
    for each, state in zip((resumed, following), pickle.loads(saved), strict=True):
        each.load_state_dict(state)
    train(resumed, following, within=True)
    assert_equal(half.state_dict(), resumed.state_dict())


def test_nothing_is_left_behind():
    network = made(linears)
    optimizer = optim.Adam(network.parameters())
    with step_in_backward(optimizer):
        copied = copy.deepcopy(network)
        pickled = pickle.loads(pickle.dumps(network))
    for each in (network, copied, pickled):
        state = copy.deepcopy(each.state_dict())
        loss_of(each, torch.ones(2, 16)).backward()
        assert_equal(state, each.state_dict())
        assert all(p.grad is not None for p in each.parameters())


def test_a_backward_that_fails_leaves_nothing_behind():
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise ZeroDivisionError

    network = made(linears)
    optimizer = optim.SGD(network.parameters(), lr=0.1)
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(ZeroDivisionError), step_in_backward(optimizer):
        loss_of(network[1:], Fails.apply(network[0](torch.ones(2, 16)))).backward()
    assert torch.equal(before[0], network[0].weight)  # whose gradient did not come
    assert not torch.equal(before[-1], network[-1].bias)
    assert len(optimizer.param_groups[0]["params"]) == 5
    with step_in_backward(optimizer):
        loss_of(network, torch.ones(2, 16)).backward()
    assert not torch.equal(before[0], network[0].weight)


def test_a_compiled_network():
    runs = []
    for within in (False, True):
        torch.compiler.reset()
        network = made(linears)
        compiled = torch.compile(network, backend="aot_eager")
        train(compiled, optim.Adam(network.parameters(), lr=0.1), within)
        runs.append(network.state_dict())
    assert_equal(*runs)


class ThroughData(Optimizer):
    """Writes to parameters where no version tells of it."""

    def __init__(self, parameters, lr=0.1):
        super().__init__(parameters, {"lr": lr})

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data.add_(p.grad, alpha=-group["lr"])


class Counts(ThroughData):
    def step(self):
        for group in self.param_groups:
            group["calls"] = group.get("calls", 0) + 1
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.div_(group["calls"])
        super().step()


class DecaysAll(ThroughData):
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(0.9)
        super().step()


class ByTheNorm(ThroughData):
    def step(self):
        gradients = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm() if gradients else 1
        for gradient in gradients:
            gradient.div_(norm)
        super().step()


class ByChance(ThroughData):
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(torch.rand(p.shape))
        super().step()


@pytest.mark.parametrize("optimizer", [ThroughData, Counts])
def test_an_optimizer_of_another_package(optimizer):
    assert_steps_alike(linears, lambda network: optimizer(network.parameters()))


def test_to_try_an_optimizer_draws_no_random_numbers():
    network = made(linears)
    with step_in_backward(ThroughData(network.parameters())):
        tried = torch.rand(1)
    made(linears)
    assert torch.equal(tried, torch.rand(1))


@pytest.mark.parametrize("optimizer", [ByTheNorm, DecaysAll, ByChance, optim.LBFGS])
def test_optimizers_that_need_all_gradients_are_refused(optimizer):
    network = made(linears)
    message = rf"{optimizer.__name__} does not step each parameter by itself \(.+\); step after"
    with (
        pytest.raises(RazorError, match=message),
        step_in_backward(optimizer(network.parameters())),
    ):
        raise AssertionError


def test_a_second_gradient_is_refused():
    network = made(linears)
    optimizer = optim.SGD(network.parameters(), lr=0.1)

    def step():
        with step_in_backward(optimizer):
            for _ in range(2):
                loss_of(network, torch.ones(2, 16)).backward()

    with pytest.raises(RazorError, match=r"second gradient .* of shape \(8,\)"):
        step()


def test_a_gradient_in_parts_is_refused():
    network = made(Words, mode="reentrant")
    optimizer = optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(RazorError, match="use_reentrant=False"), step_in_backward(optimizer):
        loss_of(network, words()).backward()


def test_two_optimizers_of_one_parameter_are_refused():
    network = made(linears)
    first, second = (optim.SGD(network.parameters(), lr=0.1) for _ in range(2))
    with (
        pytest.raises(RazorError, match="two optimizers would step one parameter"),
        step_in_backward(first),
        step_in_backward(second),
    ):
        raise AssertionError
    with step_in_backward(second):
        pass


def test_clip_value_out_of_range():
    optimizer = optim.SGD(made(linears).parameters(), lr=0.1)
    with pytest.raises(RazorError, match="clip_value must be above 0"):
        step_in_backward(optimizer, clip_value=-1.0).__enter__()


def test_ddp_is_refused(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        network = made(linears)
        parallel = DistributedDataParallel(network)
        with (
            pytest.raises(RazorError, match=r"gradient came back .*DistributedDataParallel"),
            step_in_backward(optim.SGD(network.parameters(), lr=0.1)),
        ):
            loss_of(parallel, torch.ones(2, 16)).backward()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("optimizer", [optim.SGD, ThroughData])
def test_a_parameter_that_is_read_after_its_step_is_an_error(optimizer):
    """Its gradient is whole before the backward that reads it detached, which came first."""
    weight = nn.Parameter(torch.ones(4, 4))
    first = nn.Parameter(torch.ones(4))
    stepped = optimizer([weight, first], lr=0.1)
    x = torch.ones(2, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="inplace") as error, step_in_backward(stepped):
        F.linear(F.linear(x * first, weight.detach()), weight).sum().backward()
    assert "step after backward" in error.value.__notes__[0]


WIDE = 256


def wide():
    return nn.Sequential(*[nn.Linear(WIDE, WIDE) for _ in range(8)])


@pytest.mark.parametrize("recipe", [None, "exact", "compact"])
def test_the_peak_falls_by_the_gradients(recipe):
    network = made(wide, recipe)
    optimizer = optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    train(network, optimizer, within=True, steps=1, inputs=lambda: torch.ones(1, WIDE))
    x, peaks = torch.ones(1, WIDE), []
    for context in (nullcontext(), step_in_backward(optimizer)):
        with StorageMeter() as meter:
            meter.track([*network.parameters()], [*optimizer.state.values()])
            before = meter.live
            loss = plain_loss(network, x)
            with context:
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        peaks.append(meter.peak - before)
    gradients = storage_bytes([*network.parameters()])
    assert peaks[0] > gradients
    assert peaks[1] < gradients / 4


def plain_loss(network, x):
    return network(x).square().mean()


def test_measured_as_trained_and_left_as_found():
    network = made(wide, "balanced")
    optimizer = optim.Adam(network.parameters())
    x = torch.ones(1, WIDE)
    state = copy.deepcopy(network.state_dict())
    after = measure_step(network, lambda: plain_loss(network, x), x)
    with step_in_backward(optimizer):
        within = measure_step(network, lambda: plain_loss(network, x), x)
    gradients = storage_bytes([*network.parameters()])
    assert after.stored == within.stored
    assert gradients * 0.7 < after.peak - within.peak < gradients
    assert not optimizer.state
    assert_equal(state, network.state_dict())


def test_a_scaler_fails_in_its_first_step():
    network, scaler = made(linears), torch.amp.GradScaler("cpu")
    optimizer = optim.SGD(network.parameters(), lr=0.1)
    with step_in_backward(optimizer):
        scaler.scale(loss_of(network, torch.ones(2, 16))).backward()
    with pytest.raises(AssertionError, match="No inf checks"):
        scaler.step(optimizer)


def test_gradients_of_earlier_batches_are_part_of_the_step():
    runs = []
    for within in (False, True):
        network = made(linears)
        optimizer = optim.Adam(network.parameters(), lr=0.1)
        loss_of(network, torch.ones(2, 16)).backward()
        with step_in_backward(optimizer) if within else nullcontext():
            loss_of(network, -torch.ones(2, 16)).backward()
        optimizer.step()
        runs.append(network.state_dict())
    assert_equal(*runs)
