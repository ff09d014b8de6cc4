"""The layers of Hugging Face transformers. ``tests/clients`` compares them with dense layers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.layers.known.common import ATTENTION, MULTIPLY, RMS_NORM, register
from razorlight.planning import Role


def _paths(*classes: str) -> list[str]:
    """Turn each ``model.Class`` into the path of the class in transformers."""
    pairs = (name.split(".") for name in classes)
    return [f"transformers.models.{model}.modeling_{model}.{name}" for model, name in pairs]


def _rms_norm(layer: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, layer.weight.shape, layer.weight, layer.variance_epsilon)


def _gelu_tanh(layer: Any, x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


register("transformers.pytorch_utils.Conv1D", functions=[torch.addmm], role=Role.PRODUCT)
register(
    "transformers.activations.GELUActivation",
    "transformers.activations.GELUTanh",
    functions=[F.gelu],
    role=Role.SMOOTH_ACTIVATION,
)
register(
    "transformers.activations.NewGELUActivation",
    functions=[F.gelu],
    role=Role.SMOOTH_ACTIVATION,
    equivalent=_gelu_tanh,
)
register("transformers.activations.SiLUActivation", functions=[F.silu], role=Role.SMOOTH_ACTIVATION)
register(
    *_paths(
        "llama.LlamaRMSNorm", "mistral.MistralRMSNorm", "qwen2.Qwen2RMSNorm", "qwen3.Qwen3RMSNorm"
    ),
    functions=RMS_NORM,
    role=Role.NORM,
    equivalent=_rms_norm,
)
register(
    *_paths("llama.LlamaMLP", "mistral.MistralMLP", "qwen2.Qwen2MLP", "qwen3.Qwen3MLP"),
    functions=MULTIPLY,
    role=Role.OPERANDS,
)
register(
    *_paths(
        "bert.BertSelfAttention",
        "gpt2.GPT2Attention",
        "llama.LlamaAttention",
        "mistral.MistralAttention",
        "qwen2.Qwen2Attention",
        "qwen3.Qwen3Attention",
        "roberta.RobertaSelfAttention",
        "vit.ViTAttention",
    ),
    functions=ATTENTION,
    role=Role.OPERANDS,
)
