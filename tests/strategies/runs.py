"""Small networks, and fits of them that are the same however many processes there are."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from small_networks import tiny_vit
from torch import nn
from torch.nn.utils import parameters_to_vector
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from razorlight import BackRazor


def vit(width=32):
    """Tokens, whose norms know nothing of other samples."""
    torch.manual_seed(0)
    return tiny_vit(16, 4, width)


def cnn():
    """Maps, batch norms, and records that one stage leaves for the next."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)),
        nn.Conv2d(8, 8, 1),
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 1)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(8, 3),
    )


class Module(LightningModule):
    """Trains ``build()``; keeps its first output and its first finite gradient."""

    def __init__(self, build):
        super().__init__()
        self.net = build()
        self.first_output = self.first_gradient = None

    def training_step(self, batch, _):
        out = self.net(batch[0])
        if self.first_output is None:
            self.first_output = out.detach()
        return F.cross_entropy(out, batch[1])

    def on_after_backward(self):
        if self.first_gradient is None:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            gradient = parameters_to_vector(gradients).clone()
            self.first_gradient = gradient if gradient.isfinite().all() else None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def images(count=32, side=16):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(count, 3, side, side, generator=generator),
        torch.randint(0, 3, (count,), generator=generator),
    )


def loader(batch, data=None):
    """In order: what two processes take together is what one alone would."""
    data = data or images()
    sampler = DistributedSampler(data, shuffle=False) if dist.is_initialized() else None
    return DataLoader(data, batch, sampler=sampler)


def trainer(recipe=None, callbacks=(), **options):
    """A quiet one on the CPU; ``recipe`` None leaves the network dense."""
    razor = [BackRazor(recipe)] if recipe else []
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(callbacks=[*razor, *callbacks], **{**defaults, **options})


def fit(build, recipe, batch=8, **options):
    """The parameters after two epochs of ``batch`` samples for each process."""
    model = Module(build)
    trainer(recipe, **options).fit(model, loader(batch))
    return parameters(model)


def parameters(model):
    """All of them in one array, which goes from process to process."""
    return parameters_to_vector(model.parameters()).detach().numpy()


def cosine(a, b):
    return F.cosine_similarity(torch.as_tensor(a).double(), torch.as_tensor(b).double(), 0).item()
