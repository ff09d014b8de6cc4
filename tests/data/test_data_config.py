"""The data modules as LightningCLI sees them: short names, plain arguments, links."""

from pathlib import Path

import pytest
import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from made_classification import make_csv

import razorlight.data as data_package
from razorlight.data import RazorDataModule
from razorlight.data.augmentation import Augmentation

OWN = 7
"""Outputs of the model where the data do not say."""

MODULES = [name for name in data_package.__all__ if name != RazorDataModule.__name__]


@pytest.fixture(autouse=True)
def no_arguments_of_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightningCLI warns where it is given both its own and the process's."""
    monkeypatch.setattr("sys.argv", ["razorlight"])


class Classifier(LightningModule):
    def __init__(self, num_classes: int = OWN) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, num_classes)


class LinkedCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")


def build(args: list[str]) -> LightningCLI:
    return LinkedCLI(
        Classifier,
        LightningDataModule,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        args=["--trainer.logger=false", "--trainer.accelerator=cpu", "--seed_everything=0", *args],
    )


@pytest.mark.parametrize("name", MODULES)
def test_short_name_and_shared_arguments(name: str, tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    make_csv(tmp_path)
    required = {
        "ClassificationCSV": [f"--data.root={tmp_path}"],
        "MultiLabelCSV": [f"--data.root={tmp_path}"],
        "ImageFolder": [f"--data.root={tmp_path}"],
        "DepthFolder": ["--data.root=anywhere"],
        "SegmentationFolder": ["--data.root=anywhere", "--data.classes=[a,b]"],
    }
    shared = ["--data.batch_size=3", "--data.num_workers=1", "--data.mean=[0.1,0.2,0.3]"]
    cli = build([f"--data={name}", *required.get(name, []), *shared])
    data = cli.datamodule
    assert type(data) is getattr(data_package, name)
    assert (data.batch_size, data.num_workers, data.mean) == (3, 1, (0.1, 0.2, 0.3))
    # depths have no classes: the link leaves the model as it is
    assert cli.model.head.out_features == getattr(data, "num_classes", OWN)


def test_augmentation_by_its_numbers() -> None:
    augment = ["--data.augment.mixup=0.2", "--data.augment.randaugment=9"]
    cli = build(["--data=CIFAR10", *augment])
    assert cli.datamodule.augment == Augmentation(mixup=0.2, randaugment=9)
    with pytest.raises(SystemExit):
        build(["--data=CIFAR10", "--data.augment.mixp=0.2"])


def test_typo_is_refused() -> None:
    with pytest.raises(SystemExit):
        build(["--data=ADE20K", "--data.batchsize=3"])


@pytest.mark.parametrize("name", data_package.__all__)
def test_at_most_four_classes_deep(name: str) -> None:
    chain = [
        c for c in getattr(data_package, name).__mro__ if c.__module__.startswith("razorlight")
    ]
    assert len(chain) <= 4
