"""Networks of timm and segmentation_models_pytorch by name, with their first weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from inspect import signature
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import nn

from razorlight.errors import RazorError
from razorlight.tasks.hub import hub_or_cache
from razorlight.tasks.weights import load_weights, read_weights, strip_prefix

NONE = "none"
PRETRAINED = "pretrained"
RGB = 3
"""The channels that the libraries' networks have by default."""

TIMM_ENCODER = "tu-"
"""What smp puts before timm's names."""


def timm_network(
    model: str, num_classes: int, weights: str, model_args: dict[str, Any], in_channels: int = 3
) -> nn.Module:
    """Make a network of timm that classifies.

    Args:
        model: name of the network, with or without a tag of its weights.
        num_classes: number of outputs of the head.
        weights: ``none``, ``pretrained``, or a source of :func:`read_weights`. A head with another
            number of classes stays as initialised.
        model_args: further arguments of ``timm.create_model``.
        in_channels: number of channels of the images. Weights for three are adapted to others.

    Raises:
        RazorError: for an unknown model or argument, or weights that cannot be had or do not fit.
    """
    pretrained = weights == PRETRAINED
    channels = {} if in_channels == RGB else {"in_chans": in_channels}
    _check_timm_name("model", model, "", pretrained)
    with _creation_errors(model, pretrained):
        net: Any = timm.create_model(
            model, pretrained=pretrained, num_classes=num_classes, **model_args | channels
        )
    if weights not in (NONE, PRETRAINED):
        state = strip_prefix(read_weights(weights), net)
        load_weights(net, state, weights, heads=_heads(net.pretrained_cfg))
    return net


def smp_network(
    architecture: str,
    encoder: str,
    num_classes: int,
    weights: str,
    model_args: dict[str, Any],
    in_channels: int = 3,
) -> nn.Module:
    """Make a network of segmentation_models_pytorch.

    Args:
        architecture: name of its class, in any case, such as ``Unet``.
        encoder: one of smp's, or one of timm's as ``tu-<name>``.
        num_classes: number of channels of the logits.
        weights: ``none``; ``pretrained`` for the encoder's ImageNet weights; or a source of
            :func:`read_weights`, either of the whole network (the head is left as initialised if
            its number of classes differs) or of the encoder alone.
        model_args: further arguments of ``smp.create_model``.
        in_channels: number of channels of the images. Weights for three are adapted to others.

    Raises:
        RazorError: for an unknown name or argument, or weights that cannot be had or do not fit.
    """
    pretrained = weights == PRETRAINED
    channels = {} if in_channels == RGB else {"in_channels": in_channels}
    known = [kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()]
    if architecture.lower() not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise _unknown("architecture", architecture, known)
    _check_encoder(encoder, pretrained)
    _check_model_args(architecture, encoder, model_args)
    # smp's own encoders name their sets of weights, timm's have one set each
    initial = (encoder.startswith(TIMM_ENCODER) or "imagenet") if pretrained else None
    with _creation_errors(f"{architecture} with {encoder}", pretrained):
        net = smp.create_model(
            architecture,
            encoder,
            encoder_weights=initial,
            classes=num_classes,
            **model_args | channels,
        )
    if weights not in (NONE, PRETRAINED):
        _load_segmentation(net, weights)
    return net


def _heads(config: dict[str, Any]) -> list[str]:
    """The names of a network's classifiers, by timm's configuration: one, several or none."""
    heads = config["classifier"] or ()
    return [heads] if isinstance(heads, str) else list(heads)


def _load_segmentation(net: Any, weights: str) -> None:
    given = read_weights(weights)
    state = strip_prefix(given, net)
    if any(name.startswith("decoder.") for name in state.keys() & net.state_dict()):
        load_weights(net, state, weights, heads=["segmentation_head", "classification_head"])
        return
    # timm's encoders are wrapped in smp's own
    encoder = getattr(net.encoder, "model", net.encoder)
    state = strip_prefix(given, encoder)
    # what follows a classifier's last stage (its head) has no place in an encoder
    stages = {name.split(".")[0] for name in encoder.state_dict()}
    load_weights(encoder, {n: t for n, t in state.items() if n.split(".")[0] in stages}, weights)


def _check_encoder(encoder: str, pretrained: bool) -> None:
    if encoder.startswith(TIMM_ENCODER):
        _check_timm_name("encoder", encoder, TIMM_ENCODER, pretrained)
    elif encoder not in smp.encoders.encoders:
        raise _unknown("encoder", encoder, smp.encoders.get_encoder_names())
    elif pretrained and "imagenet" not in smp.encoders.encoders[encoder]["pretrained_settings"]:
        raise RazorError(f"encoder {encoder} has no ImageNet weights; take weights: none or a path")


def _check_model_args(architecture: str, encoder: str, model_args: dict[str, Any]) -> None:
    # smp passes unknown arguments to the encoder: timm's refuse them, smp's own ignore them
    known = signature(smp.MODEL_ARCHITECTURES_MAPPING[architecture.lower()]).parameters
    unknown = [name for name in model_args if name not in known]
    if unknown and not encoder.startswith(TIMM_ENCODER):
        raise _unknown("model_args", unknown[0], known)


def _check_timm_name(what: str, name: str, prefix: str, pretrained: bool) -> None:
    bare = name.removeprefix(prefix)
    if not timm.is_model(bare):
        raise _unknown(what, name, [prefix + model for model in timm.list_models()])
    if pretrained and not timm.models.is_model_pretrained(bare):
        raise RazorError(f"{what} {name} has no pretrained weights; take weights: none or a path")


def _unknown(what: str, name: str, known: Iterable[str]) -> RazorError:
    near = get_close_matches(name, known, n=3, cutoff=0)
    return RazorError(f"{what}: there is no {name!r}; the nearest are {', '.join(near)}")


@contextmanager
def _creation_errors(network: str, pretrained: bool) -> Iterator[None]:
    """Name the cause where a library refuses an argument or fails to download."""
    online = True
    try:
        with hub_or_cache() if pretrained else nullcontext(True) as online:
            yield
    except TypeError as error:
        raise RazorError(f"model_args: {network} refuses them: {error}") from error
    except OSError as error:
        reason = str(error) if online else "no network, and they are not in the cache"
        raise RazorError(
            f"weights: cannot download those of {network} ({reason}); connect, or give the path "
            "of a .safetensors or .pth file"
        ) from error
