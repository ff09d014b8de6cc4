"""torchvision's models to detect and to segment, trained as its reference scripts do."""

import pytest
import torch
import torch.nn.functional as F
from side_by_side import compare
from torchvision.models import segmentation
from torchvision.models.detection import (
    FasterRCNN,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from razorlight.memory.meter import StorageMeter

pytestmark = pytest.mark.clients

SIZE = 96
FEW = {"min_size": SIZE, "max_size": SIZE, "box_batch_size_per_image": 64}
"""Small images, and few regions of them."""


def scenes(count=2):
    """Images, and what is to be found in them."""
    corners = torch.rand(count, 3, 2) * SIZE / 2
    boxes = torch.cat([corners, corners + 8 + torch.rand(count, 3, 2) * SIZE / 3], dim=2)
    targets = [{"boxes": b, "labels": torch.tensor([1, 2, 3])} for b in boxes]
    return [torch.rand(3, SIZE, SIZE) for _ in range(count)], targets


def frozen_faster_rcnn():
    """Of a pretrained backbone, whose batch norms torchvision replaces by frozen ones."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d
    )
    return FasterRCNN(backbone, num_classes=5, **FEW)


DETECTORS = {
    "Faster R-CNN": (frozen_faster_rcnn, 4),
    "Faster R-CNN, MobileNetV3": (
        lambda: fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=5, **FEW
        ),
        4,
    ),
    "SSDlite": (
        lambda: ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5),
        8,
    ),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_detection(name):
    torch.manual_seed(0)
    make, less = DETECTORS[name]
    model = make().train()
    images, targets = scenes()

    def step():
        return sum(model(images, [dict(target) for target in targets]).values())

    exact = compare(model, step, (images, targets), recipe="exact")
    # behind a frozen norm there is nothing to save but what ReLU and convolution share anyway
    assert exact.less > 0.97
    assert exact.cosine == pytest.approx(1, abs=1e-5)
    balanced = compare(model, step, (images, targets))
    assert balanced.less > less
    assert balanced.cosine > 0.95


def test_frozen_batch_norm_stores_nothing_of_its_input():
    norm, x = FrozenBatchNorm2d(8), torch.randn(2, 8, 32, 32, requires_grad=True)
    with StorageMeter() as meter:
        out = norm(x * 1)
        assert meter.live - out.nbytes <= x.nbytes / 100


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_segmentation(name):
    torch.manual_seed(0)
    more = {"aux_loss": True} if name.startswith("deeplab") else {}
    model = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, **more)
    images, labels = torch.randn(4, 3, SIZE, SIZE), torch.randint(0, 5, (4, SIZE, SIZE))

    def step():
        out = model.train()(images)
        losses = {key: F.cross_entropy(value, labels) for key, value in out.items()}
        return losses["out"] + 0.5 * losses.get("aux", 0)

    exact = compare(model, step, (images, labels), recipe="exact")
    assert exact.less > 1.5
    assert exact.cosine == pytest.approx(1, abs=1e-5)
    balanced = compare(model, step, (images, labels))
    assert balanced.less > 6
    assert balanced.cosine > 0.95
