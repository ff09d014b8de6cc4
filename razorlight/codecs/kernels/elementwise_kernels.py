"""The elementwise functions of :data:`razorlight.codecs.elementwise.Name` in Triton."""

import triton
import triton.language as tl

from razorlight.codecs.kernels.operands import load

_ROOT_OF_HALF = tl.constexpr(0.7071067811865476)
_ROOT_OF_TWO_OVER_PI = tl.constexpr(0.7978845608028654)
_DENSITY = tl.constexpr(0.3989422804014327)  # of the normal distribution at zero
_CUBE = tl.constexpr(0.044715)  # the factor of the cube in the tanh form of GELU


@triton.jit
def take_steps(x, STEPS: tl.constexpr, operands, sample, middle, place, within, mask):
    """What functions make of ``x``, one after the other; ``STEPS`` has their names."""
    for i in tl.static_range(len(STEPS)):  # Triton 3.6 takes an entry of STEPS for no constant
        x = _step(x, tl.constexpr(STEPS[i]), operands[i], sample, middle, place, within, mask)
    return x


@triton.jit
def _step(x, NAME: tl.constexpr, operands, sample, middle, place, within, mask):
    """An elementwise function, in float32; see :data:`razorlight.codecs.elementwise.Name`."""
    out = x
    if NAME == "affine" or NAME == "affine_of_signs":
        out = _affine(x, NAME, operands, sample, middle, place, within, mask)
    elif NAME == "relu":
        out = tl.where(x < 0, 0.0, x)
    elif NAME == "hardswish":
        out = x * tl.minimum(tl.maximum(x + 3, 0.0), 6.0) * (1 / 6)
    elif NAME == "gelu" or NAME == "gelu_tanh" or NAME == "silu":
        out = x * _gate(x, NAME)
    elif NAME != "cast":
        grad = load(operands[0], sample, middle, place, within, mask)
        if NAME == "relu_gradient":
            out = tl.where(x <= 0, 0.0, grad)
        elif NAME == "hardswish_gradient":
            out = tl.where(x <= -3, 0.0, tl.where(x < 3, grad * (x * (1 / 3) + 0.5), grad))
        elif NAME == "gelu_gradient":
            out = grad * (_gate(x, "gelu") + x * tl.exp(x * x * -0.5) * _DENSITY)
        elif NAME == "gelu_tanh_gradient":
            gate = _gate(x, "gelu_tanh")
            slope = (1 + x * x * (3 * _CUBE)) * (2 * _ROOT_OF_TWO_OVER_PI)
            out = grad * (gate + x * gate * (1 - gate) * slope)
        elif NAME == "silu_gradient":
            gate = _gate(x, "silu")
            out = grad * (gate + x * gate * (1 - gate))
        else:
            tl.static_assert(NAME == "times")
            out = x * grad
    return out


@triton.jit
def _gate(x, NAME: tl.constexpr):
    """The factor from 0 to 1 by which an activation multiplies its input."""
    if NAME == "gelu":
        return 0.5 + 0.5 * tl.erf(x * _ROOT_OF_HALF)
    elif NAME == "gelu_tanh":  # 0.5 + 0.5 * tanh(y) is the sigmoid of 2 * y
        return tl.sigmoid((x + x * x * x * _CUBE) * (2 * _ROOT_OF_TWO_OVER_PI))
    else:
        return tl.sigmoid(x)


@triton.jit
def _affine(x, NAME: tl.constexpr, operands, sample, middle, place, within, mask):
    """``x * weight + bias``; see ``_affine`` in razorlight/functional/normalise.py."""
    shift = tl.zeros_like(x)
    if operands[2] is not None:
        shift = load(operands[2], sample, middle, place, within, mask)
    if operands[1] is not None:
        weight = load(operands[1], sample, middle, place, within, mask)
        if NAME == "affine_of_signs":
            weight = tl.abs(weight)
            shift -= load(operands[0], sample, middle, place, within, mask) * weight
        x = x * weight
    return x + shift
