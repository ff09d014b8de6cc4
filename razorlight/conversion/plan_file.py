"""Plans as YAML files.

A file has one line for each layer: its class, and either how it stores or why it stays dense::

    layers:
      conv1: {layer: Conv2d, dense: 'first layer: its input is the batch'}
      bn1: {layer: BatchNorm2d, codec: {codec: uniform, bits: 4}, shares: true}
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from razorlight.codecs import CODECS, Codec, codec_fields, parse_codec
from razorlight.conversion.plan import Line, Plan, Status
from razorlight.errors import RazorError
from razorlight.fields import as_number, check_types
from razorlight.files import replaced
from razorlight.planning import LayerPlan

_HEAD = """\
# What each layer becomes: `codec` says how it stores, `dense` or `near_miss` why it stays dense.
# Edit it, and give it back: BackRazor(plan="plan.yaml"), or razor_(model, plan="plan.yaml").
layers:
"""
_STATUS: dict[str, Status] = {"dense": "skipped", "near_miss": "near miss"}
_LINE = ("layer", "codec", "runs_again", *_STATUS)
_OPTIONS = {field.name: field.default for field in fields(LayerPlan) if field.name != "codec"}


def write_plan(plan: Plan, path: Path) -> None:
    """Write ``plan`` to ``path``, one layer a line.

    Raises:
        RazorError: for a codec of your own, which has no name in YAML.
    """
    lines = [f"  {_key(line.name)}: {_as_yaml(_plain(line))}\n" for line in plan.lines]
    with replaced(path) as new:
        new.write_text(_HEAD + "".join(lines), encoding="utf-8")


def _key(name: str) -> str:
    is_plain = re.fullmatch(r"[A-Za-z_][\w.]*", name) and yaml.safe_load(name) == name
    return name if is_plain else json.dumps(name)  # a string of JSON is one of YAML


def _as_yaml(mapping: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(mapping, default_flow_style=True, sort_keys=False, width=10**6)
    return text.strip()


def _plain(line: Line) -> dict[str, Any]:
    if line.plan is None:
        key = next(key for key, status in _STATUS.items() if status == line.status)
        return {"layer": line.layer, key: line.detail}
    chosen = {name: getattr(line.plan, name) for name in _OPTIONS}
    return {
        "layer": line.layer,
        "codec": _short(line.plan.codec),
        **({"runs_again": True} if line.runs_again else {}),
        **{name: value for name, value in chosen.items() if value != _OPTIONS[name]},
    }


def _short(codec: Codec) -> str | dict[str, Any]:
    """The codec as YAML: its name, or its name with the fields that differ from the defaults."""
    values = codec_fields(codec)
    if CODECS.get(values["codec"]) is not type(codec):
        raise RazorError(f"a plan file takes codecs with a name in YAML, and {codec} has none")
    defaults = {field.name: field.default for field in fields(codec)}
    changed = {
        name: v for name, v in values.items() if name in ("codec", "bits") or v != defaults[name]
    }
    return changed if len(changed) > 1 else str(values["codec"])


def read_plan(path: Path) -> Plan:
    """Read a plan that :func:`write_plan` wrote, edited by hand or not.

    Raises:
        RazorError: if there is no such file, or the file holds no plan.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise RazorError(f"no plan {path.absolute()}: give the path of a plan.yaml") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RazorError(f"{path} cannot be read as a plan: {reason}") from None
    layers = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(layers, dict):
        raise RazorError(f"{path} is no plan: it has no mapping `layers`")
    if others := content.keys() - {"layers"}:
        names = ", ".join(sorted(map(str, others)))
        raise RazorError(f"{path} has {names} beside `layers`, which is all that a plan has")
    return Plan(tuple(_read_line(path, str(name), given) for name, given in layers.items()))


def _read_line(path: Path, name: str, given: Any) -> Line:
    try:
        return _line(name, given)
    except RazorError as error:
        raise RazorError(f"{path}, layer {name or '(root)'}: {error}") from None


def _line(name: str, given: Any) -> Line:
    if not isinstance(given, dict) or not isinstance(given.get("layer"), str):
        raise RazorError("give a mapping that names the class as `layer`")
    if unknown := given.keys() - {*_LINE, *_OPTIONS}:
        known = ", ".join([*_LINE, *_OPTIONS])
        raise RazorError(f"unknown {', '.join(sorted(map(str, unknown)))}; a layer has {known}")
    chosen = [key for key in ("codec", *_STATUS) if key in given]
    if len(chosen) != 1:
        raise RazorError(f"give exactly one of codec, {', '.join(_STATUS)}")
    if "codec" not in given:
        return Line(name, given["layer"], _STATUS[chosen[0]], str(given[chosen[0]]))
    options = {option: as_number(given[option]) for option in _OPTIONS if option in given}
    check_types(LayerPlan, options)
    check_types(Line, given)
    plan = LayerPlan(parse_codec(given["codec"]), **options)
    again = given.get("runs_again", False)
    return Line(name, given["layer"], "converted", str(plan), plan, again)


class _Loader(yaml.SafeLoader):
    """Reads YAML, and refuses a key that a mapping has twice."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(str(key.value) for key, _ in node.value)
        for key, count in counts.items():
            if count > 1:
                raise ValueError(f"{key} is given {count} times")
        return super().construct_mapping(node, deep)
