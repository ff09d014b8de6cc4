"""A checkpoint that does not fit: torch's error of thousands of words, in a few lines."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

_KINDS = {
    "of this network are missing": r"Missing key\(s\) in state_dict: (.*?)\. *$",
    "of the checkpoint are unknown": r"Unexpected key\(s\) in state_dict: (.*?)\. *$",
}
_SHAPE = (
    r"size mismatch for (\S+): copying a param with shape torch.Size\((.*?)\) from checkpoint, "
    r"the shape in current model is torch.Size\((.*?)\)"
)


def explain_mismatch(error: BaseException, words: Sequence[str]) -> str | None:
    """Why a checkpoint does not fit, and the way out; None for any other error.

    Args:
        error: an error of torch.
        words: the arguments of the command line.
    """
    message = str(error).strip()
    if message.startswith("loaded state dict ") or (_given(words) and _of_optimizer(error)):
        return (
            "ckpt_path: the checkpoint was trained by another optimizer, or with other parameters "
            f"frozen ({message}); train on with {_run_of(words)}, or begin anew from its weights "
            "with --model.weights FILE"
        )
    if not message.startswith("Error(s) in loading state_dict"):
        return None
    parts = []
    for what, pattern in _KINDS.items():
        if found := re.search(pattern, message, re.MULTILINE):
            names = re.findall(r'"([^"]+)"', found[1])
            parts.append(f"{len(names)} names {what} ({_first(names)})")
    if shapes := re.findall(_SHAPE, message):
        name, there, here = shapes[0]
        parts.append(f"{len(shapes)} shapes differ ({name} has {there} there, {here} here)")
    return (
        f"ckpt_path: the checkpoint is of another network: {', '.join(parts)}; take "
        f"{_run_of(words)}, or leave ckpt_path out and give the file as --model.weights, which "
        "says what fits"
    )


def _of_optimizer(error: BaseException) -> bool:
    """Whether an optimizer of torch looked for a setting in vain."""
    places = traceback.extract_tb(error.__traceback__)
    return isinstance(error, KeyError) and "optim" in Path(places[-1].filename).parts


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _given(words: Sequence[str]) -> str | None:
    """The checkpoint that the arguments name."""
    given = re.search(r"--ckpt_path[\s=](\S+)", " ".join(words))
    return given and given[1]


def _run_of(words: Sequence[str]) -> str:
    """The configuration beside the checkpoint that the arguments name."""
    given = _given(words)
    copies = [folder / "config.yaml" for folder in Path(given).parents] if given else []
    copy = next((path for path in copies[:2] if path.is_file()), None)
    return f"--config {copy}" if copy else "the config.yaml of the checkpoint's own run"
