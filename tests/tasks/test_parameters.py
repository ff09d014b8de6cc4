"""Which parameters learn how fast, and which decay."""

from functools import partial

import pytest
import torch
from torch.optim import SGD

from razorlight.errors import RazorError
from razorlight.tasks import ClassificationTask, SegmentationTask


def learned(task):
    """Rate and weight decay by name of parameter."""
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in task.configure_optimizers().param_groups
        for parameter in group["params"]
    }


def task(model="test_vit", **kwargs):
    optimizer = partial(SGD, lr=2.0, weight_decay=0.1)
    return ClassificationTask(model, 3, optimizer=optimizer, **kwargs)


def test_all_that_is_trained_and_nothing_else():
    trained = learned(task(freeze=["net.blocks.0"]))
    own = task().named_parameters()
    assert trained.keys() == {name for name, _ in own if not name.startswith("net.blocks.0.")}
    assert {rate for rate, _ in trained.values()} == {2.0}


def test_vectors_and_embeddings_do_not_decay():
    network = task()
    undecayed = {name for name, (_, decay) in learned(network).items() if not decay}
    vectors = {name for name, parameter in network.named_parameters() if parameter.ndim == 1}
    assert undecayed == vectors | {"net.pos_embed", "net.cls_token"}


def test_each_layer_slower_than_the_one_above():
    rates = {name: rate for name, (rate, _) in learned(task(layer_decay=0.5)).items()}
    assert rates["net.head.weight"] == 2.0
    assert rates["net.blocks.5.attn.qkv.weight"] == rates["net.norm.bias"] == 1.0
    assert rates["net.blocks.0.mlp.fc1.bias"] == 2.0 * 0.5**6
    assert rates["net.patch_embed.proj.weight"] == 2.0 * 0.5**7


def test_multipliers_of_globs_that_overlap_multiply():
    multipliers = {"net.blocks": 0.5, "*.qkv": 0.1}
    rates = {name: rate for name, (rate, _) in learned(task(lr_multipliers=multipliers)).items()}
    assert rates["net.blocks.0.attn.qkv.weight"] == pytest.approx(0.1)
    assert rates["net.blocks.0.mlp.fc1.weight"] == 1.0
    assert rates["net.head.weight"] == 2.0


def test_layers_of_a_vit_within_dpt():
    network = SegmentationTask("DPT", "tu-test_vit", 3, layer_decay=0.5)
    rates = {name: rate for name, (rate, _) in learned(network).items()}
    assert rates["net.encoder.model.blocks.5.attn.qkv.weight"] == pytest.approx(0.5e-4)
    assert rates["net.segmentation_head.head.4.weight"] == pytest.approx(1e-4)


def test_rates_hold_in_training(trainer, classes):
    network = task("resnet10t", lr_multipliers={"net.[!f]*": 0.0})
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    trainer().fit(network, classes)
    moved = {n for n, tensor in network.named_parameters() if not torch.equal(before[n], tensor)}
    assert moved == {"net.fc.weight", "net.fc.bias"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_decay": 1.5}, r"layer_decay is 1.5; it must be in \(0, 1\]"),
        ({"lr_multipliers": {"net.heed": 2}}, "lr_multipliers: pattern 'net.heed' matches nothing"),
        ({"lr_multipliers": {"net": -1}}, "lr_multipliers: net is -1; it must be 0 or more"),
    ],
)
def test_arguments_refused(arguments, message):
    with pytest.raises(RazorError, match=message):
        task(**arguments)


def test_network_without_numbered_layers_is_refused():
    with pytest.raises(RazorError, match=r"does not number its layers, .* take lr_multipliers"):
        SegmentationTask("Unet", "resnet18", 3, layer_decay=0.5)
