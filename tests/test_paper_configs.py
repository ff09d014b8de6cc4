"""The paper's experiments in classification: a base and a layer each, as their comments say."""

import re
import sys
from pathlib import Path

import pytest

from razorlight.callbacks import BackRazor
from razorlight.cli.training import RazorCLI
from razorlight.config_files import find_config, shipped_folder

BASES = {"vit_b16": "paper/vit_b16.yaml", "mobile": "paper/cnn.yaml", "resnet18": "paper/cnn.yaml"}
SETS = {
    "aircraft": "FGVCAircraft",
    "cars": "StanfordCars",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "cub200": "CUB200",
    "flowers102": "Flowers102",
    "food101": "Food101",
    "pets": "OxfordPets",
}
LAYERS = sorted(
    f"paper/{path.name}"
    for path in (shipped_folder() / "paper").glob("*_*.yaml")
    if path.stem.split("_")[0] in SETS
)


@pytest.fixture(autouse=True)
def no_arguments_of_pytest(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["razorlight"])


def instantiate(*names):
    """What ``fit`` would make, but of a small network at its place."""
    configs = [word for name in names for word in ("--config", name)]
    small = "resnet18" if "resnet18" in names[-1] else "mobilenetv2_035"
    if names[0] == "paper/vit_b16.yaml":
        small = "vit_tiny_patch16_224"
    overrides = [f"--model.model={small}", "--model.weights=none", "--trainer.logger=false"]
    return RazorCLI([*configs, *overrides], run=False)


def test_every_set_has_its_experiments():
    networks = dict.fromkeys(SETS, ("vit_b16", "mobile"))
    networks["cifar10"] = networks["cifar100"] = ("vit_b16", "mobile", "resnet18")
    assert {f"paper/{s}_{n}.yaml" for s, each in networks.items() for n in each} == {*LAYERS}


@pytest.mark.parametrize("layer", LAYERS)
def test_experiment(layer):
    comment = Path(find_config(layer)).read_text().partition("model:")[0]
    names = re.findall(r"--config (\S+)", comment)
    data, _, network = layer.removeprefix("paper/").removesuffix(".yaml").partition("_")
    assert names == [BASES[network], layer]
    cli = instantiate(*names)
    assert type(cli.datamodule).__name__ == SETS[data]
    (razor,) = (c for c in cli.trainer.callbacks if isinstance(c, BackRazor))
    tokens = network == "vit_b16"
    dense_sets = ("aircraft", "cars", "flowers102", "food101")
    assert (razor.recipe, razor.sparsity) == (
        "paper",
        0.8 if tokens and data in dense_sets else 0.9,
    )
    assert cli.datamodule.batch_size == (128 if tokens else 8)
    assert cli.datamodule.image_size == 224
    assert cli.model.schedule.warmup == (500 if tokens else 0)
    assert (2000 <= cli.trainer.max_steps <= 30000) if tokens else (cli.trainer.max_epochs == 50)
    (rate,) = {cli.model._make_optimizer.keywords["lr"]}
    assert 1e-3 <= rate <= 0.1 if tokens else 1e-5 <= rate <= 3e-4


@pytest.mark.parametrize("base", sorted({*BASES.values()}))
def test_a_base_alone_is_the_dense_run(base):
    cli = instantiate(base)
    assert not any(isinstance(callback, BackRazor) for callback in cli.trainer.callbacks)
