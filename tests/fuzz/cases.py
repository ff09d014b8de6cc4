"""What the fuzz tests draw from, and how a layer is compared with its dense self."""

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import segmentation_models_pytorch.encoders.mix_transformer as smp_mit
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from razorlight import RECIPES, Codec, RazorError, Recipe, TopK, Uniform, razor_
from razorlight.memory import storage_bytes
from razorlight.memory.meter import StorageMeter, model_tensors
from razorlight.planning import exact, paper

LOSSLESS: dict[str, Recipe] = {
    "exact": exact(),
    "exact, run again": replace(exact(), max_rerun_cost=math.inf),
    "exact, nothing run again": replace(exact(), max_rerun_cost=0),
    "paper, nothing pruned": paper(0.0, "fp32"),
}
ALL_RECIPES = {**LOSSLESS, **{name: make(None) for name, make in RECIPES.items()}}


def _channels_last(x: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats.get(x.ndim, torch.contiguous_format))


def _reversed(x: Tensor) -> Tensor:
    order = [*reversed(range(x.ndim))]
    return x.permute(order).contiguous().permute(order)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": _channels_last,
    "reversed": _reversed,
    "every other": lambda x: torch.stack([x, x], -1)[..., 0],
    "part": lambda x: F.pad(x, (1, 1))[..., 1:-1] if x.ndim else x,
    "expanded": lambda x: x[:1].expand_as(x) if x.ndim else x.expand(()),
}
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "ties": torch.round,
    "large": lambda x: x * 50,
    "zero": torch.zeros_like,
}
TOLERANCES = {
    torch.float64: 1e-5,  # the recipes store at most 32 bits
    torch.float32: 1e-5,
    torch.float16: 5e-3,
    torch.bfloat16: 6e-2,
}


@dataclass(frozen=True)
class Setting:
    """How a layer is run.

    Attributes:
        recipe: of :data:`ALL_RECIPES`.
        dtype: of the parameters and the input.
        autocast: to what, or not at all.
        layout: of the input, of :data:`LAYOUTS`.
        values: of the input, of :data:`VALUES`.
        leaf: whether the input is a leaf, and so nothing that may be changed in place.
        needs: whether the input needs a gradient.
        frozen: bit by bit, which parameters are.
        train: whether in training mode.
        changed: whether the output is changed in place, as a residual connection may do.
        sums: whether the output is summed up, so that its gradient is expanded.
        seed: of the parameters; the next one of what a run draws, those behind of its inputs.
    """

    recipe: str
    dtype: torch.dtype
    autocast: torch.dtype | None
    layout: str
    values: str
    leaf: bool
    needs: bool
    frozen: int
    train: bool
    changed: bool
    sums: bool
    seed: int

    @property
    def tolerance(self) -> float:
        return max(TOLERANCES[dtype] for dtype in (self.dtype, self.autocast) if dtype)


def settings(recipes=ALL_RECIPES):
    """Settings of every kind; the plainest ones first."""
    return st.builds(
        Setting,
        recipe=st.sampled_from([*recipes]),
        dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
        autocast=st.sampled_from([None, None, None, torch.bfloat16, torch.float16]),
        layout=st.sampled_from([*LAYOUTS]),
        values=st.sampled_from([*VALUES]),
        leaf=st.booleans(),
        needs=st.sampled_from([True, True, False]),
        frozen=st.sampled_from([0, 0, 1, 2, 3, 5, 7]),
        train=st.sampled_from([True, True, True, False]),
        changed=st.sampled_from([False, False, True]),
        sums=st.booleans(),
        seed=st.integers(0, 2**16),
    )


@dataclass
class Outcome:
    """What came of a forward and a backward, which began with the gradient ``given``."""

    out: Tensor
    gradients: dict[str, Tensor | None]
    given: Tensor | None


def run(call: Callable[..., Any], inputs: dict[str, Tensor], setting: Setting) -> Outcome:
    """Forward and backward of ``call(*inputs)``; ``inputs`` are leaves."""
    parameters = dict(call.named_parameters()) if isinstance(call, nn.Module) else {}
    leaves = {**inputs, **parameters}
    # not the input's numbers once more: a norm has no gradient in the direction of its output
    torch.default_generator.manual_seed(setting.seed + 1)
    with _kernels(setting), _cast(setting):
        out = call(*(_laid(x, setting) for x in inputs.values()))
    if setting.changed:
        out += 0.5
    given = None
    if out.requires_grad:
        given = out.new_ones(()).expand_as(out) if setting.sums else torch.randn_like(out)
        given = given.detach()
        with _kernels(setting):
            out.backward(given)
    return Outcome(out.detach(), {name: leaf.grad for name, leaf in leaves.items()}, given)


def _cast(setting: Setting) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", setting.autocast) if setting.autocast else nullcontext()


def _kernels(setting: Setting) -> AbstractContextManager[Any]:
    """Those that give the same twice.

    Of oneDNN's, convolutions in half precision with strides reach beyond the memory of narrow maps
    where the CPU computes in it (torch 2.14, AVX-512 with bfloat16 or float16): dense as they are,
    their weight's gradient differs from run to run, and the process crashes.
    """
    halves = {torch.bfloat16, torch.float16} & {setting.dtype, setting.autocast}
    return torch.backends.mkldnn.flags(enabled=False) if halves else nullcontext()


def _laid(x: Tensor, setting: Setting) -> Tensor:
    """A leaf, already laid so; or what was made of one, to be overwritten by who likes to."""
    if setting.leaf or not x.is_floating_point():
        return x
    return LAYOUTS[setting.layout](x * 1)


def leaf(shape: tuple[int, ...], setting: Setting, number: int = 0) -> Tensor:
    """An input as ``setting`` says."""
    generator = torch.Generator().manual_seed(setting.seed + 2 + number)
    x = VALUES[setting.values](torch.randn(shape, generator=generator)).to(setting.dtype)
    x = LAYOUTS[setting.layout](x) if setting.leaf else x
    return x.requires_grad_(setting.needs)


def prepared(build: Callable[[], nn.Module], setting: Setting) -> nn.Module:
    """The dense layer: not at its initial zeros and ones, and partly frozen."""
    torch.default_generator.manual_seed(setting.seed)
    layer = build().to(setting.dtype).train(setting.train)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.3)
            parameter.requires_grad_(not setting.frozen >> number % 3 & 1)
    return layer


def razored(
    dense: nn.Module, setting: Setting, recipes: dict[str, Recipe] = ALL_RECIPES
) -> nn.Module:
    """A razor copy."""
    razor = copy.deepcopy(dense)
    with suppress(RazorError):  # nothing to convert: a carrier alone, or too large a window
        razor_(razor, recipes[setting.recipe], include=["*"])
    return razor


def compare(
    dense: Callable[..., Any],
    razor: Callable[..., Any],
    make: Callable[[], dict[str, Tensor]],
    setting: Setting,
) -> tuple[Outcome, Outcome] | None:
    """Run both on equal inputs; forward, buffers and the kind of gradients must be the same.

    Returns:
        What came of both, dense first; None if torch raises, and so does razorlight.
    """
    # metered now and then, which takes as long again; both, for it keeps torch from some kernels
    way = run if setting.seed % 4 else run_and_meter
    try:
        expected = way(dense, make(), setting)
    except Exception as error:
        if "modified by an inplace operation" in str(error):  # what only torch has kept
            return None
        with pytest.raises(type(error)):
            run(razor, make(), setting)
        return None
    try:
        result = way(razor, make(), setting)
    except RuntimeError as error:
        if not (setting.autocast and "modified by an inplace operation" in str(error)):
            raise
        # autocast may have made torch a copy to keep, where without it torch raises this too
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            run(dense, make(), replace(setting, autocast=None))
        return None
    assert_identical(result.out, expected.out, "output")
    for name, gradient in expected.gradients.items():
        ours = result.gradients[name]
        assert (ours is None) == (gradient is None), name
        if ours is not None:
            assert (ours.shape, ours.dtype) == (gradient.shape, gradient.dtype), name
    if isinstance(dense, nn.Module):
        for name, buffer in dense.named_buffers():
            assert_identical(razor.get_buffer(name), buffer, name)
    return expected, result


def run_and_meter(
    razor: Callable[..., Any], inputs: dict[str, Tensor], setting: Setting
) -> Outcome:
    """:func:`run`, after which nothing may be alive but its results."""
    held = (inputs, model_tensors(razor) if isinstance(razor, nn.Module) else [])
    with StorageMeter() as meter:
        meter.track(held)
        before = meter.live
        result = run(razor, inputs, setting)
        if not setting.leaf:  # else its record lies on it, which goes with it
            results = (result.out, result.gradients, result.given)
            assert meter.live - before <= storage_bytes(held, results) - before
    return result


def assert_identical(ours: Tensor, theirs: Tensor, name: str) -> None:
    """Bit for bit, in the same memory format."""
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
    if theirs.numel():
        steps = zip(theirs.shape, ours.stride(), theirs.stride(), strict=True)
        assert all(ours == theirs for size, ours, theirs in steps if size > 1), name
    assert torch.equal(ours.nan_to_num(7.0), theirs.nan_to_num(7.0)), name
    assert torch.equal(ours.isnan(), theirs.isnan()), name


def assert_gradients(
    result: Outcome, expected: Outcome, tolerance: float, only: Iterable[str] | None = None
) -> None:
    """Each within ``tolerance`` of the largest of them, or of what stands for it."""
    gradients = {name: g for name, g in expected.gradients.items() if g is not None and g.numel()}
    size = max([1.0, *(g.abs().max().item() for g in gradients.values())])
    if expected.given is not None and None in expected.gradients.values():
        # the largest may be one that is not asked for, and another's terms, as large, may cancel
        size = max(size, expected.given.double().abs().sum().item())
    for name, gradient in gradients.items():
        # an overflow of half precision may come elsewhere
        if (only is None or name in only) and gradient.isfinite().all():
            assert_within(result.gradients[name], gradient, tolerance * size, name)


def assert_within(ours: Tensor | None, theirs: Tensor | None, bound: float, name: str) -> None:
    """No entry further off than ``bound``."""
    if ours is not None and theirs is not None and theirs.numel():
        error = (ours.double() - theirs.double()).abs().max().item()
        assert error <= bound, f"{name}: {error} > {bound}"


def error_of(codec: Codec, x: Tensor) -> float:
    """How far an entry of ``x`` may lie off, whatever entries make a group with it."""
    largest = x.abs().max().item()
    if isinstance(codec, Uniform):  # where signs are kept, negative steps are twice as wide
        return 2 * (x.max() - x.min()).item() / (2**codec.bits - 1) + 2**-6 * largest
    return largest if isinstance(codec, TopK) else 2**-10 * largest


def steepness(layer: nn.Module, x: Tensor) -> float:
    """1/std of the steepest group of a norm: by so much it enlarges rounding."""
    if not x.numel() or not isinstance(
        layer, nn.GroupNorm | nn.RMSNorm | nn.LayerNorm | _BatchNorm
    ):
        return 1.0
    if isinstance(layer, nn.GroupNorm):
        groups = x.reshape(len(x) * layer.num_groups, -1)
    elif isinstance(layer, _BatchNorm):
        groups = x.transpose(0, 1).flatten(1)
    elif x.ndim == 4 and (
        type(layer).__name__.endswith("2d") or isinstance(layer, smp_mit.LayerNorm)
    ):
        groups = x.movedim(1, -1).flatten(0, -2)
    else:
        groups = x.reshape(-1, math.prod(layer.normalized_shape))
    least = groups.var(1, correction=0).min() + (layer.eps or 1e-7)
    return max(1.0, least.rsqrt().item())
