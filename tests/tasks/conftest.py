"""Tiny data and a way to run tasks over them."""

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

SIZE = 32
SAMPLES = 4


class Tiny(LightningDataModule):
    """The same random batch of four images in every split."""

    class_names = ("sky", "sea", "land")
    palette = ((0, 0, 255), (0, 255, 0), (255, 0, 0))
    mean = (0.5, 0.25, 0.0)
    std = (0.5, 0.25, 1.0)
    num_classes = 3

    def __init__(self, targets: Tensor) -> None:
        super().__init__()
        images = torch.randn(SAMPLES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        self.dataset = TensorDataset(images, targets)

    def _loader(self) -> DataLoader:
        return DataLoader(self.dataset, batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = _loader


@pytest.fixture
def classes() -> Tiny:
    return Tiny(torch.tensor([0, 1, 2, 1]))


@pytest.fixture
def masks() -> Tiny:
    """Class 2 does not occur; the first row is void."""
    targets = torch.randint(0, 2, (SAMPLES, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    targets[:, 0] = 255
    return Tiny(targets)


@pytest.fixture
def depths() -> Tiny:
    """Metres in 1..9; the first row is not measured."""
    targets = 1 + 8 * torch.rand(SAMPLES, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    targets[:, 0] = 0
    return Tiny(targets)


@pytest.fixture
def trainer(tmp_path) -> Callable[..., Trainer]:
    def make(**kwargs) -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        defaults = {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": tmp_path}
        return Trainer(**{**quiet, **defaults, "enable_checkpointing": False, **kwargs})

    return make
