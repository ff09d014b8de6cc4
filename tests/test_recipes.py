"""A recipe is configuration: a name, a mapping, or a Recipe, the same in Python and in YAML."""

import math

import pytest
import yaml

from razorlight import Dense, RazorError, Recipe, TopK, Uniform
from razorlight.planning import RECIPES, Role, compact, find_recipe, recipe_fields

CHANGED = "{name: balanced, smooth_activation: {codec: uniform, bits: 4}, max_rerun_cost: inf}"
WHOLE = (
    "{norm: dense, channel_norm: dense, product: dense, operands: dense, smooth_activation: dense}"
)


@pytest.mark.parametrize("name", RECIPES)
def test_a_mapping_of_the_name_is_the_name(name):
    assert find_recipe({"name": name}) == find_recipe(name)
    assert find_recipe(find_recipe(name)) == find_recipe(name)


def test_arguments_and_fields():
    assert find_recipe(yaml.safe_load("{name: compact, bits: 4}")) == compact(bits=4)
    assert find_recipe({"name": "paper", "sparsity": 0.7, "values": "bf16"}).product == TopK(
        0.7, "sample", "bf16"
    )
    changed = find_recipe(yaml.safe_load(CHANGED))
    assert (changed.smooth_activation, changed.max_rerun_cost) == (Uniform(4), math.inf)
    assert changed.norm == find_recipe("balanced").norm
    assert find_recipe(yaml.safe_load(WHOLE)) == Recipe(*[Dense()] * 5)


@pytest.mark.parametrize("spec", ["balanced", yaml.safe_load(CHANGED), compact(bits=4)])
def test_plain_values_give_the_same_recipe_again(spec):
    fields = recipe_fields(spec)
    assert find_recipe(yaml.safe_load(yaml.safe_dump(fields))) == find_recipe(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "compct"}, "unknown recipe 'compct'.*did you mean 'compact'"),
        ({"name": 3}, "unknown recipe 3, choose from"),
        ({"name": "compact", "bit": 4}, "recipe compact has no 'bit', only sparsity, bits, norm"),
        ({"name": "compact", "bits": 9}, "bits must be one of"),
        ({"name": "paper", "sparsity": "much"}, r"sparsity must be in \[0, 1\).*much"),
        (
            {"name": "balanced", "smooth_activation": "topk"},
            r"recipe: smooth_activation cannot be stored by TopK",
        ),
        ({"name": "balanced", "smooth_activation": 3}, "unknown codec in 3"),
        (
            {"name": "balanced", "max_rerun_cost": "many"},
            "max_rerun_cost must be a number, got 'many'",
        ),
        ({"name": "balanced", "shares": 2}, "shares must be true or false, got 2"),
        ({"norm": "dense"}, "missing 4 required positional.*or a name, as in"),
        ({"norms": "dense"}, "recipe without a name has no 'norms'"),
        ({}, "missing 5 required"),
        (None, "a recipe is a name, a mapping like .*; got None"),
        (["compact"], r"a recipe is a name, .*; got \['compact'\]"),
        ({"name": ["compact"]}, r"unknown recipe \['compact'\]"),
        ({"name": "compact", "bits": "6"}, "bits must be one of .*, got '6'"),
        ({"name": "balanced", "sparsity": True}, r"sparsity must be in \[0, 1\).*True"),
        ({"name": "balanced", "max_rerun_cost": math.nan}, "must be a number, got nan"),
    ],
)
def test_refused_in_one_line(spec, message):
    with pytest.raises(RazorError, match=message) as caught:
        find_recipe(spec)
    assert "\n" not in str(caught.value)


def test_only_unbounded_activations_have_a_scale_for_each_token():
    balanced = find_recipe("balanced")
    assert balanced.layer_plan(Role.KINKED_ACTIVATION).codec.token_scale
    assert not balanced.layer_plan(Role.BOUNDED_ACTIVATION).codec.token_scale


def test_a_sparsity_beside_a_whole_recipe_is_refused():
    with pytest.raises(RazorError, match="sparsity is an argument of a named recipe"):
        find_recipe(compact(), sparsity=0.5)


def test_a_codec_that_cannot_store_is_refused():
    with pytest.raises(RazorError, match="recipe: norm cannot be stored by 'dense'"):
        Recipe("dense", *[Dense()] * 4)
    Recipe(*[Dense()] * 5, block=Uniform(8))
