"""The forward on tensors that claim to lie on a GPU: no tensor of the CPU comes in."""

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from razorlight import razor_

NETWORKS = {
    "ViT": lambda: timm.create_model("vit_tiny_patch16_224", depth=2),
    "ResNet": lambda: timm.create_model("resnet10t"),
    "EfficientNet": lambda: timm.create_model("tf_efficientnet_lite0"),
    "Swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 2, 1)),
    "ConvNeXt": lambda: timm.create_model("convnext_atto"),
    "Unet": lambda: smp.Unet("resnet18", encoder_weights=None),
    "ViT with dropout": lambda: timm.create_model(
        "vit_tiny_patch16_224", depth=2, attn_drop_rate=0.1, proj_drop_rate=0.1
    ),
}


@pytest.mark.parametrize("recipe", ["exact", "balanced", "compact", "checkpoint", "paper"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_forward(name, recipe, monkeypatch):
    # the state of a generator, which an attention with dropout stores, is asked from a driver
    state = torch.empty(16, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: state)
    model = NETWORKS[name]().to("meta")
    razor_(model, recipe)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to_empty(device="cuda").train()
        with torch.autocast("cuda", torch.bfloat16):
            out = model(torch.empty(2, 3, 224, 224, device="cuda"))
    assert out.device.type == "cuda"
    assert out.requires_grad
