import torch
from torchvision import tv_tensors

from razorlight.data.transforms import IMAGENET_MEAN, IMAGENET_STD, pipeline


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
