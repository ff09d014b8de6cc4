import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from razorlight.data import CIFAR10
from razorlight.data.augmentation import Augmentation, MixingCollate, classification, small_images
from razorlight.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from razorlight.errors import RazorError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def ramp(size: int) -> tv_tensors.Image:
    """Grey rises from left to right, so that a picture tells what part of it was taken."""
    grey = torch.linspace(0, 255, size).round().to(torch.uint8)
    return tv_tensors.Image(grey.expand(3, size, size).clone())


@pytest.mark.parametrize("augment", [Augmentation(), Augmentation(min_area=0.22, randaugment=9)])
def test_shapes_and_label(augment: Augmentation) -> None:
    for transform in (
        *classification(24, IMAGENET_MEAN, IMAGENET_STD, augment),
        *small_images(32, 24, IMAGENET_MEAN, IMAGENET_STD, augment),
    ):
        image, label = transform(Image.new("RGB", (32, 32)), 3)
        assert type(image) is torch.Tensor
        assert image.dtype == torch.float32
        assert image.shape == (3, 24, 24)
        assert label == 3


@pytest.mark.parametrize("least", [0.05, 0.22, 0.9])
def test_crops_keep_the_least_area(least: float) -> None:
    train = classification(32, **PLAIN, augment=Augmentation(least)).train
    torch.manual_seed(0)
    # a crop's aspect is 3:4 to 4:3, and half a step of the ramp is lost at each end
    images = [train(ramp(64), 0)[0] for _ in range(99)]
    widths = [(image[0].max() - image[0].min()).item() for image in images]
    assert min(widths) > (least * 3 / 4) ** 0.5 - 0.05
    if least < 0.9:
        assert min(widths) < (least * 4 / 3) ** 0.5 + 0.2


def test_small_images_shift_by_at_most_an_eighth_onto_the_mean_colour() -> None:
    mean = (0.2, 0.4, 0.6)
    train = small_images(32, 32, mean, (1.0, 1.0, 1.0)).train
    white = tv_tensors.Image(torch.full((3, 32, 32), 255, dtype=torch.uint8))
    torch.manual_seed(0)
    borders = set()
    for _ in range(50):
        image, _ = train(white, 0)
        padded = image[0] < 0.5
        # the mean colour, rounded to 8 bits
        assert (image[:, padded].abs() < 0.01).all()
        borders.add(int(padded[:, 16].sum()))
    assert min(borders) == 0
    assert max(borders) == 4


def test_randaugment_changes_more_than_crop_and_flip() -> None:
    def pictures(augment: Augmentation) -> int:
        train = classification(16, **PLAIN, augment=augment).train
        torch.manual_seed(0)
        flat = tv_tensors.Image(torch.full((3, 16, 16), 100, dtype=torch.uint8))
        return len({tuple(train(flat, 0)[0].flatten().tolist()) for _ in range(30)})

    assert pictures(Augmentation()) == 1
    assert pictures(Augmentation(randaugment=9)) > 5


def collated(augment: Augmentation, repeats: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Batches of 4 images whose colour is their class, 0 to 3."""
    mixing = augment.mixing(num_classes=5)
    assert mixing is not None
    collate = MixingCollate(mixing)
    samples = [(torch.full((3, 8, 8), float(label)), label) for label in range(4)]
    batches = [collate(samples) for _ in range(repeats)]
    return torch.cat([i for i, _ in batches]), torch.cat([t for _, t in batches])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_targets_are_shares_of_what_is_seen(name: str) -> None:
    torch.manual_seed(0)
    images, targets = collated(Augmentation(**{name: 1.0}), 10)
    assert (images.shape, targets.shape) == ((40, 3, 8, 8), (40, 5))
    assert images.dtype == targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(40))
    # the mean colour is the mean class
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), targets @ torch.arange(5.0))
    whole = torch.tensor([image.unique().numel() == 1 for image in images])
    assert whole.all() == (name == "mixup")
    assert ((targets > 0).sum(dim=1) == 2).any()


def test_either_mixes_where_both_are_asked_for() -> None:
    torch.manual_seed(0)
    images, targets = collated(Augmentation(mixup=1.0, cutmix=1.0), 20)
    two = (targets > 0).sum(dim=1) == 2
    cut = torch.tensor([image.unique().numel() == 2 for image in images])
    assert (two & cut).any()
    assert (two & ~cut).any()


def test_nothing_mixes_by_default() -> None:
    assert Augmentation().mixing(num_classes=5) is None


@pytest.mark.parametrize(
    "wrong",
    [{"min_area": 0.0}, {"min_area": 1.1}, {"randaugment": 31}, {"mixup": -0.1}, {"cutmix": -1}],
)
def test_out_of_range(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(RazorError, match=f"augment: {name} is {value}; ") as caught:
        Augmentation(**wrong)
    assert "\n" not in str(caught.value)


def test_null_in_a_configuration_is_the_basic_augmentation() -> None:
    assert CIFAR10("nowhere", augment=None).augment == Augmentation()
