"""What the tools train: networks with real weights, on real images where there are any.

Assets (a trained ViT, subsets of CIFAR-10 and CamVid) are looked for in ``../shared/assets``, or in
``$RAZORLIGHT_ASSETS``.
"""

import copy
import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    _CHECKPOINT_PREFIX,
    apply_activation_checkpointing,
)
from torch.utils.data import ConcatDataset, Subset
from torchvision.transforms import v2
from typing_extensions import override

from razorlight import RazorError, is_converted, razor_
from razorlight.data.base import RazorDataModule
from razorlight.data.held_out import Split
from razorlight.data.palette import voc_palette
from razorlight.data.pictures import colour_labels
from razorlight.data.samples import Samples
from razorlight.data.segmentation_folder import SegmentationFolder
from razorlight.data.sets.class_names import CAMVID_CLASSES
from razorlight.data.transforms import (
    IGNORE_INDEX,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Pipelines,
    pipeline,
)
from razorlight.memory import measure_step
from razorlight.memory.meter import MIB
from razorlight.tasks.networks import NONE, TIMM_ENCODER, smp_network, timm_network
from razorlight.tasks.weights import LITE0, load_weights, read_weights

ASSETS = Path(
    os.environ.get("RAZORLIGHT_ASSETS") or Path(__file__).parents[2] / "shared" / "assets"
)
AT_HAND = "assets"
"""Stands for the real weights of a network that are at hand."""

_REAL_WEIGHTS = {
    "vit_small_patch14_dinov2": "dinov2_vit_small_patch14.fp16.safetensors",
    "tf_efficientnet_lite0": LITE0,
}
# fmt: off
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
# fmt: on

Precision = Literal["fp32", "bf16"]
Batch = tuple[Tensor, Tensor]
"""Images, float32 (B, 3, H, W), and class ids, int64, (B,) or (B, H, W)."""


def is_segmentation(name: str) -> bool:
    """Whether ``name`` is ``Architecture:encoder`` of segmentation_models_pytorch, not timm's."""
    return ":" in name


def build(name: str, size: int, weights: str = NONE) -> nn.Module:
    """A network in training mode: of timm with CIFAR-10's classes, or of smp with CamVid's.

    Args:
        name: of a timm model, or ``Architecture:encoder`` for segmentation_models_pytorch.
        size: of the images, in pixels.
        weights: ``none``; ``assets`` for real ones, where they are at hand; or a source of
            :func:`razorlight.tasks.weights.read_weights`.

    Raises:
        RazorError: for an unknown name, or weights that are absent or do not fit.
    """
    if weights == AT_HAND:
        weights = _real_weights(name)
    if not is_segmentation(name):
        return _classifier(name, size, weights).train()
    architecture, _, encoder = name.partition(":")
    return smp_network(architecture, encoder, len(CAMVID_CLASSES), weights, {}).train()


def _classifier(name: str, size: int, weights: str) -> nn.Module:
    config = timm.get_pretrained_cfg(name)
    sized = {"img_size": size} if config and config.fixed_input_size else {}
    if weights == NONE or not name.startswith("vit_"):
        return timm_network(name, len(CIFAR10_CLASSES), weights, sized)
    network: Any = timm_network(name, len(CIFAR10_CLASSES), NONE, sized)
    # the position embedding is resampled to the size
    state = checkpoint_filter_fn(read_weights(weights), network)
    load_weights(network, state, weights, heads=["head"])
    return network


def _timm_name(name: str) -> str:
    return name.partition(":")[2].removeprefix(TIMM_ENCODER) or name


def _real_weights(name: str) -> str:
    if _timm_name(name) not in _REAL_WEIGHTS:
        raise RazorError(
            f"no real weights of {name} at hand, only of {', '.join(_REAL_WEIGHTS)}; "
            "leave --weights out, or give a path"
        )
    source = _REAL_WEIGHTS[_timm_name(name)]
    return source if source == LITE0 else str(asset(source))


def normalisation(name: str) -> dict[str, Any]:
    """Mean and std that the weights of a network expect; ImageNet's where timm knows of none."""
    config = timm.get_pretrained_cfg(_timm_name(name))
    if config is None:
        return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return {"mean": config.mean, "std": config.std}


def razored(dense: nn.Module, **chosen: Any) -> nn.Module:
    """A converted copy of ``dense``.

    Args:
        dense: stays as it is.
        **chosen: arguments of :func:`razorlight.razor_`.
    """
    model = copy.deepcopy(dense)
    razor_(model, **chosen)
    return model


def checkpointed(dense: nn.Module) -> nn.Module:
    """A copy of ``dense`` with its blocks checkpointed.

    timm knows the blocks of its networks, and goes stage by stage where one is an encoder. Of smp's
    own encoders they are the members of each stage, of its decoders the members of their lists,
    such as Unet's levels.

    Raises:
        AssertionError: from timm, where it cannot.
    """
    model: Any = copy.deepcopy(dense)
    if hasattr(model, "set_grad_checkpointing"):
        model.set_grad_checkpointing()
        return model
    if hasattr(model.encoder, "model"):
        model.encoder.model.set_grad_checkpointing()
        containers: list[nn.Module] = []
    else:
        containers = [m for m in model.encoder.children() if isinstance(m, nn.Sequential)]
    containers += [m for m in model.decoder.modules() if isinstance(m, nn.ModuleList)]
    members = {member for container in containers for member in container.children()}
    blocks = {member for member in members if [*member.children()]}  # a lone layer is none
    apply_activation_checkpointing(model, check_fn=lambda layer: layer in blocks)
    return model


def dense_name(name: str) -> str:
    """The name in the dense network of a parameter of a :func:`checkpointed` one."""
    return name.replace(_CHECKPOINT_PREFIX, "")


def fresh(batch: Batch) -> Batch:
    """The batch with a copy of its images: a record of an earlier step may lie on themselves."""
    images, targets = batch
    return images.clone(), targets


class Trainee:
    """A network and its optimizer.

    Args:
        model: in training mode, on its device.
        optimizer: of its parameters.
        precision: ``fp32``, or ``bf16`` for autocast.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.precision = precision
        self.criterion = nn.CrossEntropyLoss(ignore_index=IGNORE_INDEX)
        if is_converted(model):
            razor_(self.criterion)
        self.device = next(model.parameters()).device

    def loss(self, batch: Batch, seed: int = 0) -> Tensor:
        """Cross-entropy of ``batch``; dropout and its like draw from ``seed``, for all alike."""
        images, targets = batch
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                loss: Tensor = self.criterion(self.model(images), targets)
                return loss

    def step(self, batch: Batch, seed: int = 0) -> float:
        """Forward, backward and update.

        Returns:
            The seconds that it took.
        """
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.backward(self.loss(batch, seed))
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def backward(self, loss: Tensor) -> None:
        """Run backward from ``loss``."""
        loss.backward()

    def stored_per_sample(self, batch: Batch) -> float:
        """MiB alive between forward and backward, beside parameters, buffers and inputs."""
        batch = fresh(batch)
        memory = measure_step(self.model, lambda: self.loss(batch), batch)
        return memory.stored / MIB / len(batch[0])


class AssetImages(RazorDataModule, ABC):
    """Images of the assets, resized, and flipped at random to train.

    Args:
        size: height and width that they are resized to, in pixels.
        train_images: train on so many of the training images, at random but always the same; the
            rest are judged beside those to validate.
        **kwargs: see :class:`RazorDataModule`.
    """

    def __init__(
        self, size: tuple[int, int], train_images: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_workers=0, **kwargs)
        self.size = size
        self.train_images = train_images

    @abstractmethod
    def read(self, split: Split) -> Samples:
        """All samples of a split."""

    @override
    def samples(self, split: Split) -> Samples:
        if self.train_images is None:
            return self.read(split)
        images: Any = self.read("train")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
        if split == "train":
            return Subset(images, order[: self.train_images])
        held_out: Any = self.read(split)
        return ConcatDataset([held_out, Subset(images, order[self.train_images :])])

    @override
    def pipelines(self) -> Pipelines:
        # masks are resized by their nearest pixels whatever is said here
        resize = v2.Resize(self.size, v2.InterpolationMode.BICUBIC)
        train = [resize, v2.RandomHorizontalFlip()]
        return Pipelines(
            pipeline(train, self.mean, self.std), pipeline([resize], self.mean, self.std)
        )

    @override
    def show_target(self, target: Tensor) -> Tensor:
        return colour_labels(target, voc_palette(256))


class Cifar10Subset(AssetImages):
    """600 training images of each class of CIFAR-10, and 100 of its test images to validate."""

    class_names = CIFAR10_CLASSES

    @override
    def read(self, split: Split) -> Samples:
        part = "train" if split == "train" else "test"
        with np.load(asset("cifar10_subset.npz")) as arrays:
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        return list(zip(images, labels.tolist(), strict=True))


class CamVidImages(AssetImages):
    """11 classes of a street, pixel by pixel, in images of 320 x 240."""

    class_names = CAMVID_CLASSES

    @override
    def read(self, split: Split) -> Samples:
        return SegmentationFolder(str(asset("camvid")), [*CAMVID_CLASSES]).samples(split)


def asset(name: str) -> Path:
    """Where an asset is.

    Raises:
        RazorError: if it is absent.
    """
    path = ASSETS / name
    if not path.exists():
        raise RazorError(
            f"no {name} in {ASSETS}; set RAZORLIGHT_ASSETS to the folder of the assets"
        )
    return path
