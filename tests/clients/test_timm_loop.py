"""A training loop in the manner of timm's own script, without Lightning."""

from functools import partial

import numpy as np
import pytest
import timm
import torch
from side_by_side import compare
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, NativeScaler

from razorlight import is_converted, razor_, restore_

pytestmark = pytest.mark.clients

NETWORKS = {
    "convnext_atto": partial(timm.create_model, "convnext_atto"),
    "mobilenetv3_small_100": partial(timm.create_model, "mobilenetv3_small_100"),
    "vit": partial(timm.create_model, "vit_tiny_patch16_224", img_size=64, depth=4),
}


def network(name):
    torch.manual_seed(0)
    return NETWORKS[name](num_classes=5, drop_path_rate=0.1).train()


def train(model, autocast, steps=4):
    """Losses of some steps, and the averaged model."""
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, layer_decay=0.8)
    schedule, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=2, warmup_epochs=1)
    average = ModelEmaV3(model, decay=0.9)
    mixup, criterion = Mixup(0.2, 1.0, num_classes=5), SoftTargetCrossEntropy()
    scaler = NativeScaler(device="cpu")
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for number in range(steps):
        images = torch.randn(8, 3, 64, 64, generator=generator)
        labels = torch.randint(0, 5, (8,), generator=generator)
        images, targets = mixup(images, labels)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = criterion(model(images), targets)
        optimizer.zero_grad()
        scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters())
        average.update(model, step=number)
        schedule.step(number)
        losses.append(loss.item())
    return losses, average


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_loop(name, autocast):
    runs = {}
    for recipe in (None, "exact", "balanced"):
        np.random.seed(0)  # Mixup draws from it
        model = network(name)
        if recipe:
            razor_(model, recipe)
        runs[recipe] = train(model, autocast)
    losses = {recipe: values for recipe, (values, _) in runs.items()}
    assert losses["exact"] == pytest.approx(losses[None], rel=5e-2 if autocast else 1e-3)
    assert losses["balanced"] == pytest.approx(losses[None], rel=0.1)
    average = runs["balanced"][1].module
    assert average.state_dict().keys() == network(name).state_dict().keys()
    restore_(average)
    assert not is_converted(average)


@pytest.mark.parametrize(("name", "less"), [("convnext_atto", 9), ("vit", 9)])
def test_stored(name, less):
    model, images = network(name), torch.randn(8, 3, 64, 64)
    found = compare(model, lambda: model(images).square().mean(), images)
    assert found.less > less
    assert found.cosine > 0.95
