"""The learning rate, step by step, over whole runs."""

from functools import partial
from math import cos, pi

import pytest
from lightning.pytorch import Callback
from torch.optim import SGD

from razorlight.errors import RazorError
from razorlight.tasks import ClassificationTask, Schedule


class Rates(Callback):
    """What each optimizer step was taken with."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


def rates(trainer, data, schedule, resume_from=None, **kwargs):
    task = ClassificationTask("resnet10t", 3, optimizer=partial(SGD, lr=1.0), schedule=schedule)
    recorder = Rates()
    trainer(callbacks=[recorder], **kwargs).fit(task, data, ckpt_path=resume_from)
    return recorder.seen


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("constant"), [1, 1, 1, 1]),
        (Schedule("constant", warmup_steps=3), [1 / 4, 2 / 4, 3 / 4, 1]),
        (Schedule("cosine"), [(1 + cos(pi * step / 4)) / 2 for step in range(4)]),
        (Schedule("cosine", warmup_steps=1), [1 / 2, 1, 3 / 4, 1 / 4]),
        (Schedule("poly", warmup_steps=2, power=2), [1 / 3, 2 / 3, 1, 1 / 4]),
        (Schedule("poly", warmup_steps=9), [1 / 10, 2 / 10, 3 / 10, 4 / 10]),
    ],
)
def test_rate_of_each_step(trainer, classes, schedule, expected):
    assert rates(trainer, classes, schedule, max_epochs=2) == pytest.approx(expected)


@pytest.mark.parametrize(
    "length",
    [
        {"max_epochs": -1, "max_steps": 3},
        {"max_epochs": 9, "max_steps": 3},
        {"max_epochs": 3, "accumulate_grad_batches": 2},
    ],
)
def test_falls_to_zero_with_the_last_step(trainer, classes, length):
    seen = rates(trainer, classes, Schedule("poly", power=1), **length)
    assert seen == pytest.approx([1, 2 / 3, 1 / 3])


def test_a_resumed_run_goes_on_where_it_was(trainer, classes, tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "third.ckpt")

    schedule = Schedule("cosine", warmup_steps=2)
    task = ClassificationTask("resnet10t", 3, optimizer=partial(SGD, lr=1.0), schedule=schedule)
    whole = Rates()
    trainer(callbacks=[whole, Stop()], max_epochs=3).fit(task, classes)
    resumed = rates(trainer, classes, schedule, tmp_path / "third.ckpt", max_epochs=3)
    assert resumed == pytest.approx(whole.seen[3:])


def test_a_fall_needs_an_end(trainer, classes):
    endless = {"max_epochs": -1, "limit_train_batches": 1}
    with pytest.raises(RazorError, match=r"this one has none; set trainer.max_epochs"):
        rates(trainer, classes, Schedule("poly"), **endless)


@pytest.mark.parametrize("argument", ["warmup_steps", "power"])
def test_negative_arguments_are_refused(argument):
    with pytest.raises(RazorError, match=f"schedule: {argument} is -1; it must be 0 or more"):
        Schedule(**{argument: -1})
