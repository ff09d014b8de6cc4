"""One small LightningModule and its data, trained with and without the razor."""

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from razorlight import BackRazor, is_converted

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(16) % 3


def network():
    return nn.Sequential(*backbone(), *head())


def backbone():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )


def head():
    return nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 3))


class Small(LightningModule):
    """Says by which steps it was converted."""

    def __init__(self, lr=0.05, batch_size=4):
        super().__init__()
        torch.manual_seed(0)
        self.lr, self.batch_size = lr, batch_size
        self.backbone, self.head = backbone(), head()
        self.converted = set()

    def forward(self, x):
        return self.head(self.backbone(x))

    def loss(self, batch):
        self.converted.add(is_converted(self))
        return F.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self):
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, self.lr, momentum=0.9)

    def train_dataloader(self):
        return DataLoader(TensorDataset(IMAGES, LABELS), self.batch_size)

    def val_dataloader(self):
        return DataLoader(TensorDataset(IMAGES, LABELS), 8)

    test_dataloader = val_dataloader


def trainer(folder, *callbacks, **options):
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 3,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "default_root_dir": folder,
    }
    return Trainer(callbacks=list(callbacks), **{**settings, **options})


def fit(folder, *callbacks, module=Small, **options):
    """A module as it is after fit, beside those callbacks."""
    seed_everything(0, verbose=False)
    model = module()
    trainer(folder, *callbacks, **options).fit(model)
    assert model.converted == {any(isinstance(c, BackRazor) for c in callbacks)}
    assert not is_converted(model)
    return model


def assert_same(model, expected):
    """Parameters and buffers equal to rounding."""
    actual = model.state_dict()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(actual[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert actual.keys() == expected.state_dict().keys()
