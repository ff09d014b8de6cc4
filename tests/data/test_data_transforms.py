import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from razorlight.data.transforms import (
    IGNORE_INDEX,
    IMAGENET_MEAN,
    IMAGENET_STD,
    pipeline,
    segmentation,
)

HALF = (0.5, 0.5, 0.5)


def pair(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image whose left half is black, class 0, and right half white, class 1."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[:, width // 2 :] = 1
    return tv_tensors.Image((mask * 255).expand(3, -1, -1).clone()), tv_tensors.Mask(mask)


def test_normalisation() -> None:
    image, _ = pair(8, 8)
    out, _ = pipeline([], IMAGENET_MEAN, IMAGENET_STD)(image, 0)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(out[:, 0, 0], -mean / std)
    torch.testing.assert_close(out[:, 0, 7], (1 - mean) / std)


def test_segmentation_gives_plain_tensors_of_one_size() -> None:
    for transform in segmentation(32, HALF, HALF):
        image, mask = transform(*pair(40, 70))
        assert type(image) is type(mask) is torch.Tensor
        assert (image.dtype, mask.dtype) == (torch.float32, torch.int64)
        assert image.shape == (3, 32, 32)
        assert mask.shape == (32, 32)


def test_train_moves_image_and_mask_together() -> None:
    # without the photometric distortion the mask can be read off the image
    steps = segmentation(32, HALF, HALF).train.transforms
    geometry = v2.Compose([t for t in steps if not isinstance(t, v2.RandomPhotometricDistort)])
    widths = set()
    for seed in range(20):
        torch.manual_seed(seed)
        image, mask = geometry(*pair(40, 60))
        inside = mask != IGNORE_INDEX
        white = image[0] > 0
        # interpolation blurs one column along the edge, and half of it may fall either way
        wrong = (white != (mask == 1)) & inside
        assert wrong.sum() <= 2 * 32
        assert wrong.float().mean() < 0.07
        widths.add(int((mask == 1).sum()))
    assert len(widths) > 5


def test_train_pads_mask_with_255_and_image_with_the_mean() -> None:
    small = tv_tensors.Image(torch.full((3, 10, 10), 255, dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.zeros(10, 10, dtype=torch.uint8))
    seen = False
    for seed in range(20):
        torch.manual_seed(seed)
        # the shorter side becomes 16 to 64 of 32 pixels, so some draws are padded
        image, out = segmentation(32, IMAGENET_MEAN, IMAGENET_STD).train(small, mask)
        padded = out == IGNORE_INDEX
        assert set(out.unique().tolist()) <= {0, IGNORE_INDEX}
        if padded.any() and not padded.all():
            seen = True
            # distortion may scale and shift colours, but never bring the mean to white
            assert image[:, ~padded].mean() > image[:, padded].mean() + 0.5
    assert seen


@pytest.mark.parametrize(("height", "width"), [(40, 80), (80, 40), (10, 20)])
def test_eval_keeps_the_whole_image_and_pads_the_rest(height: int, width: int) -> None:
    image, mask = segmentation(32, IMAGENET_MEAN, IMAGENET_STD).eval(*pair(height, width))
    tall = height > width
    inside = mask[:, :16] if tall else mask[:16]
    outside = mask[:, 16:] if tall else mask[16:]
    assert set(inside.unique().tolist()) == {0, 1}
    assert outside.unique().tolist() == [IGNORE_INDEX]
    void = image[:, mask == IGNORE_INDEX]
    assert void.abs().max() < 0.01  # the mean colour, rounded to uint8
    white = image[0] > 1
    wrong = (white != (mask == 1)) & (mask != IGNORE_INDEX)
    assert wrong.sum() <= 32
