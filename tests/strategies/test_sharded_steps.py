"""The optimizer's step within backward, of weights that FSDP2 spreads over processes."""

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from runs import Module, cnn, loader, parameters, trainer, vit
from test_sharded import Sharded, blocks, layers, loaded
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from razorlight import BackRazor, OptimizerInBackward, RazorError


class Adam(Sharded):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


CLIP = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}


def fit_sharded(build, units, recipe, within, options):
    """The trained weights, and how many gradients were alive after a backward."""

    class Counts(Adam):
        alive = 0

        def on_after_backward(self):
            self.alive = max(self.alive, sum(p.grad is not None for p in self.parameters()))

    torch.manual_seed(0)
    model = Counts(build, units)
    callbacks = [*([BackRazor(recipe)] if recipe else []), *([OptimizerInBackward()] * within)]
    run = trainer(callbacks=callbacks, strategy=ModelParallelStrategy(2, 1), devices=2, **options)
    run.fit(model, loader(4))
    whole = get_model_state_dict(model.net, options=StateDictOptions(full_state_dict=True))
    return {name: value.numpy() for name, value in whole.items()}, model.alive


@pytest.mark.parametrize(
    ("build", "units", "recipe", "options"),
    [(vit, blocks, None, {}), (vit, blocks, "compact", CLIP), (cnn, layers, "balanced", {})],
)
@pytest.mark.filterwarnings("ignore:.*finds no gradients")
def test_fsdp2_is_as_without(processes, build, units, recipe, options):
    usual, alive = processes.run(fit_sharded, build, units, recipe, False, options)[0]
    within, none_alive = processes.run(fit_sharded, build, units, recipe, True, options)[0]
    assert alive > none_alive == 0
    assert np.array_equal(loaded(build, within), loaded(build, usual))
    assert not np.array_equal(loaded(build, within), parameters(build()))


def refused():
    run = trainer(callbacks=[OptimizerInBackward()], strategy=DDPStrategy(), devices=2)
    with pytest.raises(RazorError) as error:
        run.fit(Module(vit), loader(4))
    return str(error.value)


def test_ddp_is_refused(processes):
    for message in processes.run(refused):
        assert "does not support DDPStrategy" in message
        assert "\n" not in message
