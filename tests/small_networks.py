"""A network small enough to train it many times over."""

from typing import Any

import timm
from torch import nn


def tiny_vit(size: int, patch: int, width: int = 32, **options: Any) -> nn.Module:
    """A ViT of two blocks with layer scale.

    Args:
        size: side of the images, in pixels.
        patch: side of a patch.
        width: channels of a token.
        options: others of timm's.
    """
    chosen = {"num_classes": 3, "init_values": 0.1, **options}
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=2,
        num_heads=2,
        **chosen,
    )
