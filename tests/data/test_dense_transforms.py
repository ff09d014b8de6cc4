import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from razorlight.data.dense_transforms import (
    Letterbox,
    PhotometricDistort,
    RandomScale,
    depth,
    segmentation,
)
from razorlight.data.transforms import IGNORE_INDEX, IMAGENET_MEAN, IMAGENET_STD

HALF = (0.5, 0.5, 0.5)


def pair(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image whose left half is black, class 0, and right half white, class 1."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[:, width // 2 :] = 1
    return tv_tensors.Image((mask * 255).expand(3, -1, -1).clone()), tv_tensors.Mask(mask)


def geometry(transform: v2.Transform) -> v2.Transform:
    """Without the photometric distortion the mask can be read off the image."""
    return v2.Compose([t for t in transform.transforms if not isinstance(t, PhotometricDistort)])


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_segmentation_gives_plain_tensors_of_one_size(size: tuple[int, int]) -> None:
    for transform in segmentation(size, HALF, HALF):
        image, mask = transform(*pair(40, 70))
        assert type(image) is type(mask) is torch.Tensor
        assert (image.dtype, mask.dtype) == (torch.float32, torch.int64)
        assert image.shape == (3, *size)
        assert mask.shape == size


@pytest.mark.parametrize("full_resolution", [False, True])
def test_train_moves_image_and_mask_together(full_resolution: bool) -> None:
    train = geometry(segmentation(32, HALF, HALF, full_resolution).train)
    widths = set()
    for seed in range(20):
        torch.manual_seed(seed)
        image, mask = train(*pair(40, 60))
        inside = mask != IGNORE_INDEX
        white = image[0] > 0
        # interpolation blurs one column along the edge, and half of it may fall either way
        wrong = (white != (mask == 1)) & inside
        assert wrong.sum() <= 2 * 32
        assert wrong.float().mean() < 0.07
        widths.add(int((mask == 1).sum()))
    assert len(widths) > 5


def test_jitter_is_about_the_crop_or_about_the_image_itself() -> None:
    def shorter_sides(full_resolution: bool) -> list[int]:
        resize = v2.Compose(
            [
                v2.ToImage(),
                segmentation(32, HALF, HALF, full_resolution).train.transforms[1],
            ]
        )
        return [min(resize(*pair(80, 120))[1].shape) for _ in range(50)]

    torch.manual_seed(0)
    for sides, base in ((shorter_sides(False), 32), (shorter_sides(True), 80)):
        assert base / 2 <= min(sides) < 0.65 * base
        assert 1.8 * base < max(sides) <= 2 * base


def test_scale_is_the_same_for_image_and_mask() -> None:
    for _ in range(10):
        image, mask = RandomScale((0.5, 2))(*pair(41, 67))
        assert image.shape[-2:] == mask.shape
        assert abs(mask.shape[0] / 41 - mask.shape[1] / 67) < 0.03


def test_full_resolution_judges_images_as_they_are() -> None:
    before = pair(41, 67)
    image, mask = segmentation(32, HALF, HALF, full_resolution=True).eval(*before)
    assert torch.equal(mask, before[1].to(torch.int64))
    torch.testing.assert_close(image, before[0] / 127.5 - 1, atol=1e-6, rtol=0)


def test_distortion_keeps_the_channels_in_their_places() -> None:
    blue = tv_tensors.Image(torch.tensor([20, 40, 200], dtype=torch.uint8).view(3, 1, 1))
    torch.manual_seed(0)
    drawn = [PhotometricDistort()(blue.expand(3, 4, 4).clone())[:, 0, 0] for _ in range(50)]
    assert len({tuple(colour.tolist()) for colour in drawn}) > 10
    assert all(colour.argmax() == 2 for colour in drawn)


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


@pytest.mark.parametrize(
    ("before", "size", "inside"),
    [
        ((48, 64), (24, 32), (24, 32)),
        ((48, 64), (32, 32), (24, 32)),
        ((64, 48), (24, 32), (24, 18)),
        ((10, 10), (24, 32), (24, 24)),
        ((1, 500), (24, 32), (1, 32)),
    ],
)
def test_letterbox_fits_into_a_rectangle(
    before: tuple[int, int], size: tuple[int, int], inside: tuple[int, int]
) -> None:
    mask = tv_tensors.Mask(torch.ones(before, dtype=torch.uint8))
    out = Letterbox(size, {tv_tensors.Mask: IGNORE_INDEX})(mask)
    assert out.shape == size
    assert out[: inside[0], : inside[1]].unique().tolist() == [1]
    assert (out == 1).sum() == inside[0] * inside[1]


def room(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Black and near on the left, white and far on the right, the uppermost rows not measured."""
    image, far = pair(height, width)
    metres = 1.25 + 2.5 * far.float()
    metres[: height // 8] = 0
    return image, tv_tensors.Mask(metres)


def test_depth_keeps_metres_and_moves_with_the_image() -> None:
    train = geometry(depth((32, 48), HALF, HALF).train)
    nearer_first, seen = set(), set()
    for seed in range(20):
        torch.manual_seed(seed)
        image, metres = train(*room(64, 96))
        assert (image.dtype, metres.dtype) == (torch.float32, torch.float32)
        assert metres.shape == (32, 48)
        assert set(metres.unique().tolist()) == {0, 1.25, 3.75}
        measured = metres > 0
        wrong = ((image[0] > 0) != (metres > 2)) & measured
        assert wrong.sum() <= 32
        left = metres.max(0).values
        nearer_first.add(bool(left[left > 0][0] < 2))
        seen.add(int(measured.sum()))
    assert nearer_first == {True, False}
    assert len(seen) > 5


def test_depth_trains_at_the_scale_that_it_judges_at() -> None:
    train, judge = depth((32, 48), HALF, HALF)
    _, judged = judge(*room(64, 96))
    assert (judged == 0).sum() == 4 * 48
    for seed in range(10):
        torch.manual_seed(seed)
        _, metres = geometry(train)(*room(64, 96))
        # a shift by at most an eighth; zoomed out, fewer than these would be left
        assert (metres > 0).sum() >= (28 - 4) * (48 - 6)
        assert (metres > 0).sum() <= 28 * 48


def test_depth_is_void_and_the_image_mean_where_padded() -> None:
    image, metres = depth(32, IMAGENET_MEAN, IMAGENET_STD).eval(*room(40, 80))
    assert metres[16:].unique().tolist() == [0]
    assert image[:, 16:].abs().max() < 0.01
