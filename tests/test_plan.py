"""Plans: printed, saved, edited by hand, given back."""

import copy
import math
from xml.etree import ElementTree

import pytest
import timm
import torch
import yaml
from small_networks import tiny_vit
from torch import nn

from razorlight import (
    Dense,
    Mask,
    Plan,
    RazorError,
    Slope,
    TopK,
    Uniform,
    is_converted,
    razor_,
    restore_,
)
from razorlight.conversion import make_plan
from razorlight.memory import measure_step


def vit():
    torch.manual_seed(0)
    return tiny_vit(32, 8, width=64)


def cnn():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=3)


def edited(plan, path, change):
    plan.save(path)
    content = yaml.safe_load(path.read_text())
    change(content["layers"])
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("recipe", ["balanced", "checkpoint", "compact", "exact", "paper"])
@pytest.mark.parametrize("build", [vit, cnn])
def test_what_is_saved_comes_back(build, recipe, tmp_path):
    model = build()
    plan = make_plan(model, recipe)
    plan.save(tmp_path / "plan.yaml")
    loaded = Plan.load(tmp_path / "plan.yaml")
    assert loaded.layers == plan.layers
    assert [line.name for line in loaded.lines] == [line.name for line in plan.lines]
    assert [line.runs_again for line in loaded.lines] == [line.runs_again for line in plan.lines]
    assert loaded.summary() == plan.summary()
    lines = (tmp_path / "plan.yaml").read_text().splitlines()
    assert len([line for line in lines if line.startswith("  ")]) == len(plan.lines)

    twin, images = copy.deepcopy(model), torch.randn(2, 3, 32, 32)
    razor_(model, recipe)
    razor_(twin, plan=tmp_path / "plan.yaml")
    steps = [measure_step(m, lambda m=m: m(images).square().mean(), images) for m in (model, twin)]
    assert steps[0].stored == steps[1].stored
    assert [type(m) for m in model.modules()] == [type(m) for m in twin.modules()]


def test_a_plan_is_made_without_a_change_of_the_network():
    model = cnn()
    plan = make_plan(model)
    assert not is_converted(model)
    assert razor_(model, plan=plan) == plan
    assert is_converted(model)
    assert str(plan).startswith("┏")
    assert plan.summary() in str(plan)


def test_a_plan_of_a_large_network_is_one_screen():
    plan = make_plan(timm.create_model("resnet50"))
    lines = str(plan).splitlines()
    assert len(lines) < 40
    assert max(map(len, lines[:-1])) <= 80
    norms = next(group for group in plan.groups() if group.layer == "BatchNorm2d")
    assert len(norms.names) == 53
    assert norms.detail.startswith("4 bits along tokens, 64 at a time")
    assert sum(len(group.names) for group in plan.groups()) == len(plan.lines)


def test_a_plan_in_a_notebook():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))
    shown = make_plan(model)._repr_html_()
    assert shown.count("<tr>") == 4
    assert "first layer: its input is the batch" in shown
    assert ElementTree.fromstring(f"<div>{shown}</div>") is not None


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        (Uniform(4), "4 bits"),
        (
            Uniform(3, 64, axis=-1, token_scale=True),
            "3 bits along channels, 64 at a time, tokens scaled",
        ),
        (Uniform(4, axis=1), "4 bits along dim 1"),
        (TopK(0.9), "10% of each sample, in fp16"),
        (Dense(), "as it is"),
        (Dense("bf16"), "in bf16"),
        (Mask(), "in bits, exactly"),
        (Slope(3), "slopes of gelu in 3 bits"),
    ],
)
def test_codecs_in_words(codec, words):
    assert codec.words == words


def test_a_plan_is_edited_by_hand(tmp_path):
    def change(layers):
        layers["blocks.0.mlp.fc1"] = {"layer": "Linear", "dense": "by hand"}
        layers["blocks.1.mlp.act"]["codec"] = {"codec": "uniform", "bits": 8, "axis": -2}
        layers["blocks.1.norm1"]["max_rerun_cost"] = 7
        layers["blocks.1.norm2"]["max_rerun_cost"] = "inf"  # what YAML makes of inf

    model = vit()
    path = edited(make_plan(model), tmp_path / "plan.yaml", change)
    plan = razor_(model, plan=str(path))
    assert type(model.blocks[0].mlp.fc1) is nn.Linear
    assert {line.name: line.detail for line in plan.only("skipped")}[
        "blocks.0.mlp.fc1"
    ] == "by hand"
    assert model.blocks[1].mlp.act.razor_plan.codec == Uniform(8, axis=-2)
    assert model.blocks[1].norm1.razor_plan.max_rerun_cost == 7
    assert model.blocks[1].norm2.razor_plan.max_rerun_cost == math.inf
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    restore_(model)


def rename(layers):
    layers["blocks.0.other"] = layers.pop("blocks.0.attn")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "another network: this one has no layer blocks.0.other"),
        (lambda layers: layers.pop("blocks.0.norm1"), "it has no layer blocks.0.norm1"),
        (
            lambda layers: layers["blocks.0.norm1"].update(layer="RMSNorm"),
            "blocks.0.norm1 is a LayerNorm here, and a RMSNorm in the plan",
        ),
        (
            lambda layers: layers["blocks.0.norm1"].update(codec="mask"),
            "stores blocks.0.norm1 by .*, which cannot store norm",
        ),
        (
            lambda layers: layers["blocks.0.norm1"].update(codec="masc"),
            "blocks.0.norm1: unknown codec",
        ),
        (lambda layers: layers["blocks.0.norm1"].update(bits=4), "blocks.0.norm1: unknown bits"),
        (
            lambda layers: layers["blocks.0.norm1"].update(dense="no"),
            "give exactly one of codec, dense",
        ),
        (lambda layers: layers["blocks.0.norm1"].update(shares=3), "shares must be true or false"),
        (
            lambda layers: layers["blocks.0.norm1"].update(max_rerun_cost="many"),
            "max_rerun_cost must be a number, got 'many'",
        ),
        (
            lambda layers: layers["blocks.0.norm1"].update(codec={"codec": "uniform", "axis": "x"}),
            "blocks.0.norm1: codec uniform: axis must be a whole number or null",
        ),
        (
            lambda layers: layers["blocks.0.norm1"].update(runs_again="yes"),
            "runs_again must be true or false",
        ),
        (
            lambda layers: layers.update({"blocks.0.norm1": 4}),
            "give a mapping that names the class",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_in_a_line(change, message, tmp_path):
    model = vit()
    path = edited(make_plan(model), tmp_path / "plan.yaml", change)
    with pytest.raises(RazorError, match=message) as caught:
        razor_(model, plan=path)
    assert "\n" not in str(caught.value)
    assert not is_converted(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no plan .*plan.yaml"),
        ("layers: 3", "is no plan"),
        ("a: [", "cannot be read as a plan"),
        ("layers: {}\nrecipe: compact", "has recipe beside `layers`"),
        (
            "layers: {a: {layer: ReLU, dense: x}, a: {layer: ReLU, codec: mask}}",
            "a is given 2 times",
        ),
    ],
)
def test_a_file_that_is_no_plan(content, message, tmp_path):
    path = tmp_path / "plan.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RazorError, match=message) as caught:
        Plan.load(path)
    assert "\n" not in str(caught.value)


def test_a_class_that_is_not_registered(tmp_path):
    class Mine(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), Mine(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    plan = make_plan(model)
    assert {line.name: line.status for line in plan.lines}["1"] == "near miss"

    def convert(layers):
        layers["1"] = {"layer": "Mine", "codec": "dense"}

    with pytest.raises(RazorError, match="converts 1, whose class is not registered"):
        razor_(model, plan=edited(plan, tmp_path / "plan.yaml", convert))


def test_what_is_no_plan():
    for given in (True, ["plan.yaml"]):
        with pytest.raises(RazorError, match="a plan is a Plan, or the path of a file; got"):
            razor_(cnn(), plan=given)


@pytest.mark.parametrize("given", [{"recipe": "exact"}, {"sparsity": 0.5}, {"include": ["*"]}])
def test_a_plan_takes_no_other_arguments(given):
    model = cnn()
    with pytest.raises(RazorError, match="a plan says for each layer how it stores"):
        razor_(model, plan=make_plan(model), **given)


@pytest.mark.parametrize("name", ["a" * 200, "no", "null", "on:off", "two words", "\u2028", "1"])
def test_every_name_of_a_layer_comes_back(name, tmp_path):
    model = nn.Module()
    model.add_module(name, nn.Sequential(nn.GELU(), nn.GELU()))
    plan = make_plan(model)
    plan.save(tmp_path / "plan.yaml")
    assert Plan.load(tmp_path / "plan.yaml").layers == plan.layers
    root = make_plan(nn.GELU())
    root.save(tmp_path / "plan.yaml")
    assert Plan.load(tmp_path / "plan.yaml").layers == root.layers == {"": root.lines[0].plan}


def test_what_no_recipe_converts_no_plan_converts():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2))
    plan = make_plan(model)
    model[2].kernel_size = 20
    with pytest.raises(RazorError, match="converts 2, which stays dense: a window of more than"):
        razor_(model, plan=plan)


def test_what_is_in_a_block_that_runs_again_is_dense(tmp_path):
    def run_again(layers):
        layers["blocks.0"] = {"layer": "Block", "codec": "dense", "runs_again": True}

    model = vit()
    path = edited(make_plan(model), tmp_path / "plan.yaml", run_again)
    with pytest.raises(RazorError, match=r"but blocks\.0 around it runs again"):
        razor_(model, plan=path)
    with pytest.raises(RazorError, match="converts no layer"):
        razor_(model, plan=Plan(()))


def test_a_loaded_plan_prints_as_the_one_that_was_saved(tmp_path):
    model = cnn()
    plan = make_plan(model)
    plan.save(tmp_path / "plan.yaml")
    assert str(razor_(model, plan=tmp_path / "plan.yaml")) == str(plan)
