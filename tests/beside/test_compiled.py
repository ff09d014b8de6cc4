"""torch.compile of the module or of a block inside, before conversion and after it."""

import copy

import pytest
import torch
from beside.runs import IMAGES, Small, assert_same, fit, trainer
from torch import nn

from razorlight import BackRazor, is_converted, razor_, restore_

BACKEND = {"backend": "aot_eager", "fullgraph": True}


@pytest.fixture(autouse=True)
def forgotten():
    yield
    torch._dynamo.reset()


def in_place(model):
    model.compile(**BACKEND)
    return model


def wrapped(model):
    return torch.compile(model, **BACKEND)


def a_block_in_place(model):
    model[0].compile(**BACKEND)
    return model


def a_block_wrapped(model):
    model[0] = torch.compile(model[0], **BACKEND)
    return model


def nested():
    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(inplace=True))
    return nn.Sequential(block, nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 3))


def step(model):
    """Gradients, and how much was stored for them."""
    sizes = {}

    def note(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model(IMAGES)  # hooks must not be there when it compiles
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(IMAGES).square().sum()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), sum(sizes.values())


LONGER = (wrapped, a_block_in_place, a_block_wrapped)
LONG = [pytest.param(how, marks=pytest.mark.long) for how in LONGER]


@pytest.mark.parametrize("how", [in_place, *LONG])
def test_a_compiled_network_follows_conversion(how):
    """As often as one likes: compiled dense, then razor by two recipes, then dense again."""
    torch.manual_seed(0)
    dense = nested()
    compiled = how(copy.deepcopy(dense))
    expected, _ = step(dense)
    stored, similarity = {}, {}
    for recipe in ("dense", "exact", "balanced", "dense"):
        if recipe == "dense":
            restore_(compiled)
        else:
            razor_(compiled, recipe)
        actual, stored[recipe] = step(compiled)
        similarity[recipe] = torch.cosine_similarity(actual, expected, dim=0)
    assert similarity["dense"] > 0.999999
    assert similarity["exact"] > 0.999999
    assert 0.9 < similarity["balanced"] < 0.9999
    assert stored["balanced"] < stored["exact"] < stored["dense"]


def test_a_gradient_of_a_compiled_gradient_is_refused():
    razor = nested()
    razor_(razor)
    x = IMAGES.clone().requires_grad_()
    out = in_place(razor)(x)
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        grad.norm().backward()


class WithBlockInPlace(Small):
    def __init__(self):
        super().__init__()
        self.backbone.compile(**BACKEND)


class WithBlockWrapped(Small):
    def __init__(self):
        super().__init__()
        self.backbone = torch.compile(self.backbone, **BACKEND)


@pytest.mark.long
@pytest.mark.parametrize("module", [WithBlockInPlace, WithBlockWrapped])
def test_blocks_of_a_lightning_module(module, tmp_path):
    razor = BackRazor("exact")
    model = fit(tmp_path, razor, module=module, max_epochs=1)
    assert sum("backbone" in line.name for line in razor.plan.only("converted")) > 5
    expected = fit(tmp_path, max_epochs=1).state_dict()
    for name, value in model.state_dict().items():
        name = name.replace("_orig_mod.", "")
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


class Noted(Small):
    """Nothing in its step that a compiler could not trace."""

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def on_before_backward(self, *_):
        self.converted.add(is_converted(self))


@pytest.mark.long
def test_a_compiled_lightning_module(tmp_path):
    models = []
    for callbacks in ([BackRazor("exact")], []):
        module = Noted()
        compiled = torch.compile(module, backend="aot_eager") if callbacks else module
        trainer(tmp_path, *callbacks, max_epochs=1).fit(compiled)
        trainer(tmp_path, max_epochs=1).fit(compiled)
        models.append(module)
    assert models[0].converted == {True, False}
    assert models[1].converted == {False}
    assert_same(*models)
