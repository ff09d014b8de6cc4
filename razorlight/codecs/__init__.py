"""Codecs: how one tensor is stored between forward and backward."""

from razorlight.codecs.base import Codec, scale_and_shift
from razorlight.codecs.dense import Dense
from razorlight.codecs.mask import Mask
from razorlight.codecs.operators import decode, encode, encode_in_chunks
from razorlight.codecs.parsing import CODECS, codec_fields, parse_codec
from razorlight.codecs.slope import Slope
from razorlight.codecs.topk import TopK
from razorlight.codecs.uniform import Uniform

__all__ = [
    "CODECS",
    "Codec",
    "Dense",
    "Mask",
    "Slope",
    "TopK",
    "Uniform",
    "codec_fields",
    "decode",
    "encode",
    "encode_in_chunks",
    "parse_codec",
    "scale_and_shift",
]
