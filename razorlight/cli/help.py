"""The words that help is made of."""

from typing import NamedTuple

TRAINING = {
    "fit": "train a network, validating after each epoch",
    "validate": "score it on the validation split",
    "test": "score it on the test split",
    "predict": "write its predictions",
}
"""The commands that Lightning's command line runs, and what each does."""

DRY_RUNS = {
    "check": "read all data of a run once, and say what is wrong with them",
    "preview": "draw training images of a run, augmented, as a picture",
    "estimate": "say what memory a step of training would need, without running it",
    "compare": "train some steps in each way, and say which to take",
    "explain": "say how each layer would store, what it stores, and why",
}
"""The commands that read the options of `fit`, and train nothing."""

PARSED_BY_LIGHTNING = {**TRAINING, **DRY_RUNS}
"""All commands that read these options."""


class CallbackKey(NamedTuple):
    """A key of configurations that stands for a callback.

    Attributes:
        callback: the name of the class.
        does: what it does.
        example: one of its arguments, with a value.
    """

    callback: str
    does: str
    example: str


CALLBACK_KEYS = {
    "razor": CallbackKey("BackRazor", "lower the memory of training", "recipe compact"),
    "profiler": CallbackKey("MemoryProfiler", "measure the memory of the run", "steps 4"),
    "writer": CallbackKey("PredictionWriter", "write predictions and pictures", "count 8"),
}
"""The keys of the callbacks that every run has, unless a key is false."""

CONFIG_HELP = "a YAML file, or the name of a shipped one; a later file overrides earlier ones"

EXAMPLES = """\
examples:
  razorlight fit --config quickstart.yaml
  razorlight fit --config seg_ade.yaml --razor.recipe compact --data.batch_size 4
  razorlight estimate --config seg_ade.yaml --memory 8GiB
  razorlight list models 'mobilenet*'
"""


def keys_help(command: str) -> str:
    """How to find the options of a command that trains."""
    return (
        "Every key of a configuration is an option too, such as --trainer.max_epochs 10. "
        f"All keys: razorlight {command} --help (at length; -h is short). Those of a class: "
        f"razorlight {command} --model.help SegmentationTask, --data.help ADE20K, --razor.help."
    )


def usage(command: str) -> str:
    """The usage of a command that trains; argparse's would name each of some hundred options."""
    return f"razorlight {command} --config NAME.yaml [--KEY VALUE ...]"
