"""Compile the Triton kernels for GPUs that need not be there, as they are launched.

A stand-in takes the place of Triton's driver. The code that launches kernels gets tensors of a CPU.
Triton compiles each kernel for these arguments, and does not run the kernel.
"""

import re
import subprocess
import tempfile

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from razorlight import Mask, Slope, Uniform
from razorlight.codecs.elementwise import Step
from razorlight.codecs.kernels import Codes, Pooling, entrywise, max_pool, norm, uniform

GRADIENTS = [f"{name}_gradient" for name in ("relu", "gelu", "gelu_tanh", "silu", "hardswish")]


class Driver:
    """What Triton asks of its driver to compile a kernel."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_device(self):
        return self.capability  # Triton compiles for each device anew

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_stream(self, device):
        return 0


def compile_all(capabilities):
    kernels = []
    run = JITFunction.run

    def compile_only(self, *arguments, warmup, **options):
        kernels.append(run(self, *arguments, warmup=True, **options))

    JITFunction.run = compile_only
    for capability in capabilities:
        driver.set_active(Driver(capability))
        launch_codecs()
        launch_pools()
        kernels.clear()
        launch_norms()
        launch_entrywise()
        for kernel in kernels:
            stack = stack_of(kernel.asm["cubin"])
            assert not stack, f"{kernel.name} spills registers: {stack} bytes a thread"


def launch_codecs():
    x = torch.randn(2, 197, 384)
    mean, rstd = (torch.rand(2, 197, 1).expand_as(x) for _ in range(2))
    for codec, *statistics in [
        (Uniform(5, axis=-2, token_scale=True, stochastic=True),),
        (Uniform(4, 64, axis=-2), mean, rstd),
        (Uniform(11, axis=-1, companded=True, preserves="signs"),),
        (Uniform(3, axis=-2, preserves="zeros"),),
    ]:
        for _ in range(2):  # Triton checks more when it has compiled a kernel before
            uniform.encode(codec, x, *statistics)
        how = {"shape": x.shape, "dtype": torch.bfloat16}
        stored, grad = codec.encode(x), x.bfloat16()
        more = {"affine_of_signs": (mean, grad, None)} | dict.fromkeys(GRADIENTS, (grad,))
        names = ("affine_of_signs", "relu", "gelu", "silu", "hardswish", *GRADIENTS)
        for steps in ([], [Step(name, more.get(name, ()), None) for name in names]):
            uniform.decode(codec, *stored, **how, steps=steps)


def launch_pools():
    windows = [3, 3], [2, 2], [1, 1], [1, 1]
    for channels_last in (False, True):
        form = torch.channels_last if channels_last else torch.contiguous_format
        x = torch.randn(2, 64, 112, 112, dtype=torch.bfloat16).contiguous(memory_format=form)
        how = Pooling(windows, 4, channels_last)
        for _ in range(2):  # Triton checks more when it has compiled a kernel before
            out, packed = max_pool.pool(x, how, [56, 56])
        max_pool.gradient(out, packed, how, x.shape)
        max_pool.pick(x, packed, how, [56, 56])


def launch_norms():
    needs = (True, True, True)
    for width, dtype in [(384, torch.bfloat16), (768, torch.float32), (1024, torch.float32)]:
        codes, grad = encoded(Uniform(4, axis=-2), torch.randn(2, 197, width), dtype)
        norm.row_gradients(codes, grad, torch.rand(width), torch.rand(2, 197, 1), needs, True)
    codes, grad = encoded(Uniform(4), torch.randn(1, 40, 48))
    norm.row_gradients(codes, grad, None, torch.rand(1, 40, 1), (True, False, False), False)
    codec = Uniform(4, 64, axis=-2, preserves="signs")
    weight, mean, rstd = torch.rand(64), torch.rand(64, 1, 1), torch.rand(64, 1, 1)
    for channels_last in (False, True):
        shape = (8, 3136, 64) if channels_last else (8, 64, 3136, 1)
        codes, grad = encoded(codec, torch.randn(shape), torch.bfloat16)
        grad = grad.view(8, 56, 56, 64).movedim(-1, 1) if channels_last else grad
        codes = codes._replace(channels_last=channels_last)
        norm.channel_gradients(codes, grad, weight, mean, rstd, needs)


def launch_entrywise():
    for shape, dtype in [((8, 64, 56, 56), torch.bfloat16), ((5, 8), torch.float64)]:
        x = torch.randn(shape, dtype=dtype)
        times, how = Step("times", (x,), None), {"shape": x.shape, "dtype": dtype}
        for codec in (Mask(), Slope(2), Slope(3, "silu"), Slope(4)):
            value = x > 0 if codec == Mask() else x
            for _ in range(2):
                stored = entrywise.encode(codec, value)
            for steps in ([], [times])[: 1 if dtype == torch.float64 else 2]:
                entrywise.decode(codec, *stored, **how, steps=steps)
    entrywise.decode(Mask(), *Mask().encode(x > 0), shape=x.shape, dtype=torch.bool)


def encoded(codec, x, dtype=torch.float32):
    """The codes of a value, and a gradient."""
    return Codes(codec, codec.encode(x), x.shape, False), torch.randn_like(x).to(dtype)


def stack_of(cubin):
    """The bytes of a thread's stack, where registers are spilled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(re.search(r"STACK:(\d+)", usage)[1])
