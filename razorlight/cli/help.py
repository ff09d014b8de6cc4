"""The words that help is made of."""

TRAINING = {
    "fit": "train a network, validating after each epoch",
    "validate": "score it on the validation split",
    "test": "score it on the test split",
    "predict": "write its predictions",
}
"""The commands that Lightning's command line runs, and what each does."""

DRY_RUNS = {
    "estimate": "say what memory a step of training would need, without running it",
    "explain": "say how each layer would store, what it stores, and why",
}
"""The commands that read the options of `fit`, and train nothing."""

PARSED_BY_LIGHTNING = {**TRAINING, **DRY_RUNS}
"""All commands that read these options."""

CONFIG_HELP = "a YAML file, or the name of a shipped one; a later file overrides earlier ones"

EXAMPLES = """\
examples:
  razorlight fit --config quickstart.yaml
  razorlight fit --config seg_ade.yaml --trainer.max_epochs 10 --data.batch_size 4
  razorlight estimate --config seg_ade.yaml --memory 8GiB
  razorlight list models 'mobilenet*'
"""


def keys_help(command: str) -> str:
    """How to find the options of a command that trains."""
    return (
        "Every key of a configuration is an option too, such as --trainer.max_epochs 10. "
        f"All keys: razorlight {command} --help (at length; -h is short). Those of a class: "
        f"razorlight {command} --model.help SegmentationTask, --data.help ADE20K, "
        "--trainer.callbacks.help BackRazor."
    )


def usage(command: str) -> str:
    """The usage of a command that trains; argparse's would name each of some hundred options."""
    return f"razorlight {command} --config NAME.yaml [--KEY VALUE ...]"
