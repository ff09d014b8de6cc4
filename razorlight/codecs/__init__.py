"""Codecs: how one tensor is stored between forward and backward."""

from razorlight.codecs.base import Codec, scale_and_shift
from razorlight.codecs.dense import Dense
from razorlight.codecs.elementwise import Elementwise, Name, Step
from razorlight.codecs.mask import Mask
from razorlight.codecs.operators import (
    codec_of,
    decode,
    decode_then,
    encode,
    encode_in_chunks,
    has_kernels,
    spec_of,
)
from razorlight.codecs.parsing import CODECS, codec_fields, parse_codec
from razorlight.codecs.slope import Slope
from razorlight.codecs.topk import TopK
from razorlight.codecs.uniform import Uniform

__all__ = [
    "CODECS",
    "Codec",
    "Dense",
    "Elementwise",
    "Mask",
    "Name",
    "Slope",
    "Step",
    "TopK",
    "Uniform",
    "codec_fields",
    "codec_of",
    "decode",
    "decode_then",
    "encode",
    "encode_in_chunks",
    "has_kernels",
    "parse_codec",
    "scale_and_shift",
    "spec_of",
]
