"""Lightning's precisions: the forward is the dense one's, and no record is wider than it."""

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.precision import Precision
from runs import Module, cnn, cosine, loader, trainer, vit
from torch import nn
from torch.utils._python_dispatch import return_and_correct_aliasing

from razorlight import BackRazor, MemoryProfiler, is_converted, razor_

TOO_LARGE = 2.0**19  # of a scale: the first steps are skipped


def options(precision):
    """For a Trainer; Lightning's own float16 on a CPU is bfloat16, with a warning."""
    if precision != "16-mixed":
        return {"precision": precision}
    scaler = torch.amp.GradScaler("cpu", init_scale=TOO_LARGE)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


def trained(build, recipe, precision, callbacks=(), **more):
    model = Module(build)
    run = trainer(recipe, callbacks, max_epochs=1, **options(precision), **more)
    run.fit(model, loader(8))
    return model, run


PRECISIONS = {  # the least cosine of the gradient to the dense one
    "32-true": 0.9999,
    "bf16-mixed": 0.9999,
    "16-mixed": 0.9999,
    "bf16-true": 0.999,
    "16-true": 0.9999,
    "64-true": 0.9999,
}


@pytest.mark.parametrize("recipe", ["exact", "balanced"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("build", [vit, cnn])
def test_forward_is_the_dense_one(build, precision, recipe):
    (dense, before), (razor, after) = (trained(build, r, precision) for r in (None, recipe))
    assert torch.equal(dense.first_output, razor.first_output)
    lossy = 0.998 if precision == "16-mixed" else 0.999  # of the step after those that are skipped
    bound = PRECISIONS[precision] if recipe == "exact" else lossy
    gradients = [model.first_gradient.double() for model in (dense, razor)]
    assert cosine(*gradients) > bound
    for parameter in razor.parameters():
        assert parameter.isfinite().all()
    if precision == "16-mixed":
        scales = [run.precision_plugin.scaler.get_scale() for run in (before, after)]
        assert scales[0] == scales[1] < TOO_LARGE


def test_exact_is_so_in_double():
    dense, exact = (trained(vit, recipe, "64-true")[0] for recipe in (None, "exact"))
    torch.testing.assert_close(exact.first_gradient, dense.first_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("build", [vit, cnn])
def test_no_record_is_wider_than_what_it_records(build):
    stored = {}
    for precision in PRECISIONS:
        profiler = MemoryProfiler()
        trained(build, "exact", precision, [profiler], fast_dev_run=1)
        stored[precision] = profiler.compared
    for precision, step in stored.items():
        assert step["razor"].stored < 0.65 * step["dense"].stored, precision
    whole = stored["32-true"]["razor"].stored
    for precision, share in {"bf16-true": 0.51, "16-true": 0.51, "64-true": 2}.items():
        assert stored[precision]["razor"].stored <= share * whole, precision


class Linear4bit(nn.Linear):
    """A subclass with weights of its own kind, as bitsandbytes' are."""


class Quantising(Precision):
    """Replaces the Linears of a module when the strategy sets up, as BitsandbytesPrecision does."""

    def convert_module(self, module):
        for parent in [*module.modules()]:
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear):
                    new = Linear4bit(child.in_features, child.out_features)
                    new.weight.requires_grad_(False)
                    setattr(parent, name, new)
        return module


def test_linears_of_a_quantising_precision_are_near_misses():
    model, razor = Module(vit), BackRazor()
    run = trainer(None, [razor], plugins=[Quantising()])
    with pytest.warns(UserWarning, match=r"\(Linear4bit\) stays dense, as do 8 more: a Linear of"):
        run.fit(model, loader(8))
    assert {line.layer for line in razor.plan.only("near miss")} == {"Linear4bit"}
    assert "Linear" not in {line.layer for line in razor.plan.only("converted")}
    assert not is_converted(model)


class Int8Tensor(torch.Tensor):
    """Codes and a scale in place of a weight, as torchao puts them into plain Linears."""

    @staticmethod
    def __new__(cls, codes, scale):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype)

    def __init__(self, codes, scale):
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self):
        return ["codes", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, parts, *_):
        return cls(**parts)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            out = cls(args[0].codes, args[0].scale)
            return return_and_correct_aliasing(func, args, kwargs or {}, out)
        whole = [x.codes * x.scale if isinstance(x, cls) else x for x in args]
        return func(*whole, **kwargs or {})


def quantised(linear):
    scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
    codes = (linear.weight.detach() / scale).round().to(torch.int8)
    linear.weight = nn.Parameter(Int8Tensor(codes, scale), requires_grad=False)


def test_weights_of_another_class_leave_a_layer_dense():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU())
    net.append(nn.MultiheadAttention(8, 2))
    quantised(net[2])
    quantised(net[4].out_proj)
    report = razor_(net)
    skipped = {line.name: line.detail for line in report.only("skipped")}
    assert skipped["2"] == skipped["4"] == "its weights are of Int8Tensor"
    net[:4](torch.randn(3, 5, 8)).sum().backward()
    assert net[1].weight.grad.isfinite().all()
