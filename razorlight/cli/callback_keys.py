"""The keys ``razor``, ``profiler`` and ``writer``: callbacks that a run has unless they are off.

Each key is ``true``, ``false`` or the arguments of its callback, as in ``razor: {recipe: compact}``
and ``--razor.recipe compact``.
"""

from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LightningArgumentParser

from razorlight import callbacks
from razorlight.cli.help import CALLBACK_KEYS
from razorlight.errors import RazorError
from razorlight.tasks import FineTuningTask


def add_keys(parser: LightningArgumentParser) -> None:
    """Let a parser read the keys."""
    for key, (name, does, _) in CALLBACK_KEYS.items():
        kind = getattr(callbacks, name)
        # any module but razorlight's may return predictions that nothing can be made of
        default, unknown = (None, kind | bool | None) if key == "writer" else (True, kind | bool)
        help = f"{does}: true, false, or the arguments of {name} (--{key}.help)"
        parser.add_argument(f"--{key}", type=unknown, default=default, help=help)


def callbacks_of_run(settings: Namespace, module: LightningModule) -> list[Callback]:
    """The callbacks that a configuration asks for: those of the keys, then those of the list.

    A key that is ``true`` gives way to a callback in the list. One that is ``null`` is ``true`` for
    the tasks of razorlight.

    Args:
        settings: the values of all options, objects made.
        module: the module of the run.

    Raises:
        RazorError: if a callback is given twice.
    """
    listed = _as_list(settings["trainer"]["callbacks"])
    keyed: list[Callback] = []
    for key, (name, _, example) in CALLBACK_KEYS.items():
        kind, value = getattr(callbacks, name), settings[key]
        if value is None:
            value = isinstance(module, FineTuningTask)
        among = [each for each in listed if isinstance(each, kind)]
        if len(among) + (not isinstance(value, bool)) > 1:
            raise RazorError(
                f"{key}: {name} is given twice; leave it out of trainer.callbacks, and give its "
                f"arguments by this key, such as --{key}.{example}"
            )
        if not value:
            listed = [each for each in listed if each not in among]
        elif not among:
            keyed.append(kind() if value is True else value)
    return [*keyed, *listed]


def _as_list(given: Any) -> list[Callback]:
    return [*given] if isinstance(given, list) else [given] if given else []
