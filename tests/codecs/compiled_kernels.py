"""Compile the Triton kernels for GPUs that need not be there.

A type such as "i32:16" is that of a number that 16 divides, "1" of the number one, and None of
None: Triton compiles a kernel for each of them.
"""

import re
import subprocess
import tempfile

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from razorlight.codecs.kernels import norm_kernels
from razorlight.codecs.kernels import uniform_kernels as kernels
from razorlight.codecs.kernels.norm_kernels import Rows
from razorlight.codecs.kernels.operands import Operand, Strides
from razorlight.codecs.kernels.uniform_kernels import Encoded, Geometry, Statistics

STRIDES = Strides("i32", "i32", "i32", "i32")
AT = Geometry("i32", "i32", "i32", "i32", "i32", STRIDES)
NORM = Statistics(Operand("*fp32", STRIDES), Operand("*fp32", STRIDES))
STORED = {"scales": "*i8", "levels": "*i16", "steps": "*i16"}
FORMAT = {"PLANES": (4, 1), "SHIFTS": (0, 4), "PRESERVES": "ends", "COMPANDED": False}
GRADIENTS = [f"{name}_gradient" for name in ("relu", "gelu", "gelu_tanh", "silu", "hardswish")]
PACKED = ("*u8", "*u8")
STEPS = ("affine_of_signs", "relu", "gelu", "silu", "hardswish", *GRADIENTS)
OPERANDS = ((Operand("*fp32", STRIDES), Operand("*bf16", STRIDES), None),)  # no bias
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
        {**FORMAT, "INNER": 1, "BLOCK": 128, "STEPS": STEPS},
    ),
]

ROWS = Rows("i32", "i32:16", "1", "i32:16")
ROW_GRADIENTS = {
    "weight": "*fp32:16",
    "rstd": "*fp32:16",
    "d_weight": "*fp32:16",
    "d_bias": "*fp32:16",
    "encoded": Encoded(None, "*i16:16", "*i16:16", ("*u8:16",)),
    "rows": ROWS,
    "at": Geometry("1", "1", "i32", "1", "i32", None),
}
FOUR_BITS = {"PLANES": (4,), "SHIFTS": (0,), "COMPANDED": False, "VECTOR": 8}
OF_ROWS = {**FOUR_BITS, "PRESERVES": "ends", "IS_CENTRED": True, "LIE": "in places"}
CHANNEL_GRADIENTS = {
    "grad": "*bf16:16",
    "weight": "*fp32:16",
    "mean": "*fp32:16",
    "rstd": "*fp32:16",
    "encoded": Encoded(None, "*i8:16", "*i16:16", ("*u8:16",)),
    "rows": ROWS,
    "channels": "i32:16",
    "splits": "i32",
}
SUMS = {"sums": None, "d_x": None, "d_weight": "*fp32:16", "d_bias": "*fp32:16"}
INPUT = {"sums": "*fp32:16", "d_x": "*bf16:16", "d_weight": None, "d_bias": None}
OF_CHANNELS = {**FOUR_BITS, "PRESERVES": "signs", "ROWS": 8, "COLUMNS": 256}
NORM_KERNELS = [
    *(
        (
            norm_kernels.row_gradients,
            {**ROW_GRADIENTS, "grad": f"*{dtype}:16", "d_x": f"*{dtype}:16"},
            {**OF_ROWS, "INNER": width, "ROWS": 2048 // columns, "COLUMNS": columns},
        )
        for width, columns, dtype in [(384, 512, "bf16"), (768, 1024, "fp32"), (1024, 1024, "bf16")]
    ),
    *(
        (
            norm_kernels.channel_gradients,
            {
                **CHANNEL_GRADIENTS,
                **written,
                "at": Geometry("1", between, "i32", "i32", "i32", None),
            },
            {**OF_CHANNELS, "IN_COLUMNS": in_columns, "LIE": lie, "INNER": inner},
        )
        for written in (SUMS, INPUT)
        for in_columns, lie, inner, between in [
            (True, "in places", 256, "1"),
            (False, "as lines", 1, "i32:16"),
        ]
    ),
]


def compile_all(capabilities):
    for capability in capabilities:
        for kernel, types, constants in KERNELS:
            compile_for(capability, kernel, {"at": AT, "norm": NORM} | types, constants)
        for kernel, types, constants in NORM_KERNELS:
            stack = stack_of(compile_for(capability, kernel, types, constants))
            assert not stack, f"{kernel} spills registers: {stack} bytes a thread"


def compile_for(capability, kernel, types, constants):
    """The binary of a kernel with parameters of these types, and with these constants."""
    types = types | dict.fromkeys(constants, "constexpr")
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    attributes = {}

    def specialise(given, path):
        if isinstance(given, tuple):
            parts = [specialise(part, (*path, i)) for i, part in enumerate(given)]
            return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
        if given in ("1", None):
            values[path] = None if given is None else 1
            return "constexpr"
        if given.endswith(":16"):
            attributes[path] = [["tt.divisibility", 16]]
        return given.removesuffix(":16")

    # the names in the order of the kernel's parameters
    signature = {name: specialise(types[name], (i,)) for i, name in enumerate(kernel.arg_names)}
    return triton.compile(
        ASTSource(kernel, signature, values, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"enable_fp_fusion": False},
    ).asm["cubin"]


def stack_of(cubin):
    """The bytes of a thread's stack, where registers are spilled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(re.search(r"STACK:(\d+)", usage)[1])
