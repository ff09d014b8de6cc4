"""Windows over large images, and both directions of an image."""

import pytest
import torch
from torch import nn

from razorlight.tasks import ClassificationTask, SegmentationTask
from razorlight.tasks.inference import slide


@pytest.mark.parametrize("size", [(40, 50), (16, 16), (10, 37), (33, 7), (17, 200)])
def test_windows_do_not_show_where_a_pixel_has_no_context(size):
    pointwise = nn.Conv2d(3, 5, kernel_size=1)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        slid = slide(pointwise, images, window=16, channels=5)
        torch.testing.assert_close(slid, pointwise(images))


def test_windows_overlap_by_a_third_and_are_averaged():
    seen = []

    def window_number(tile):
        seen.append(tile.shape)
        return torch.full((1, 1, 12, 12), float(len(seen)))

    slid = slide(window_number, torch.zeros(1, 3, 12, 20), window=12, channels=1)
    assert seen == [(1, 3, 12, 12)] * 2
    expected = torch.tensor([1.0] * 8 + [1.5] * 4 + [2.0] * 8).expand(12, 20)
    torch.testing.assert_close(slid[0, 0], expected)


def test_segmentation_by_windows():
    task = SegmentationTask("Unet", "tu-resnet10t", 3, window=32).eval()
    images = torch.randn(1, 3, 70, 32)
    with torch.no_grad():
        torch.testing.assert_close(task.infer(images[:, :, :32]), task(images[:, :, :32]))
        assert not torch.allclose(task.infer(images), task(images))
        assert task.infer(images).shape == (1, 3, 70, 32)


@pytest.mark.parametrize("per_pixel", [False, True])
def test_flip_averages_both_directions(per_pixel):
    arguments = {"flip_test": True}
    task = (
        SegmentationTask("Unet", "tu-resnet10t", 3, **arguments)
        if per_pixel
        else ClassificationTask("resnet10t", 3, **arguments)
    ).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        both, there, back = task.infer(images), task(images), task(images.flip(-1))
        mirrored = task.infer(images.flip(-1))
    back = back.flip(-1) if per_pixel else back
    torch.testing.assert_close(both, (there + back) / 2)
    # a mirrored image has the mirrored outcome
    torch.testing.assert_close(mirrored.flip(-1) if per_pixel else mirrored, both)
    assert not torch.allclose(there, back)
