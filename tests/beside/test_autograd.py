"""Everything that autograd offers beside loss.backward(): as in the dense network, or refused."""

import copy
import pickle
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from beside.runs import IMAGES, network
from small_networks import tiny_vit
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functional_call, hessian, jacfwd, jvp, vmap
from torch.utils.checkpoint import checkpoint

from razorlight import Dense, RazorError, is_converted, razor_, restore_
from razorlight.planning import exact


def vit():
    return tiny_vit(8, 4, init_values=0.5, drop_rate=0.2)


NETWORKS = [network, vit]
BLOCKS = replace(exact(), block=Dense())
EXACT = [(network, "exact"), (vit, "exact"), (vit, BLOCKS)]


def pair(build, recipe="exact"):
    torch.manual_seed(0)
    dense = build()
    razor = copy.deepcopy(dense)
    razor_(razor, recipe)
    return dense, razor


def gradients(model):
    return [p.grad for p in model.parameters()]


def loss(model, x=IMAGES):
    torch.manual_seed(1)  # dropout
    return model(x).square().sum()


def by_functional_call(model):
    weights = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    torch.manual_seed(1)
    functional_call(model, weights, (IMAGES,)).square().sum().backward()
    return [weight.grad for weight in weights.values()]


def checkpointed(model, use_reentrant):
    inner = IMAGES.clone().requires_grad_()
    torch.manual_seed(1)
    checkpoint(model, inner, use_reentrant=use_reentrant).square().sum().backward()
    return [*gradients(model), inner.grad]


def under(context):
    def step(model):
        with context():
            loss(model).backward()
        return gradients(model)

    return step


def offloaded(model):
    with save_on_cpu():
        value = loss(model)
    value.backward()
    return gradients(model)


def hooked(model):
    """With hooks on every layer that sees them: backward's, and those of parameters."""
    seen = []
    for layer in model.modules():
        if not (getattr(layer, "inplace", False) or list(layer.children())):
            layer.register_full_backward_hook(lambda _, i, o: seen.extend((*i, *o)))
            layer.register_full_backward_pre_hook(lambda _, o: (o[0] * 1.5,))
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: grad * 2)
    for layer in model.modules():  # whose result nobody may overwrite then
        if getattr(layer, "inplace", False):
            layer.inplace = False
    loss(model).backward()
    return [*gradients(model), *(tensor for tensor in seen if tensor is not None)]


def of_some(model):
    """Of an input and two weights alone, twice, through a graph that is kept."""
    x = IMAGES.clone().requires_grad_()
    weights = [p for p in model.parameters() if p.ndim > 1]
    value = loss(model, x)
    first = torch.autograd.grad(value, (weights[-1], x), retain_graph=True)
    second = torch.autograd.grad(value, weights[1], retain_graph=True)
    value.backward(inputs=[weights[0]])
    return [*first, *second, weights[0].grad]


def of_values_within(model):
    """Of what a layer gives, which a hook has got hold of."""
    kept = []
    for layer in model.modules():
        if isinstance(layer, nn.LayerNorm | nn.GELU | nn.GroupNorm):
            layer.register_forward_hook(lambda _, i, out: kept.append(out))
    return torch.autograd.grad(loss(model), kept)


def of_a_sum_of_two_passes(model):
    model.eval()  # statistics of the first pass would change the second
    (loss(model) + loss(model, IMAGES * 2)).backward()
    return gradients(model)


def from_a_copy(model):
    twin = pickle.loads(ForkingPickler.dumps(copy.deepcopy(model)))
    assert is_converted(twin) == is_converted(model)
    loss(twin).backward()
    return gradients(twin)


def in_float64(model):
    model.double()
    torch.manual_seed(1)
    model(IMAGES.double()).square().sum().backward()
    return [grad.float() for grad in gradients(model)]


WAYS = {
    "functional_call": by_functional_call,
    "checkpoint": lambda model: checkpointed(model, use_reentrant=False),
    "reentrant checkpoint": lambda model: checkpointed(model, use_reentrant=True),
    "save_on_cpu": offloaded,
    "save_on_cpu around backward": under(save_on_cpu),
    "saved_tensors_hooks": under(lambda: saved_tensors_hooks(torch.clone, lambda x: x)),
    "anomaly": under(torch.autograd.detect_anomaly),
    "one thread": under(lambda: torch.autograd.set_multithreading_enabled(False)),
    "hooks": hooked,
    "some": of_some,
    "within": of_values_within,
    "two passes": of_a_sum_of_two_passes,
    "copies": from_a_copy,
    "float64": in_float64,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("build", "recipe"), EXACT, ids=["network", "vit", "vit in blocks"])
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_as_dense(build, recipe, way):
    dense, razor = pair(build, recipe)
    expected, actual = WAYS[way](dense), WAYS[way](razor)
    assert len(actual) == len(expected) > 0
    for ours, theirs in zip(actual, expected, strict=True):
        size = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 + 1e-4 * size)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_nothing_is_stored_without_gradients(context):
    dense, razor = pair(vit, "balanced")
    stored = []
    with saved_tensors_hooks(stored.append, lambda x: x), context():
        assert torch.equal(loss(razor), loss(dense))
        vmapped = vmap(razor.eval(), randomness="same")(IMAGES[:, None])
    torch.testing.assert_close(vmapped[:, 0], dense.eval()(IMAGES), rtol=1e-4, atol=1e-5)
    assert not stored


def gradient_penalty(model):
    x = IMAGES.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    grad.norm().backward()


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("recipe", ["exact", "balanced", "paper", "checkpoint"])
def test_gradients_of_gradients_are_refused(build, recipe):
    """And not computed wrong, as they would be where some layers are dense."""
    _, razor = pair(build, recipe)
    with pytest.raises(RazorError, match="create_graph=True"):
        gradient_penalty(razor)


def test_gradients_of_gradients_of_what_was_restored():
    dense, razor = pair(network)
    restore_(razor)
    for model in (dense, razor):
        gradient_penalty(model)
    torch.testing.assert_close(gradients(razor), gradients(dense))


def test_gradients_of_gradients_of_blocks():
    """Which run again, dense, so that they have them."""
    dense, razor = pair(lambda: nn.Sequential(Perceptron(), Perceptron()), BLOCKS)
    x = torch.randn(4, 8)
    for model in (dense, razor):
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(leaf).sum(), leaf, create_graph=True)
        grad.square().sum().backward()
    torch.testing.assert_close(gradients(razor), gradients(dense))


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

    def forward(self, x):
        return self.layers(x)


def by_weights(model):
    weights = {n: p.detach() for n, p in model.named_parameters()}
    return weights, lambda weights, x: functional_call(model, weights, (x,)).square().sum()


def per_sample(model):
    weights, function = by_weights(model)
    return vmap(torch.func.grad(function), (None, 0), randomness="same")(weights, IMAGES[:, None])


def in_forward_mode(model):
    with forward_ad.dual_level():
        model(forward_ad.make_dual(IMAGES, IMAGES))


TRANSFORMS = {
    "grad": lambda model: torch.func.grad(by_weights(model)[1])(by_weights(model)[0], IMAGES),
    "per sample": per_sample,
    "vmap": lambda model: vmap(model, randomness="same")(IMAGES[:, None]),
    "jvp": lambda model: jvp(model, (IMAGES,), (IMAGES,)),
    "jacfwd": lambda model: jacfwd(model)(IMAGES[:1]),
    "hessian": lambda model: hessian(lambda x: model(x).sum())(IMAGES[:1]),
    "forward mode": in_forward_mode,
}


@pytest.mark.parametrize("recipe", ["exact", "checkpoint"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_refused(name, recipe):
    razor = pair(vit, recipe)[1].train()
    with pytest.raises(RazorError, match=r"Razor\w+: razor layers go neither through torch.func"):
        TRANSFORMS[name](razor)


def test_per_sample_gradients_of_what_was_restored():
    dense, razor = pair(vit)
    restore_(razor)
    for model in (dense, razor):
        model.eval()
    torch.testing.assert_close(per_sample(razor), per_sample(dense))


def test_shared_with_another_process():
    """As multiprocessing hands it over: another module of the same weights."""
    dense, razor = pair(network)
    razor.share_memory()
    received = pickle.loads(ForkingPickler.dumps(razor))
    for model in (dense, received):
        loss(model).backward()
        torch.optim.SGD(model.parameters(), 0.01).step()
    assert is_converted(received)
    for ours, theirs in zip(razor.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
