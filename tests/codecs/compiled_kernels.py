"""Compile the Triton kernels for GPUs that need not be there."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from razorlight.codecs.kernels import uniform_kernels as kernels
from razorlight.codecs.kernels.operands import Operand, Strides
from razorlight.codecs.kernels.uniform_kernels import Geometry, Statistics

STRIDES = Strides("i32", "i32", "i32", "i32")
AT = Geometry("i32", "i32", "i32", "i32", "i32", STRIDES)
NORM = Statistics(Operand("*fp32", STRIDES), Operand("*fp32", STRIDES))
STORED = {"scales": "*i8", "levels": "*i16", "steps": "*i16"}
FORMAT = {"PLANES": (4, 1), "SHIFTS": (0, 4), "PRESERVES": "ends", "COMPANDED": False}
GRADIENTS = [f"{name}_gradient" for name in ("relu", "gelu", "gelu_tanh", "silu", "hardswish")]
PACKED = ("*u8", "*u8")
STEPS = ("affine_of_signs", "relu", "gelu", "silu", "hardswish", *GRADIENTS)
OPERANDS = ((Operand("*fp32", STRIDES), Operand("*bf16", STRIDES), "constexpr"),)  # no bias
OPERANDS += ((), (), (), (), *[(Operand("*bf16", STRIDES),)] * len(GRADIENTS))
KERNELS = [
    (
        kernels.find_scales,
        {"x": "*bf16", "scales": "*i8", "tokens": "i32", "size": "i32", "root_of_size": "fp32"},
        {"INNER": 384, "TOKENS": 4, "BLOCK": 512},
    ),
    (
        kernels.find_ends,
        {"x": "*bf16", **STORED, "count": "i32", "step_of_span": "fp32", "farthest_level": "fp32"},
        {"PRESERVES": "signs", "COMPANDED": True, "INNER": 384, "GROUPS": 64, "BLOCK": 32},
    ),
    (
        kernels.encode,
        {"x": "*bf16", **STORED, "packed": PACKED, "eighth": "i32", "seed": "*i32"},
        {**FORMAT, "INNER": 384, "BLOCK": 128},
    ),
    (
        kernels.decode,
        {"value": "*bf16", **STORED, "packed": PACKED, "eighth": "i32", "operands": OPERANDS},
        {**FORMAT, "INNER": 1, "BLOCK": 128, "STEPS": STEPS}
        | {(kernels.decode.arg_names.index("operands"), 0, 2): None},
    ),
]


def compile_all(capabilities):
    for capability in capabilities:
        for kernel, types, constants in KERNELS:
            signature = {"at": AT, "norm": NORM} | types | dict.fromkeys(constants, "constexpr")
            # the names in the order of the kernel's parameters
            signature = {name: signature[name] for name in kernel.arg_names}
            triton.compile(
                ASTSource(kernel, signature, constants),
                target=GPUTarget("cuda", capability, 32),
                options={"enable_fp_fusion": False},
            )
