"""Random small networks, whose layers share records, against their dense selves."""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
import torchvision.ops
from cases import LOSSLESS, Setting, compare, leaf, prepared, razored, run, steepness
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import Attention, BatchNormAct2d, LayerNorm2d, LayerScale, SqueezeExcite
from torch import nn

from razorlight import RECIPES, Uniform

CHANNELS = 8


def in_eight_bits(recipe):
    """A recipe with all its codecs in 8 bits: in fewer, a gradient of eight channels is noise."""
    codecs = {name: codec for name, codec in vars(recipe).items() if isinstance(codec, Uniform)}
    return replace(recipe, **{name: replace(codec, bits=8) for name, codec in codecs.items()})


LOW_BIT = {name: in_eight_bits(RECIPES[name](None)) for name in ("balanced", "compact")}
LOW_BIT["checkpoint"] = RECIPES["checkpoint"](None)
COSINES = {"balanced": 0.95, "compact": 0.95}
NETWORK_RECIPES = LOSSLESS | LOW_BIT | {"paper": RECIPES["paper"](None)}


class Residual(nn.Module):
    """``x + inner(x)``, perhaps in place."""

    def __init__(self, *inner, inplace=False):
        super().__init__()
        self.inner, self.inplace = nn.Sequential(*inner), inplace

    def forward(self, x):
        y = self.inner(x)
        if self.inplace:
            y += x
            return y
        return x + y


class Joined(nn.Module):
    """Both halves of the channels through a branch each, and joined again."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class Pooled(nn.Module):
    """Smaller by a pooling and as large as before."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return F.interpolate(self.pool(x), x.shape[2:])


def conv(**kwargs):
    return lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, **kwargs)


ACTIVATIONS = [
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    nn.ReLU6,
    lambda: nn.ReLU6(inplace=True),
    lambda: nn.LeakyReLU(0.1),
    nn.SiLU,
    lambda: nn.SiLU(inplace=True),
    nn.Hardswish,
    nn.GELU,
    lambda: nn.Dropout(0.3),
    lambda: nn.Dropout(0.3, inplace=True),
]
MAP_LAYERS = [
    conv(),
    conv(bias=False),
    conv(groups=CHANNELS),
    conv(padding_mode="reflect"),
    lambda: nn.Conv2d(CHANNELS, CHANNELS, 1),
    lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, padding=1),
    lambda: nn.BatchNorm2d(CHANNELS),
    lambda: BatchNormAct2d(CHANNELS),
    lambda: nn.GroupNorm(2, CHANNELS),
    lambda: LayerNorm2d(CHANNELS),
    lambda: SqueezeExcite(CHANNELS, rd_ratio=0.5),
    lambda: Pooled(nn.MaxPool2d(2)),
    lambda: Pooled(nn.AvgPool2d(2)),
    lambda: Pooled(nn.AdaptiveAvgPool2d(2)),
    lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2)),
    lambda: nn.Sequential(
        torchvision.ops.Permute([0, 2, 3, 1]),
        nn.LayerNorm(CHANNELS),
        nn.Linear(CHANNELS, CHANNELS),
        torchvision.ops.Permute([0, 3, 1, 2]),
    ),
    *ACTIVATIONS,
]
TOKEN_LAYERS = [
    lambda: nn.Linear(CHANNELS, CHANNELS),
    lambda: nn.Linear(CHANNELS, CHANNELS, bias=False),
    lambda: nn.Sequential(nn.Linear(CHANNELS, 16), nn.GELU(), nn.Linear(16, CHANNELS)),
    lambda: nn.LayerNorm(CHANNELS),
    lambda: nn.RMSNorm(CHANNELS),
    lambda: Attention(CHANNELS, 2),
    lambda: Attention(CHANNELS, 2, qkv_bias=True, attn_drop=0.2, proj_drop=0.2),
    lambda: LayerScale(CHANNELS),
    *ACTIVATIONS,
]


def network(layers, depth=2):
    """How to build a network: names of layers, lists of them for residual branches and the like."""
    plain = st.sampled_from(range(len(layers)))
    if not depth:
        return st.lists(plain, min_size=1, max_size=4)
    inner = network(layers, depth - 1)
    branch = st.tuples(st.sampled_from(["residual", "in place"]), inner)
    joined = st.tuples(st.just("joined"), inner, inner)
    part = st.one_of(plain, plain, branch, joined if layers is MAP_LAYERS else branch)
    return st.lists(part, min_size=1, max_size=4)


def build(plan, layers):
    """The network of such a plan."""
    return nn.Sequential(*(_build_part(part, layers) for part in plan))


def _build_part(part, layers):
    if isinstance(part, int):
        return layers[part]()
    kind, *plans = part
    inner = [build(plan, layers) for plan in plans]
    if kind == "joined":
        return nn.Sequential(Joined(*inner), nn.Conv2d(2 * CHANNELS, CHANNELS, 1))
    return Residual(*inner, inplace=kind == "in place")


def settings():
    """Settings in which a network learns something."""
    return st.builds(
        Setting,
        recipe=st.sampled_from([*NETWORK_RECIPES]),
        dtype=st.just(torch.float32),
        autocast=st.sampled_from([None, None, torch.bfloat16]),
        layout=st.sampled_from(["contiguous", "channels last"]),
        values=st.just("normal"),
        leaf=st.booleans(),
        needs=st.booleans(),
        frozen=st.sampled_from([0, 0, 0, 1, 2, 5]),
        train=st.sampled_from([True, True, False]),
        changed=st.booleans(),
        sums=st.just(False),
        seed=st.integers(0, 2**16),
    )


def steepest(dense, make, setting):
    """The greatest :func:`steepness` of the norms inside, with what a run drops."""
    found = [1.0]

    def look(layer, inputs):
        found.append(steepness(layer, inputs[0].detach().double()))

    dense = copy.deepcopy(dense)
    for layer in dense.modules():
        layer.register_forward_pre_hook(look)
    run(dense, make(), setting)
    return max(found)


def gradient(outcome):
    """The whole gradient, of all that has one, as a vector."""
    found = [g.flatten().double() for g in outcome.gradients.values() if g is not None]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def is_sensitive(dense, make, setting, expected):
    """Whether changes of all parameters by a 128th turn the dense gradient already.

    By about as much, 8/255/sqrt(12) of a deviation, 8 bits change values that span 8 deviations.
    A norm of what hardly varies, attention that is nearly all on one token, and a ReLU6 whose
    inputs lie far outside of 0 to 6 enlarge the error of a codec so.
    """
    if steepest(dense, make, setting) > 10:
        return True
    other = copy.deepcopy(dense)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.grad = None
            parameter.mul_(1 + torch.randn_like(parameter) / 128)
    turned = gradient(run(other, make(), setting))
    return not F.cosine_similarity(turned, expected, dim=0).item() > 0.99


def check(plan, layers, setting, first, shape):
    """Compare the network with its dense self, behind a layer whose output may be overwritten."""
    dense = prepared(lambda: nn.Sequential(first(), build(plan, layers)), setting)
    razor = razored(dense, setting, NETWORK_RECIPES)

    def make():
        return {"input": leaf(shape, setting)}

    outcomes = compare(dense, razor, make, setting)
    if outcomes is None or setting.recipe == "paper":
        return
    expected, result = (gradient(outcome) for outcome in outcomes)
    assert result.isfinite().all() == expected.isfinite().all()
    if not expected.numel() or expected.norm() <= 1e-6:
        return
    rough = setting.recipe in LOW_BIT or setting.autocast
    if rough and is_sensitive(dense, make, setting, expected):
        return
    bound = COSINES.get(setting.recipe, 0.99 if rough else 1 - 1e-6)
    assert F.cosine_similarity(result, expected, dim=0).item() > bound


@given(network(MAP_LAYERS), settings())
def test_maps(plan, setting):
    check(plan, MAP_LAYERS, setting, lambda: nn.Conv2d(3, CHANNELS, 3, padding=1), (4, 3, 8, 8))


@given(network(TOKEN_LAYERS), settings())
def test_tokens(plan, setting):
    check(plan, TOKEN_LAYERS, setting, lambda: nn.Linear(5, CHANNELS), (4, 16, 5))
