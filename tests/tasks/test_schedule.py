"""The learning rate, step by step, over whole runs."""

from functools import partial
from math import cos, pi

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
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
        (Schedule("constant", warmup=3), [1 / 4, 2 / 4, 3 / 4, 1]),
        (Schedule("cosine"), [(1 + cos(pi * step / 4)) / 2 for step in range(4)]),
        (Schedule("cosine", warmup=1), [1 / 2, 1, 3 / 4, 1 / 4]),
        (Schedule("poly", warmup=2, power=2), [1 / 3, 2 / 3, 1, 1 / 4]),
        (Schedule("poly", warmup=9), [1 / 10, 2 / 10, 3 / 10, 4 / 10]),
        (Schedule("cosine", warmup=0.25), [1 / 2, 1, 3 / 4, 1 / 4]),
        (Schedule("constant", warmup=0.5), [1 / 3, 2 / 3, 1, 1]),
        (Schedule("constant", warmup=1.0), [1 / 5, 2 / 5, 3 / 5, 4 / 5]),
        (Schedule("constant", warmup=0.0), [1, 1, 1, 1]),
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

    schedule = Schedule("cosine", warmup=2)
    task = ClassificationTask("resnet10t", 3, optimizer=partial(SGD, lr=1.0), schedule=schedule)
    whole = Rates()
    trainer(callbacks=[whole, Stop()], max_epochs=3).fit(task, classes)
    resumed = rates(trainer, classes, schedule, tmp_path / "third.ckpt", max_epochs=3)
    assert resumed == pytest.approx(whole.seen[3:])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("poly", power=1), [1 - step / 6 for step in range(6)]),
        (Schedule("cosine"), [(1 + cos(pi * step / 6)) / 2 for step in range(6)]),
    ],
)
def test_a_longer_run_that_goes_on_takes_the_rates_of_its_own_length(
    trainer, classes, tmp_path, schedule, expected
):
    save = ModelCheckpoint(tmp_path, save_last=True)
    task = ClassificationTask("resnet10t", 3, optimizer=partial(SGD, lr=1.0), schedule=schedule)
    trainer(callbacks=[save], max_epochs=2, enable_checkpointing=True).fit(task, classes)
    resumed = rates(trainer, classes, schedule, tmp_path / "last.ckpt", max_epochs=3)
    assert resumed == pytest.approx(expected[4:])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule("poly"), r"poly falls to 0 .* this one has none; set trainer.max_epochs"),
        (Schedule("constant", warmup=0.1), r"a warm-up of 0.1 is a share .* or a number of steps"),
    ],
)
def test_a_fall_or_a_share_needs_an_end(trainer, classes, schedule, message):
    endless = {"max_epochs": -1, "limit_train_batches": 1}
    with pytest.raises(RazorError, match=message):
        rates(trainer, classes, schedule, **endless)


def test_more_steps_than_the_run_has_are_no_share():
    with pytest.raises(RazorError, match=r"warmup is 500.0; give a whole number of steps, or a"):
        Schedule(warmup=500.0)


@pytest.mark.parametrize("argument", ["warmup", "power"])
def test_negative_arguments_are_refused(argument):
    with pytest.raises(RazorError, match=f"schedule: {argument} is -1; it must be 0 or more"):
        Schedule(**{argument: -1})
