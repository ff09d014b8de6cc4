"""Weights that are spread over processes: FSDP2, and what is refused."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from runs import Module, cnn, cosine, fit, loader, parameters, trainer, vit
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from razorlight import BackRazor, MemoryProfiler, RazorError, is_converted, razor_, restore_
from razorlight.memory.history import read_history


class Sharded(Module):
    """Applies FSDP2 to ``units(net)`` and to the network, where Lightning asks for it."""

    def __init__(self, build, units, device="cpu"):
        LightningModule.__init__(self)
        self.build, self.units, self.device_of_build = build, units, device
        self.net = self.first_output = None

    def configure_model(self):
        if self.net is None:
            with torch.device(self.device_of_build):
                self.net = self.build()
            mesh = self.device_mesh["data_parallel"]
            for unit in [*self.units(self.net), self.net]:
                fully_shard(unit, mesh=mesh, reshard_after_forward=True)

    def on_after_backward(self): ...


def blocks(net):
    return net.blocks


def stages(net):
    """Between two of them comes a convolution of the whole: the last record is of another unit."""
    return [net[0], net[1], net[3]]


def layers(net):
    return [net[0][1], net[1][0], net[3][0], net[3][2]]


def fit_sharded(build, units, recipe, device="cpu"):
    """What was trained, and the names of classes: converted, near misses, of the units after."""
    torch.manual_seed(0)
    model, razor = Sharded(build, units, device), [BackRazor(recipe)] if recipe else []
    strategy = ModelParallelStrategy(2, 1)
    trainer(callbacks=razor, strategy=strategy, devices=2).fit(model, loader(4))
    whole = get_model_state_dict(model.net, options=StateDictOptions(full_state_dict=True))
    lines = [line for callback in razor for line in callback.plan.lines]
    return SimpleNamespace(
        state={name: value.numpy() for name, value in whole.items()},
        converted={line.layer for line in lines if line.status == "converted"},
        near={line.layer for line in lines if line.status == "near miss"},
        after=[type(unit).__name__ for unit in units(model.net)],
    )


def loaded(build, state):
    net = build()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return parameters(net)


@pytest.mark.parametrize("recipe", ["exact", "compact", "checkpoint"])
def test_fsdp2_is_as_one_process(processes, recipe):
    alone, start = fit(vit, recipe), parameters(vit())
    first, _ = processes.run(fit_sharded, vit, blocks, recipe)
    assert not first.near
    assert first.after == ["FSDPBlock"] * 2
    trained = loaded(vit, first.state)
    if recipe in ("compact", "checkpoint"):  # of short sequences one group holds several samples
        assert cosine(trained - start, alone - start) > 0.99
    else:
        np.testing.assert_allclose(trained, alone, atol=1e-6)


@pytest.mark.parametrize("recipe", ["exact", "balanced", "compact", "checkpoint"])
@pytest.mark.parametrize("units", [stages, layers])
def test_no_record_outlives_its_weights(processes, units, recipe):
    dense, _ = processes.run(fit_sharded, cnn, units, None)
    razor, _ = processes.run(fit_sharded, cnn, units, recipe)
    start = parameters(cnn())
    a, b = loaded(cnn, dense.state), loaded(cnn, razor.state)
    assert not razor.near
    assert razor.after == dense.after
    assert cosine(a - start, b - start) > (0.99999 if recipe == "exact" else 0.95)
    if units is layers and recipe != "checkpoint":
        assert {"FSDPConv2d", "FSDPBatchNorm2d"} <= razor.converted


def test_fsdp2_of_weights_on_no_device(processes):
    dense, exact = (
        processes.run(partial(fit_sharded, cnn, stages, recipe, device="meta"))[0]
        for recipe in (None, "exact")
    )
    assert not np.array_equal(loaded(cnn, exact.state), parameters(cnn()))
    for name, value in dense.state.items():
        np.testing.assert_allclose(exact.state[name], value, atol=1e-5, err_msg=name)


def saved(folder, recipe):
    model = Sharded(cnn, stages)
    strategy = ModelParallelStrategy(2, 1, save_distributed_checkpoint=False)
    run = trainer(recipe, [MemoryProfiler()], strategy=strategy, devices=2, default_root_dir=folder)
    run.fit(model, loader(4))
    run.save_checkpoint(folder / "whole.ckpt")


def test_fsdp2_is_measured_and_its_checkpoint_loads_into_the_plain_module(processes, tmp_path):
    processes.run(saved, tmp_path, "balanced")
    state = torch.load(tmp_path / "whole.ckpt", weights_only=True)["state_dict"]
    Module(cnn).load_state_dict(state)
    assert read_history(tmp_path / "memory.csv")[-1].peak_mib > 0


def refused(strategy):
    run = trainer("balanced", strategy=strategy, devices=2)
    with pytest.raises(RazorError) as error:
        run.fit(Module(cnn), loader(4))
    return str(error.value)


class OnCPU(FSDPStrategy):
    """Lightning refuses that of its own name on a CPU before it asks any callback."""


def test_fsdp1_is_refused(processes):
    for message in processes.run(refused, OnCPU()):
        assert message.startswith("BackRazor does not support OnCPU: use ddp, or ModelParallel")


def test_deepspeed_is_refused():
    # its package is not there: what a trainer would hold, never set up
    strategy = DeepSpeedStrategy.__new__(DeepSpeedStrategy)
    with pytest.raises(RazorError, match="does not support DeepSpeedStrategy: use ddp"):
        BackRazor().setup(SimpleNamespace(strategy=strategy), Module(cnn), "fit")


def tensor_parallel(exclude):
    """The error, or the gradient of the first weight as converted and dense."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)
    )
    mesh = init_device_mesh("cpu", (2,))
    parallelize_module(net, mesh, {"2": ColwiseParallel(), "4": RowwiseParallel()})
    x, gradients = torch.randn(4, 6, 8), []
    for convert in (False, True):
        net.zero_grad()
        if convert:
            razor_(net, "exact", exclude=exclude)
        try:
            net(x).square().sum().backward()
        except RazorError as error:
            return str(error)
        gradients.append(net[0].weight.grad.numpy())
    return gradients


def test_tensor_parallel_layers_are_refused(processes):
    for message in processes.run(tensor_parallel, None):
        assert "spread over processes (DTensor" in message
        assert "exclude=[...]" in message
    for dense, razor in processes.run(tensor_parallel, ["2", "4"]):
        np.testing.assert_allclose(razor, dense, rtol=1e-4)


def sharded_too_late():
    net = cnn()
    razor_(net)
    fully_shard(net[1][0])
    with pytest.raises(RazorError) as error:
        restore_(net)
    return str(error.value), is_converted(net)


def test_a_class_changed_since_is_not_lost(processes):
    for message, converted in processes.run(sharded_too_late):
        assert message.startswith("1.0 was made a FSDPRazorConv2d after razor_")
        assert converted
