"""``razorlight export``: the network of a checkpoint, as files that need no razorlight."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from razorlight.checkpoints import read_checkpoint
from razorlight.cli.exported import METADATA, NET
from razorlight.cli.model_card import ModelCard, card_of
from razorlight.errors import RazorError
from razorlight.files import replaced


def export_network(checkpoint: Path, out: Path, onnx: bool = False) -> Iterator[str]:
    """Write the network of a checkpoint as plain tensors, which timm or smp load strictly.

    The tensors are those of ``state_dict``, which ``razorlight test`` scores too. They are averages
    if training averaged weights (Lightning's ``WeightAveraging``, ``EMAWeightAveraging``). A page
    beside them, with the suffix ``.md``, says what the network is. The tensors' file says the same
    as JSON, in its metadata by the key ``razorlight``.

    Args:
        checkpoint: checkpoint of one of razorlight's tasks. No code in it is run.
        out: path of the new file, in the safetensors format.
        onnx: Whether to write the dense network as ONNX too, beside it, and to compare the outputs
            of onnxruntime with those of torch.

    Yields:
        One line on each file that was written.

    Raises:
        RazorError: if there is no such file, it is no checkpoint of a task, or a file exists; for
            ONNX if its packages are missing, the run's ``config.yaml`` is not there, or outputs
            differ.
    """
    card_file, onnx_file = out.with_suffix(".md"), out.with_suffix(".onnx")
    for file in (out, card_file, *([onnx_file] if onnx else [])):
        if file.exists():
            raise RazorError(f"export: {file} exists already; give another --out, or move it away")
    content = _read(checkpoint)
    state, card = _network(checkpoint, content), card_of(checkpoint, content)
    with replaced(out) as new:  # safetensors' own function writes a file that only its owner reads
        new.write_bytes(save(state, metadata={"format": "pt", METADATA: card.json()}))
    size = sum(tensor.nbytes for tensor in state.values()) / 2**20
    yield f"{out}: {len(state)} tensors, {size:.1f} MiB"
    with replaced(card_file) as new:
        new.write_text(card.markdown(out.stem))
    yield f"{card_file}: what the network is"
    if onnx:
        deviation = _write_onnx(_made(checkpoint, card, state), card, onnx_file)
        yield f"{onnx_file}: outputs of onnxruntime differ from torch's by {deviation:.1e} at most"


def _network(checkpoint: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    state = content.get("state_dict", {})
    net = {name.removeprefix(NET): t for name, t in state.items() if name.startswith(NET)}
    if not net:
        raise RazorError(
            f"export: {checkpoint} holds no network of a task (names that begin with {NET!r}); "
            "give a checkpoint that `razorlight fit` wrote"
        )
    # safetensors refuses tensors that share memory or are not contiguous
    return {name: t.clone(memory_format=torch.contiguous_format) for name, t in net.items()}


def _read(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        raise RazorError(f"export: there is no file {checkpoint}")
    content = read_checkpoint(checkpoint, "export")
    return content if isinstance(content, dict) else {}


def _made(checkpoint: Path, card: ModelCard, state: dict[str, Tensor]) -> nn.Module:
    """The dense network, with its weights."""
    from razorlight.tasks.networks import NONE, smp_network, timm_network

    arguments, classes = dict(card.network), len(card.class_names) or len(card.targets) or 1
    model_args = arguments.pop("model_args", {})
    if "model" in arguments:
        net = timm_network(arguments["model"], classes, NONE, model_args, card.channels)
    elif "architecture" in arguments:
        names = arguments["architecture"], arguments["encoder"]
        net = smp_network(*names, classes, NONE, model_args, card.channels)
    else:
        raise RazorError(
            f"export: no config.yaml of the run lies beside {checkpoint}, so that nothing says "
            "what network it is; leave --onnx out, or give the checkpoint in the run's folder"
        )
    net.load_state_dict({name: t for name, t in state.items() if name in net.state_dict()})
    return net.eval()


def _write_onnx(net: nn.Module, card: ModelCard, path: Path) -> float:
    """Write the graph, and return the largest deviation of its outputs, relative to the largest."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ImportError as error:
        raise RazorError(
            f'export: --onnx needs the package {error.name}; pip install "razorlight[onnx]"'
        ) from error
    size = card.image_size or 224
    sides = (size, size) if isinstance(size, int) else tuple(size)
    images = torch.randn(2, card.channels, *sides, generator=torch.Generator().manual_seed(0))
    batch = ({0: torch.export.Dim("batch")},)
    with replaced(path) as new:
        torch.onnx.export(
            net,
            (images,),
            new,
            dynamo=True,
            dynamic_shapes=batch,
            input_names=["images"],
            output_names=["outputs"],
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(str(new))
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = net(images)
        deviation = float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max())
        if not deviation <= _TOLERANCE:
            raise RazorError(
                f"export: outputs of the ONNX graph differ from torch's by {deviation:.1e} of the "
                "largest, so it is not kept; leave --onnx out"
            )
    return deviation


_TOLERANCE = 1e-3
