"""``--help`` at length and ``--model.help CLASS``, read from sources, so that torch can wait."""

import ast
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from razorlight.cli import sources
from razorlight.cli.first_look import key_class
from razorlight.cli.help import CALLBACK_KEYS, CONFIG_HELP, DRY_RUNS, keys_help, usage
from razorlight.cli.signatures import arguments_of, own_classes, sections

_COMMON = {
    "-c, --config": CONFIG_HELP,
    "--ckpt_path": "a checkpoint, or `last`, or `best`",
    "--seed_everything": "seed of all random numbers (default: 0); true for a new one each run",
    "--print_config": "print the configuration that all other arguments make, and stop",
}


def show(command: str, words: Sequence[str]) -> bool:
    """Print the help that the arguments ask for.

    Args:
        command: a command that reads the options of ``fit``.
        words: its arguments.

    Returns:
        Whether help was asked for that is known here. That of classes of others is not.
    """
    if "--help" in words:
        _print(_of_command(command))
        return True
    for place, word in enumerate(words):
        option, equals, named = word.partition("=")
        if option.startswith("--") and option.endswith(".help"):
            key = option[2:].removesuffix(".help")
            if not equals:
                named = next((each for each in words[place + 1 :][:1] if each[0] != "-"), "")
            kind = named.rpartition(".")[2] or (key_class(key) or "" if key in sections() else "")
            if kind in sections().get(key, ()):
                _print(_of_class(key, kind))
                return True
    return False


def _of_command(command: str) -> Iterator[str]:
    yield f"usage: {usage(command)}\n"
    yield from _wrapped(keys_help(command), 0)
    yield "\noptions:"
    for option, text in {**_COMMON, **_own_options(command)}.items():
        yield from _entry(option, text)
    for key, (name, does, _) in CALLBACK_KEYS.items():
        yield ""
        yield from _wrapped(f"{key}: {does}. true, false, or the arguments of {name}:", 0)
        yield from _arguments(key, name)
    for key in ("model", "data"):
        yield ""
        yield from _wrapped(
            f"{key}: a class; --{key}.help NAME has the arguments of one of these:", 0
        )
        yield from _wrapped(", ".join(sections()[key]), 2)
    yield "\ntrainer: the arguments of Lightning's Trainer:"
    yield from _arguments("trainer", "Trainer")


def _of_class(key: str, name: str) -> Iterator[str]:
    kinds = own_classes()
    if name in kinds:
        front = sources.package("razorlight") / kinds[name] / "__init__.py"
        yield from _wrapped(f"{name}: {sources.summary(sources.imported(front)[name])}.", 0)
        yield ""
    yield from _arguments(key, name)


def _arguments(key: str, name: str) -> Iterator[str]:
    for argument, (type, default, text) in arguments_of(name).items():
        # the numbers of classes and targets come from the data
        if key != "model" or argument not in ("num_classes", "num_targets"):
            given = f" = {default}" if default else ""
            yield from _entry(f"--{key}.{argument}: {type}{given}", text)


def _own_options(command: str) -> dict[str, str]:
    """The options that a command that trains nothing has beside those of ``fit``."""
    if command not in DRY_RUNS:
        return {}
    file = sources.package("razorlight") / "cli" / f"{command}.py"
    options = sources.table(sources.assigned(file, "OPTIONS"))
    return {name: _literal(sources.table(node).get("help")) for name, node in options.items()}


def _literal(node: ast.expr | None) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _entry(head: str, text: str) -> Iterator[str]:
    yield from _wrapped(head, 2, 6)
    yield from _wrapped(text, 8)


def _wrapped(text: str, indent: int, later: int | None = None) -> list[str]:
    width = min(80, shutil.get_terminal_size().columns)
    after = " " * (indent if later is None else later)
    return textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=after)


def _print(lines: Iterator[str]) -> None:
    print("\n".join(lines))
