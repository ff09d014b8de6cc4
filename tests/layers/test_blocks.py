"""Blocks that run again in backward: against their dense selves, and what they keep."""

import copy
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from razorlight import Dense, Uniform, razor_, restore_
from razorlight.layers import find_blocks
from razorlight.memory.meter import StorageMeter, model_tensors
from razorlight.planning import Recipe

LOSSLESS = Recipe(*[Dense()] * 5, block=Dense())
LOW = Recipe(*[Dense()] * 5, block=Uniform(8))
SHAPE = (4, 8, 16, 16)


class Block(nn.Module):
    """All that makes running again difficult: statistics, random numbers, a change in place."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({name: nn.Conv2d(8, 8, 3, padding=1) for name in "ab"})
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout(0.5)

    def forward(self, x, shift, scale=1.0):
        x.relu_()
        x = self.drop(self.norm(self.inner["a"](x))) * scale
        return self.inner["b"](x).relu() + shift


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(8, 8, 1)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, torch.ones(()), scale=0.5)
        return x


def pair(recipe=LOSSLESS):
    torch.manual_seed(0)
    dense = Network()
    razor = copy.deepcopy(dense)
    razor_(razor, recipe)
    return dense, razor


def gradients(model, call=lambda model, x: model(x)):
    torch.manual_seed(1)
    out = call(model, torch.randn(SHAPE))
    model.zero_grad()
    out.square().sum().backward()
    return out.detach(), [p.grad for p in model.parameters()]


def test_run_again_it_is_the_same():
    dense, razor = pair()
    (out, ours), (expected, theirs) = gradients(razor), gradients(dense)
    assert torch.equal(out, expected)
    torch.testing.assert_close(ours, theirs)
    for buffer, other in zip(razor.buffers(), dense.buffers(), strict=True):
        assert torch.equal(buffer, other)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)])
def test_dropout_draws_the_same_in_every_memory_format(order):
    back = [order.index(dim) for dim in range(4)]

    def call(block, x):
        x = x.requires_grad_().permute(order).contiguous().permute(back)
        return block(x * 1, torch.ones(()))

    results = [gradients(model.blocks[0], call) for model in pair(LOW)]
    assert torch.equal(results[0][0], results[1][0])
    ours, theirs = (torch.cat([g.flatten() for g in result[1]]) for result in results)
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.999


def test_under_autocast():
    def call(model, x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x).float()

    dense, razor = pair()
    (out, ours), (expected, theirs) = gradients(razor, call), gradients(dense, call)
    assert torch.equal(out, expected)
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


def test_inside_anothers_checkpoint():
    dense, razor = pair()
    again = gradients(razor, lambda model, x: checkpoint(model, x, use_reentrant=False))
    torch.testing.assert_close(again[1], gradients(dense)[1])


def test_eight_bits_of_the_input_are_stored():
    _, razor = pair(LOW)
    x = torch.randn(SHAPE)
    with StorageMeter() as meter:
        meter.track(model_tensors(razor), x)
        before = meter.live
        out = razor(x)
        stored = meter.live - before - out.nbytes
        assert stored < 2 * 1.05 * x.nbytes / 4  # two blocks, a byte an entry
        out.sum().backward()
        assert meter.live - before == out.nbytes + sum(p.grad.nbytes for p in razor.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_dense(context):
    _, razor = pair(LOW)
    x = torch.randn(SHAPE)
    with context(), StorageMeter() as meter:
        meter.track(model_tensors(razor), x)
        before = meter.live
        out = razor(x)
        assert meter.live - before == out.nbytes


def test_copies_pickles_and_goes_back():
    dense, razor = pair(LOW)
    for model in (copy.deepcopy(razor), pickle.loads(ForkingPickler.dumps(razor))):
        assert torch.equal(gradients(model)[0], gradients(dense)[0])
        restore_(model)
        assert [type(m) for m in model.modules()] == [type(m) for m in dense.modules()]
    assert razor.state_dict().keys() == dense.state_dict().keys()


def test_compiled_with_the_input_in_full():
    torch._dynamo.reset()
    dense, razor = (timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2) for _ in "ab")
    razor.load_state_dict(dense.state_dict())
    razor_(razor, LOSSLESS)
    images = torch.randn(2, 3, 32, 32)
    for model in (dense, torch.compile(razor, backend="aot_eager", fullgraph=True)):
        model(images).square().sum().backward()
    for p, q in zip(razor.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4)


def test_layers_inside_are_converted_only_where_the_block_is_not():
    _, razor = pair(LOW)
    detail = {line.name: line.detail for line in razor_(razor, LOW).lines}
    assert "inside a block" in detail["blocks.1.inner.a"]
    razor_(razor, LOW, include=["blocks.*.inner.a"])
    assert type(razor.blocks[0]) is Block
    assert type(razor.blocks[0].inner["a"]).__name__ == "RazorConv2d"


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: timm.create_model("vit_tiny_patch16_224", depth=2), {"blocks.0", "blocks.1"}),
        (
            lambda: timm.create_model("resnet10t"),
            {f"layer{i}.0" for i in (1, 2, 3, 4)},
        ),
        (
            lambda: smp.Unet("resnet18", encoder_weights=None),
            {f"encoder.layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)}
            | {f"decoder.blocks.{i}" for i in range(5)},
        ),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), set()),
    ],
)
def test_blocks_of_known_networks(build, expected):
    assert find_blocks(build()) == expected


class Cache:
    """Of keys, which grows with every block that runs; a class of somebody's own."""

    def __init__(self, prefix):
        self.keys, self.filled = [prefix], {"blocks": 0}
        self.owner, self.buffer = self, torch.zeros(4)


class Attends(nn.Module):
    """A block of a language model: it takes and returns a cache, an encoder's states and a bias."""

    def __init__(self):
        super().__init__()
        self.norm, self.key, self.out = nn.LayerNorm(64), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, pair, cache=None, *, states=None, more=None):
        x, skip = pair
        key = self.key(self.norm(x))
        if cache is not None:
            cache.keys[-1] = key = torch.cat([cache.keys[-1], key], 1)
            cache.filled["blocks"] += 1
            cache.buffer[: len(x)] += key.detach().mean()
        scores = x @ key.mT + more["bias"] if more else x @ key.mT
        x = self.out(scores.softmax(-1) @ key) + x + states.mean(1, keepdim=True)
        return (x, skip + x), cache


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.encoder = nn.Linear(8, 64), nn.Linear(8, 64)
        self.bias, self.prefix = nn.Parameter(torch.zeros(1, 6, 7)), nn.Parameter(torch.randn(64))
        self.blocks = nn.ModuleList([Attends(), Attends()])

    def forward(self, x, given_bias=True):
        states = self.encoder(x.flip(1))
        cache = Cache(self.prefix.expand(len(x), 1, 64))
        lowest = torch.finfo(x.dtype).min
        bias = self.bias + torch.tensor([0.0] * 6 + [lowest])  # as a mask is added to it
        pair = (self.stem(x), self.stem(x.roll(1, 0)))
        for i, block in enumerate(self.blocks):
            more = {"bias": bias} if i == 0 else None
            pair, _ = block(pair, cache if i == 0 else None, states=states, more=more)
        return pair[0] + pair[1], cache


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("recipe", [LOSSLESS, "checkpoint"])
def test_caches_pairs_keywords_and_states(recipe, times):
    torch.manual_seed(0)
    dense = Decoder()
    razor = copy.deepcopy(dense)
    razor_(razor, recipe)
    assert type(razor.blocks[0]).__name__ == "RazorAttends"
    x = torch.randn(3, 6, 8)
    results = []
    for model in (dense, razor):
        out, cache = model(x)
        for _ in range(times):  # through the same graph
            out.square().sum().backward(retain_graph=True)
        gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        results.append((out, gradients, cache))
    (out, ours, cache), (expected, theirs, other) = results[::-1]
    assert torch.equal(out, expected)
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.999
    assert cache.filled == other.filled == {"blocks": 1}
    assert torch.equal(cache.keys[0], other.keys[0])
    assert torch.equal(cache.buffer, other.buffer)


def test_what_a_block_is_given_by_keyword_is_stored_too():
    torch.manual_seed(0)
    razor = Decoder()
    razor_(razor, "checkpoint")
    states = torch.randn(3, 500, 64, requires_grad=True) * 1
    pair = tuple(torch.randn(2, 3, 500, 64, requires_grad=True) * 1)
    whole = pair[0].nbytes
    with StorageMeter() as meter:
        meter.track(model_tensors(razor), states, pair)
        pair, _ = razor.blocks[0](pair, states=states)
        before = meter.live
        del states
        assert before - meter.live == whole
        pair[0].sum().backward()


def test_a_token_of_zeros_is_read_back_as_zeros():
    class Zeros(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.stem = nn.Parameter(torch.zeros(1, 1, 96)), nn.Linear(8, 96)
            self.blocks = nn.Sequential(block(), block())

        def forward(self, x):
            return self.blocks(torch.cat([self.token.expand(len(x), -1, -1), self.stem(x)], 1))

    def block():
        norm = nn.LayerNorm(96, eps=1e-12)
        return nn.ModuleList([nn.Sequential(norm, nn.Linear(96, 96), nn.Linear(96, 96))])[0]

    torch.manual_seed(0)
    dense = Zeros()
    razor = copy.deepcopy(dense)
    razor_(razor, "checkpoint")
    x = torch.randn(4, 5, 8)
    for model in (dense, razor):
        model(x)[:, 1:].square().sum().backward()
    assert (
        torch.cosine_similarity(
            *(torch.cat([p.grad.flatten() for p in m.blocks.parameters()]) for m in (dense, razor)),
            dim=0,
        )
        > 0.999
    )
