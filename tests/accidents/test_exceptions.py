"""An exception inside a step: layers are restored, nothing is kept, and the next fit works."""

import gc
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from razorlight import RECIPES, BackRazor, is_converted, razor_
from razorlight.memory.meter import StorageMeter, model_tensors, storage_bytes


class Fuse(nn.Module):
    """Passes its input on; raises in the second step, where it is told to."""

    def __init__(self):
        super().__init__()
        self.place, self.kind, self.calls = None, RuntimeError, 0

    def forward(self, x):
        self.calls += self.training
        if self.place and self.calls == 2:
            if self.place == "forward":
                self.blow()
            x.register_hook(self.blow)
        return x

    def blow(self, gradient=None):
        raise self.kind("in the middle")


class Plain(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fuse = Fuse()
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GELU()),
            *(self.fuse, nn.Flatten(), nn.Linear(8 * 16, 64), nn.LayerNorm(64), nn.ReLU()),
            nn.Linear(64, 5),
        )
        self.losses = []

    def training_step(self, batch, _):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def fit(model, *callbacks):
    seed_everything(1)
    data = TensorDataset(torch.randn(16, 3, 8, 8), torch.randint(5, (16,)))
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=4))


def kept_bytes(model, place, *callbacks):
    """What is alive after a fit that failed, beside what the model holds."""
    model.fuse.place = place
    with StorageMeter() as meter:
        meter.track(model_tensors(model))
        with suppress(RuntimeError):  # pytest.raises would keep it, and with it the frames
            fit(model, *callbacks)
        model.fuse.place = model.trainer = None
        gc.collect()
        return meter.live - storage_bytes(model_tensors(model))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_restored_and_nothing_kept(recipe, place):
    model, untouched = Plain(), Plain()
    assert kept_bytes(model, place, BackRazor(recipe)) == 0
    assert model.fuse.calls == 2
    assert not is_converted(model)
    assert len(model.losses) == (1 if place == "forward" else 2)

    model.load_state_dict(untouched.state_dict())
    model.losses.clear()
    for each in (model, untouched):
        fit(each, BackRazor(recipe))
    assert model.losses == untouched.losses
    assert len(model.losses) == 4
    for name, tensor in untouched.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_batch_that_is_not_a_number_leaves_no_trace_in_layers(recipe):
    model, untouched = Plain(), Plain()
    images = torch.randn(4, 3, 8, 8)
    images[0, 0, 0, 0] = torch.nan
    images[1, 0, 0, 0] = torch.inf
    razor_(model, recipe)
    loss = model.net(images).sum()
    loss.backward()
    assert loss.isnan()
    assert model.net[0].weight.grad.isnan().any()
    model.zero_grad()
    model.load_state_dict(untouched.state_dict())
    for each in (model, untouched):
        fit(each, BackRazor(recipe))
    assert model.losses == untouched.losses


def test_out_of_memory_says_what_to_take():
    model = Plain()
    model.fuse.place, model.fuse.kind = "backward", torch.OutOfMemoryError
    with pytest.raises(torch.OutOfMemoryError) as caught:
        fit(model, BackRazor("compact"))
    assert caught.value.__notes__ == [
        "BackRazor: in place of compact take recipe checkpoint, or take a smaller batch"
    ]
