"""Every registered layer in every setting, against its dense self."""

import math
from dataclasses import replace

import pytest
from cases import (
    LAYOUTS,
    LOSSLESS,
    assert_gradients,
    assert_within,
    compare,
    error_of,
    leaf,
    prepared,
    razored,
    settings,
    steepness,
)
from hypothesis import given
from kinds import KINDS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from razorlight.layers import RazorLayer, known_classes
from razorlight.planning import Role

NORMS = (nn.GroupNorm, nn.RMSNorm, nn.LayerNorm, _BatchNorm)
EXACT = (Role.RECTIFIER, Role.MASK, Role.VIEW, Role.LOSS)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_dense(kind):
    @given(KINDS[kind], settings())
    def check(layer, setting):
        build, shape = layer
        if kind.startswith("as tested"):  # norms inside make noise of what is constant
            setting = replace(setting, values="normal", layout="contiguous")
        dense = prepared(build, setting)
        razor = razored(dense, setting)
        outcomes = compare(dense, razor, lambda: {"input": leaf(shape, setting)}, setting)
        if outcomes is None:
            return
        expected, result = outcomes
        if setting.recipe in LOSSLESS or _is_exact(razor):
            x = LAYOUTS[setting.layout](leaf(shape, setting).detach())
            steep = steepness(dense, x.double())
            if steep < 10 or setting.tolerance < 1e-4:  # else rounding is all there is
                assert_gradients(result, expected, setting.tolerance * steep)
        elif isinstance(razor, RazorLayer):
            _assert_within_the_codec(razor, result, expected, leaf(shape, setting), setting)

    check()


def _is_exact(razor):
    return not [*razor.children()] and isinstance(razor, RazorLayer) and razor.known.role in EXACT


def _assert_within_the_codec(razor, result, expected, x, setting):
    """What a codec's error can do to the gradients of single layers."""
    if expected.given is None or not x.numel() or [*razor.children()]:
        return
    error = error_of(razor.razor_plan.codec, x.detach().double())
    if razor.known.role is Role.PRODUCT and "Std" not in type(razor).__name__:
        assert_gradients(result, expected, setting.tolerance, ["input", "bias"])
        name, bound = "weight", error * expected.given.abs().sum().item()
    elif razor.known.role is Role.SMOOTH_ACTIVATION:  # no slope changes faster than x
        jump = _jump_of_the_slope(razor)
        samples = len(x) if setting.layout == "expanded" and x.ndim else 1  # of one
        name, bound = "input", samples * (error + jump) * expected.given.abs().max().item()
    else:
        return assert_gradients(result, expected, setting.tolerance, ["bias"])
    theirs = expected.gradients.get(name)
    if theirs is not None and theirs.numel() and theirs.isfinite().all():
        rounding = setting.tolerance * max(1.0, theirs.abs().max().item())
        assert_within(result.gradients[name], theirs, 1.1 * bound + rounding, name)


def _jump_of_the_slope(razor):
    if "Hardswish" in type(razor).__name__:
        return 0.5
    if "Softplus" in type(razor).__name__:  # a line beyond its threshold
        return 1 - 1 / (1 + math.exp(-razor.threshold))
    return 0.0


def test_every_registered_class_is_drawn():
    drawn = set()
    for strategy in KINDS.values():
        build, _ = strategy.example()
        drawn |= {type(layer) for layer in build().modules()}
    assert {*known_classes()} <= drawn
