"""Somebody's program dense and razored, compared."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer

from razorlight import BackRazor, MemoryProfiler, razor_, restore_
from razorlight.memory import measure_step


class Comparison(NamedTuple):
    """What a recipe does to one training step.

    Attributes:
        less: how many times less is stored between forward and backward.
        cosine: of the whole gradient to the dense one.
    """

    less: float
    cosine: float


def compare(model, step, inputs=(), **chosen):
    """Run ``step`` dense and razored, from the same seed; its loss has to be the same bit for bit.

    Args:
        model: dense, and so again afterwards.
        step: gives the loss of ``model``.
        inputs: tensors that ``step`` reads.
        **chosen: arguments of :func:`razorlight.razor_`.
    """

    def seeded():
        torch.manual_seed(0)
        return step()

    def measured():
        loss, gradient = loss_and_gradient(model, seeded)
        return loss, gradient, measure_step(model, seeded, inputs).stored

    loss, gradient, stored = measured()
    report = razor_(model, **chosen)
    assert not report.only("near miss")
    razor_loss, razor_gradient, razor_stored = measured()
    restore_(model)
    assert torch.equal(razor_loss, loss)
    cosine = F.cosine_similarity(razor_gradient, gradient, dim=0).item()
    found = Comparison(stored / razor_stored, cosine)
    print(f"{type(model).__name__} {chosen}: {stored / 2**20:.2f} MiB stored dense, {found}")
    return found


def loss_and_gradient(model, step):
    """The loss, and the gradient of all parameters as one vector; BatchNorm's buffers stay."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.zero_grad()
    loss = step()
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    model.load_state_dict(before)
    return loss.detach(), gradient.double()


class Losses(Callback):
    """The loss of every training step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())


def fit(make, folder, *callbacks, loader=None, steps=4):
    """The losses of ``steps`` steps of Lightning's Trainer, from the same seed each time.

    Args:
        make: gives the module.
        folder: for whatever the run writes.
        *callbacks: beside the one that reads the losses.
        loader: of batches to train and to validate; the module's own by default.
        steps: of the optimizer.
    """
    torch.manual_seed(0)
    losses = Losses()
    trainer = Trainer(
        max_steps=steps,
        callbacks=[losses, *callbacks],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(make(), loader, loader)
    return losses.values


def fit_beside_dense(make, folder, recipe, loader=None):
    """Losses dense and by ``recipe``, and how many times less a step stores by it.

    Args:
        make: gives the module.
        folder: for whatever the runs write.
        recipe: of :class:`razorlight.BackRazor`.
        loader: as for :func:`fit`.
    """
    profiler = MemoryProfiler()
    dense = fit(make, folder, loader=loader)
    razor = fit(make, folder, BackRazor(recipe), profiler, loader=loader)
    less = profiler.compared["dense"].stored / profiler.compared["razor"].stored
    print(f"{recipe}: losses {dense} and {razor}, {less:.2f} times less stored")
    return dense, razor, less
