"""torchgeo's tasks, LightningModules of their own, with one more callback."""

import pytest
import torch
from side_by_side import fit_beside_dense
from torch.utils.data import DataLoader

pytest.importorskip("torchgeo")
from torchgeo.trainers import (
    ClassificationTask,
    PixelwiseRegressionTask,
    SemanticSegmentationTask,
)

pytestmark = pytest.mark.clients


def loader(**labels):
    """Batches as torchgeo's data sets make them: images of four bands, and ``labels`` of each."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(16):
        sample = {"image": torch.rand(4, 64, 64, generator=generator)}
        samples.append(sample | {key: draw(generator) for key, draw in labels.items()})
    return DataLoader(samples, batch_size=4)


def classes(*shape):
    return lambda generator: torch.randint(1, 5, shape, generator=generator)


MASKS = loader(mask=classes(64, 64))
BANDS = {"in_channels": 4, "num_classes": 5}
TASKS = {
    "Unet": (lambda: SemanticSegmentationTask("unet", "resnet18", **BANDS), MASKS, 9),
    "DeepLabV3+, focal": (
        lambda: SemanticSegmentationTask("deeplabv3+", "resnet18", loss="focal", **BANDS),
        MASKS,
        9,
    ),
    "Unet, encoder frozen": (
        lambda: SemanticSegmentationTask("unet", "resnet18", freeze_backbone=True, **BANDS),
        MASKS,
        7,
    ),
    "classification": (lambda: ClassificationTask("resnet18", **BANDS), loader(label=classes()), 9),
    "regression": (
        lambda: PixelwiseRegressionTask("unet", "resnet18", in_channels=4),
        loader(mask=lambda generator: torch.rand(64, 64, generator=generator)),
        9,
    ),
}


# AdamW takes a step of full size where a gradient is nothing but rounding, as before a norm
@pytest.mark.parametrize(("recipe", "tolerance"), [("exact", 5e-3), ("balanced", 0.1)])
@pytest.mark.parametrize("task", TASKS)
def test_beside_dense(task, recipe, tolerance, tmp_path):
    make, loader, less = TASKS[task]
    dense, razor, found = fit_beside_dense(make, tmp_path, recipe, loader)
    assert razor[0] == dense[0]
    assert razor == pytest.approx(dense, rel=tolerance)
    assert found > (less if recipe == "balanced" else 1)
