import copy
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import timm
import torch
from timm.layers import LayerScale
from torch import nn
from torch.nn.utils import parametrizations

from razorlight import (
    Dense,
    Mask,
    RazorError,
    TopK,
    Uniform,
    is_converted,
    razor_,
    register,
    restore_,
)
from razorlight.layers import REGISTRY, RazorModule
from razorlight.planning import Role


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 2),
    )


def as_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    return file.getvalue()


def codecs(model):
    return {n: m.razor_plan.codec for n, m in model.named_modules() if isinstance(m, RazorModule)}


def reasons(report):
    return {line.name: line.detail for line in report.only("skipped")}


def test_every_layer_is_named():
    model = network()
    report = razor_(model, "paper", sparsity=0.8)
    assert codecs(model) == {
        "1": TopK(0.8),
        "2": Mask(),
        "3": TopK(0.8),
        "4": Dense("fp16"),
    }
    assert reasons(report) == {
        "0": "first layer: its input is the batch",
        "5": "this recipe shares no records",
        "6": "head",
    }
    printed = str(report)
    assert all(line.name in printed for line in report.lines)
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    assert report.summary().startswith("converted 4 of 7 layers")


def test_head_of_a_vit_and_its_norm():
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    left = reasons(razor_(model, "paper"))
    assert left["head"] == "head"
    assert left["norm"] == "norm before the head"
    assert left["patch_embed.proj"].startswith("first layer")
    assert reasons(razor_(model, "balanced")).keys() == {"patch_embed.proj"}
    assert codecs(model)["head"] == Dense()


def test_include_exclude_overrides():
    model = network()
    report = razor_(model, "paper", include=["0", "[1-3]"], exclude=["2"], overrides={"3": "dense"})
    assert codecs(model) == {"0": TopK(0.9), "1": TopK(0.9), "3": Dense()}
    left = dict.fromkeys(("4", "5", "6"), "not included")
    assert reasons(report) == {"2": "excluded", **left}


def test_a_glob_names_a_whole_subtree():
    model = nn.ModuleDict({"encoder": network(), "decoder": network()})
    razor_(model, include=["encoder"])
    assert {name.split(".")[0] for name in codecs(model)} == {"encoder"}


def test_last_override_wins_where_it_fits():
    model = network()
    block = {"codec": "topk", "sparsity": 0.5, "scope": "block"}
    razor_(model, overrides={"*": block, "3": TopK(0.7)})
    assert codecs(model)["1"] == TopK(0.5, "block")
    assert codecs(model)["3"] == TopK(0.7)
    assert codecs(model)["2"] == Uniform(3, axis=-2, preserves="zeros", token_scale=True)


def test_carriers_are_named_and_store_nothing():
    report = razor_(network(), "balanced", overrides={"*": "dense"})
    assert {line.name: line.detail for line in report.only("converted")}["5"] == (
        "carries records on"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.5}, r"sparsity must be in \[0, 1\).*1.5"),
        ({"sparsity": -0.1}, r"sparsity must be in \[0, 1\)"),
        ({"recipe": "exact", "sparsity": 0.5}, "exact and checkpoint prune nothing"),
        ({"recipe": "papper"}, "unknown recipe 'papper'.*did you mean 'paper'"),
        ({"include": ["encodr.*"]}, "include: pattern 'encodr.*' matches nothing"),
        ({"exclude": "encoder"}, r"exclude: give a list of patterns, \['encoder'\], and no string"),
        ({"exclude": ["encodr"]}, "exclude: pattern 'encodr' matches nothing"),
        ({"overrides": {"9": "dense"}}, "overrides: pattern '9' matches nothing"),
        ({"overrides": {"3": "dens"}}, "unknown codec"),
        ({"overrides": {"4": TopK(0.5)}}, "never pruned"),
        ({"overrides": {"2": TopK(0.5)}}, "stays dense, stores bits, or"),
        ({"include": ["0"], "exclude": ["0"]}, "nothing to convert in Sequential"),
    ],
)
def test_refused_in_one_line_and_untouched(arguments, message):
    model = network()
    with pytest.raises(RazorError, match=message) as caught:
        razor_(model, **arguments)
    assert "\n" not in str(caught.value)
    assert not is_converted(model)


def test_nothing_to_convert():
    with pytest.raises(RazorError, match="no layer of a known class"):
        razor_(nn.Sequential(nn.Identity(), nn.Softsign()))


def test_near_misses_are_named():
    class MyLinear(nn.Linear):
        pass

    model = nn.Sequential(
        nn.Linear(4, 4),
        MyLinear(4, 4),
        parametrizations.weight_norm(nn.Linear(4, 4)),
        nn.SyncBatchNorm(4),
        nn.LazyConvTranspose1d(4, 1),
        nn.ReLU(),
    )
    report = razor_(model)
    assert [line.name for line in report.only("near miss")] == ["1", "2", "3", "4"]
    assert report.only("near miss")[0].detail == "a Linear of a class that is not registered"
    assert type(model[1]) is MyLinear


def test_children_that_are_not_called():
    report = razor_(nn.ModuleList([nn.Linear(8, 8), nn.MultiheadAttention(8, 2), nn.ReLU()]))
    assert reasons(report)["1.out_proj"] == "its weights are used by 1"


def test_pools_that_bytes_cannot_hold():
    pools = nn.ModuleList(
        [nn.ReLU(), nn.MaxPool2d(2, return_indices=True), nn.MaxPool2d(17), nn.MaxPool3d(7)]
    )
    large = "a window of more than 256 entries"
    assert reasons(razor_(pools)) == {"1": "its caller wants the int64 indices"} | dict.fromkeys(
        "23", large
    )


def test_again_replaces_what_was_chosen():
    model = network()
    razor_(model, "paper", sparsity=0.9)
    razor_(model, "paper", sparsity=0.5, exclude=["1"])
    assert codecs(model)["3"] == TopK(0.5)
    assert type(model[1]) is nn.BatchNorm2d


def test_restore():
    model = network()
    before = copy.deepcopy(model)
    razor_(model)
    restore_(model)
    assert [type(a) for a in model.modules()] == [type(b) for b in before.modules()]
    assert [vars(a).keys() for a in model.modules()] == [vars(b).keys() for b in before.modules()]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(ForkingPickler.dumps(m))])
@pytest.mark.parametrize("recipe", ["balanced", "checkpoint"])
def test_copies_are_razor_layers_with_their_own_weights(clone, recipe):
    model = nn.Sequential(network(), nn.TransformerEncoderLayer(2, 1, 8))
    razor_(model, recipe)
    copied = clone(model)
    assert codecs(copied) == codecs(model)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(copied[0](x), model[0](x))
    if clone is copy.deepcopy:  # the other one shares memory, as between processes
        with torch.no_grad():
            model[0][3].weight.zero_()
        assert not torch.equal(copied[0](x), model[0](x))
    restore_(copied)
    assert [type(m) for m in copied.modules()] == [type(m) for m in clone(copied).modules()]


@pytest.mark.parametrize("recipe", ["balanced", "checkpoint"])
@pytest.mark.parametrize("dumps", [pickle.dumps, as_file])
def test_files_hold_the_dense_network(dumps, recipe):
    model = nn.Sequential(network(), nn.TransformerEncoderLayer(2, 1, 8))
    razor_(model, recipe)
    model[0](torch.randn(2, 3, 8, 8)).sum().backward()
    model.zero_grad()
    assert is_converted(model)
    written = dumps(model)
    assert b"razor" not in written
    assert is_converted(model)


def test_shared_layer_called_twice():
    shared = nn.Linear(6, 6)
    model = nn.Sequential(nn.Linear(6, 6), shared, nn.ReLU(), shared)
    expected = copy.deepcopy(model)
    razor_(model, include=["*"], sparsity=0.0, overrides={"*": Dense()})
    x = torch.randn(3, 6)
    model(x).sum().backward()
    expected(x).sum().backward()
    torch.testing.assert_close(shared.weight.grad, expected[1].weight.grad)


def test_the_places_of_a_window_of_256_entries_fit_a_byte():
    pools = nn.Sequential(nn.MaxPool2d(16), nn.MaxPool1d(256), nn.MaxPool1d(257))
    plan = razor_(pools)
    assert [line.name for line in plan.only("converted")] == ["0", "1"]


def test_behind_an_embedding_no_product_is_the_first():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.hidden = nn.Embedding(9, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 9)

        def forward(self, ids):
            return self.head(self.hidden(self.embedding(ids)))

    report = razor_(Embedded())
    assert [line.name for line in report.only("converted")] == ["embedding", "hidden", "head"]


def test_what_a_block_moves_by_keyword_is_left_alone():
    class Doubled(nn.Module):
        def forward(self, x):
            return torch.cat(tensors=[x, torch.flatten(input=x, start_dim=1).view(x.shape)], dim=1)

    register(Doubled, role=Role.VIEW)
    try:
        dense = nn.Sequential(nn.BatchNorm2d(3), Doubled(), nn.Conv2d(6, 4, 3))
        razor = copy.deepcopy(dense)
        razor_(razor, "exact", include=["*"])
        images = torch.randn(2, 3, 8, 8)
        for model in (dense, razor):
            model(images).square().sum().backward()
        torch.testing.assert_close(razor[2].weight.grad, dense[2].weight.grad)
    finally:
        del REGISTRY[Doubled]


class Joined(nn.Module):
    """Scales what it joins by a learned scale."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return torch.cat([x, x * 2], -1) * self.gamma


FIRST = {"linear": lambda: nn.Linear(8, 8), "conv": lambda: nn.Conv2d(3, 3, 1)}


@pytest.mark.parametrize("recipe", ["exact", "balanced", "compact", "checkpoint"])
@pytest.mark.parametrize("first", ["linear", "conv"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_learned_scale_of_what_was_rearranged(joined, first, recipe):
    torch.manual_seed(0)
    scaled = [Joined(16)] if joined else [nn.Upsample(scale_factor=2), LayerScale(16, 1.0)]
    dense = nn.Sequential(FIRST[first](), *scaled)
    razor = copy.deepcopy(dense)
    register(Joined, functions=[torch.Tensor.mul], role=Role.PRODUCT)
    try:
        razor_(razor, recipe, include=["*"])
        images = torch.randn(2, 3, 8, 8)
        for model in (dense, razor):
            model(images).square().sum().backward()
        for p, q in zip(razor.parameters(), dense.parameters(), strict=True):
            assert torch.cosine_similarity(p.grad.flatten(), q.grad.flatten(), dim=0) > 0.99
    finally:
        del REGISTRY[Joined]


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_named(recurrent):
    model = nn.ModuleDict({"words": nn.Embedding(9, 8), "states": recurrent(8, 8)})
    model["head"] = nn.Linear(8, 2)
    (line,) = razor_(model).only("near miss")
    assert (line.name, line.layer) == ("states", recurrent.__name__)
    assert "keeps what it needs" in line.detail
