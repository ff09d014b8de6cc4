"""Back Razor's closed-form accounting, counted again and held against the published figures.

    python tools/accounting.py

Prints a table for each network; the exit status is 1 if a figure is more than 1 % off.

The published counter is analytic, of TinyTL's kind (Cai et al., NeurIPS 2020). A training step
needs the parameters and the highest sum, over the layers in turn, of: what the layers before have
stored for backward; the layer's input, and of a convolution or Linear the output too, divided by
its groups (a depthwise convolution can write over its input); the input of the block around it,
where that has a skip connection. Near p = .9 the highest sum of ProxylessNAS moves from the last
convolution to an early one, whose own input and output are not pruned: a floor.
"""

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import timm
import torch
from rich.console import Console
from rich.table import Column, Table
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation
from typing_extensions import override

from razorlight.codecs import Codec, Dense, Mask, TopK
from razorlight.memory.meter import MIB

TOLERANCE = 1.0  # %

# ProxylessNAS-mobile (Cai et al., ICLR 2019): channels, (kernel, expansion) of blocks, first stride
STAGES = (
    (16, [(3, 1)], 1),
    (32, [(5, 3), (3, 3)], 2),
    (40, [(7, 3), (3, 3), (5, 3), (5, 3)], 2),
    (80, [(7, 6), (5, 3), (5, 3), (5, 3)], 2),
    (96, [(5, 6), (5, 3), (5, 3), (5, 3)], 1),
    (192, [(7, 6), (7, 6), (7, 3), (7, 3)], 2),
    (320, [(7, 6)], 1),
)

conv = partial(Conv2dNormActivation, activation_layer=nn.ReLU6)


class Skip(nn.Sequential):
    """Adds its input to its output."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


def proxyless_mobile(num_classes: int) -> nn.Module:
    """ProxylessNAS-mobile: 4.08 M parameters and 320 M multiply-adds at 1000 classes, 224 px."""
    layers, channels = [conv(3, 32, 3, 2)], 32
    for out, blocks, stride in STAGES:
        for index, (kernel, expansion) in enumerate(blocks):
            wide = channels * expansion
            expand = [conv(channels, wide, 1)] if expansion > 1 else []
            depthwise = conv(wide, wide, kernel, 1 if index else stride, groups=wide)
            project = conv(wide, out, 1, activation_layer=None)
            layers.append((Skip if index else nn.Sequential)(*expand, depthwise, project))
            channels = out
    layers += [conv(channels, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, num_classes))


Codecs = Mapping[type[nn.Module], Codec]
"""How layers of a class store their input (Attention: the operands of its matrix products)."""

COUNTED = (nn.Conv2d, nn.Linear, Attention, nn.BatchNorm2d, nn.LayerNorm, nn.GELU)
DENSE: Codecs = {**dict.fromkeys(COUNTED, Dense()), nn.ReLU6: Mask()}


class Counter:
    """Follows a forward; ``peak`` is the highest sum of activations, in bytes."""

    def __init__(self) -> None:
        self.stored, self.skipped, self.peak = 0, 0, 0

    def watch(self, layer: nn.Module, codecs: Codecs) -> None:
        """Count ``layer`` whenever it runs."""
        if isinstance(layer, (Skip, Block)):
            layer.register_forward_pre_hook(self._enter)
            layer.register_forward_hook(self._leave)
        for kind, codec in codecs.items():
            if isinstance(layer, kind):
                hook = self._attend if kind is Attention else self._add
                layer.register_forward_hook(partial(hook, codec))

    def _enter(self, block: nn.Module, inputs: tuple[Tensor]) -> None:
        self.skipped = inputs[0].nbytes

    def _leave(self, block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.skipped = 0

    def _add(self, codec: Codec, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        (x,) = inputs
        alive = x.nbytes
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
            alive += output.nbytes // groups
        self.peak = max(self.peak, self.stored + self.skipped + alive)
        if all(p.requires_grad for p in layer.parameters()):
            self.stored += codec.nbits(x.shape, x.dtype) // 8

    def _attend(self, codec: Codec, layer: Attention, inputs: tuple[Tensor], _: Tensor) -> None:
        (x,) = inputs
        batch, tokens = x.shape[:2]
        probabilities = (batch, layer.num_heads, tokens, tokens)
        # q, k and v, and two copies of their input beside that of timm's joint Linear: the
        # published counter has it once for each of them
        bits = 5 * codec.nbits(x.shape, x.dtype) + codec.nbits(probabilities, x.dtype)
        self.stored += bits // 8


def step_bytes(network: nn.Module, batch: int, pruned: nn.Module, codecs: Codecs) -> int:
    """Bytes of one training step by the closed form: parameters and the peak of activations.

    Args:
        network: on the meta device, float32; its layers are left with hooks.
        batch: number of images of 224 x 224.
        pruned: the part of ``network`` whose layers store by ``codecs``; the rest is dense.
        codecs: of a kind of layer, how it stores its input.
    """
    counter, inside = Counter(), set(pruned.modules())
    for layer in network.modules():
        counter.watch(layer, codecs if layer in inside else DENSE)
    with torch.no_grad():
        network(torch.empty(batch, 3, 224, 224, device="meta"))
    # a frozen parameter counts one byte, as if it were kept in 8 bits
    parameters = sum(p.numel() * (4 if p.requires_grad else 1) for p in network.parameters())
    return parameters + counter.peak


class Row(NamedTuple):
    """One size, as the reference of Back Razor (Jiang et al., NeurIPS 2022) counts it and here."""

    setting: str
    published: float
    ours: float

    @property
    def difference(self) -> float:
        """Difference to the published size in %."""
        return 100 * (self.ours / self.published - 1)


def proxyless_rows() -> Iterator[Row]:
    """ProxylessNAS-mobile in MB (10^6 bytes): pruned throughout, values in float32."""

    def megabytes(codecs: Codecs, train_norms: bool = False) -> float:
        with torch.device("meta"):
            network = proxyless_mobile(num_classes=102)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.requires_grad_(train_norms)
        return step_bytes(network, 8, network, codecs) / 1e6

    yield Row("all trained", 367.0, megabytes(DENSE, train_norms=True))
    yield Row("BatchNorm frozen", 194.0, megabytes(DENSE))
    published = {0.5: 111.8, 0.7: 76.8, 0.8: 59.3, 0.9: 42.1, 0.95: 40.6, 0.97: 40.0, 0.99: 39.4}
    for p, size in published.items():
        products = dict.fromkeys((nn.Conv2d, nn.Linear), TopK(p, values="fp32"))
        yield Row(f"BatchNorm frozen, p = {p}", size, megabytes({**DENSE, **products}))


def vit_rows() -> Iterator[Row]:
    """ViT-B/16 in MiB: pruned in its blocks, values and GELU in float16, LayerNorm in float32."""

    def mebibytes(codecs: Codecs) -> float:
        with torch.device("meta"):
            network = timm.create_model("vit_base_patch16_224", num_classes=100)
        return step_bytes(network, 128, network.get_submodule("blocks"), codecs) / MIB

    yield Row("all trained", 19_235, mebibytes(DENSE))
    for p, size in {0.8: 4_743, 0.9: 3_912, 0.97: 3_331}.items():
        products = dict.fromkeys((nn.Linear, Attention), TopK(p, values="fp16"))
        others = {nn.LayerNorm: TopK(p, values="fp32"), nn.GELU: Dense("fp16")}
        yield Row(f"all trained, p = {p}", size, mebibytes({**DENSE, **products, **others}))


def main() -> int:
    """Print the tables and return the exit status."""
    tables = {
        "ProxylessNAS-mobile, 102 classes, batch 8, 224 px: MB": [*proxyless_rows()],
        "ViT-B/16, 100 classes, batch 128, 224 px: MiB": [*vit_rows()],
    }
    for title, rows in tables.items():
        numbers = (Column(name, justify="right") for name in ("published", "ours", "difference"))
        table = Table("setting", *numbers, title=title)
        for row in rows:
            sizes = (f"{size:,.1f}" for size in (row.published, row.ours))
            table.add_row(row.setting, *sizes, f"{row.difference:+.2f} %")
        Console().print(table)
    return int(any(abs(row.difference) > TOLERANCE for rows in tables.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
