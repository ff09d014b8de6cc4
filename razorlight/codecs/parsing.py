"""How codecs are written in YAML: a name, or a name with arguments."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from razorlight.codecs.base import Codec
from razorlight.codecs.dense import Dense
from razorlight.codecs.mask import Mask
from razorlight.codecs.slope import Slope
from razorlight.codecs.topk import TopK
from razorlight.codecs.uniform import Uniform
from razorlight.errors import RazorError
from razorlight.fields import check_types

CODECS: dict[str, type[Codec]] = {
    "dense": Dense,
    "mask": Mask,
    "slope": Slope,
    "topk": TopK,
    "uniform": Uniform,
}


def parse_codec(spec: Codec | str | Mapping[str, Any]) -> Codec:
    """Make a codec from its description in YAML.

    Args:
        spec: a codec, its name (``"dense"``), or a mapping of its name and arguments
            (``{"codec": "topk", "sparsity": 0.7, "scope": "block"}``).

    Raises:
        RazorError: for an unknown name or argument, or an argument of another type.

    Example:
        >>> parse_codec({"codec": "topk", "sparsity": 0.7})
        TopK(sparsity=0.7, scope='sample', values='fp16')
    """
    if isinstance(spec, Codec):
        return spec
    fields = dict(spec) if isinstance(spec, Mapping) else {"codec": spec}
    name = str(fields.pop("codec", None)).lower()
    if name not in CODECS:
        raise RazorError(
            f"unknown codec in {spec!r}: give a name out of {', '.join(CODECS)}, "
            "or a mapping like {codec: topk, sparsity: 0.9}"
        )
    check_types(CODECS[name], fields, f"codec {name}: ")
    try:
        return CODECS[name](**fields)
    except TypeError as error:
        raise RazorError(f"codec {name}: {error}") from None


def codec_fields(codec: Codec) -> dict[str, Any]:
    """A mapping of plain values from which :func:`parse_codec` makes ``codec`` again."""
    return {"codec": type(codec).__name__.lower(), **asdict(codec)}
