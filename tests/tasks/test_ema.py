"""Lightning's moving average of the weights beside the razor, with tasks of ours."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim import SGD

from razorlight import BackRazor
from razorlight.conversion import is_converted
from razorlight.tasks import ClassificationTask, Schedule

DECAY = 0.5


class Average(Callback):
    """The same average by its formula; and how the network is at each validation."""

    def __init__(self):
        self.expected, self.validated = None, []

    def on_train_batch_end(self, trainer, pl_module, *args):
        own = [parameter.detach().clone() for parameter in pl_module.parameters()]
        before = own if self.expected is None else self.expected
        self.expected = [torch.lerp(new, old, DECAY) for old, new in zip(before, own, strict=True)]

    def on_before_backward(self, trainer, pl_module, *args):
        assert is_converted(pl_module)

    def on_validation_batch_start(self, trainer, pl_module, *args):
        self.validated.append([p.detach().clone() for p in pl_module.parameters()])


def task():
    return ClassificationTask(
        "resnet10t", 3, optimizer=partial(SGD, lr=0.1), schedule=Schedule(warmup=1)
    )


@pytest.mark.parametrize("order", [1, -1])
def test_average_beside_the_razor(trainer, classes, order):
    average, network = Average(), task()
    both = [BackRazor(), EMAWeightAveraging(decay=DECAY)][::order]
    trainer(callbacks=[*both, average], max_epochs=2, num_sanity_val_steps=0).fit(network, classes)
    assert not is_converted(network)
    for trained, validated, expected in zip(
        network.parameters(), average.validated[-1], average.expected, strict=True
    ):
        torch.testing.assert_close(trained.detach(), expected)
        torch.testing.assert_close(validated, expected)


def test_checkpoint_holds_the_average_and_resumes(trainer, classes, tmp_path):
    class Save(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "first.ckpt")

    def fit(*more, **kwargs):
        network = task()
        callbacks = [BackRazor(), EMAWeightAveraging(decay=DECAY), *more]
        trainer(callbacks=callbacks, max_epochs=2).fit(network, classes, **kwargs)
        return network

    whole = fit(Save())
    resumed = fit(ckpt_path=tmp_path / "first.ckpt")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    saved = torch.load(tmp_path / "first.ckpt", weights_only=True)
    task().load_state_dict(saved["state_dict"], strict=True)
    assert any(
        not torch.equal(tensor, saved["current_model_state"][name])
        for name, tensor in saved["state_dict"].items()
    )
