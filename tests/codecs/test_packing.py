import math

import pytest
import torch

from razorlight.codecs.packing import (
    PLANES,
    pack,
    pack_bits,
    packed_bits,
    unpack,
    unpack_bits,
)

SHAPES = [(16,), (3, 7), (2, 5, 24), (0, 5), (5, 0), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", PLANES)
def test_codes_come_back(bits, shape):
    codes = torch.arange(math.prod(shape)).mul(7).remainder(2**bits).to(torch.uint8).view(shape)
    packed = pack(codes, bits)
    assert sum(t.nbytes * 8 for t in packed) == math.prod(shape[:-1]) * packed_bits(shape[-1], bits)
    assert torch.equal(unpack(packed, bits, shape), codes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_come_back(shape):
    mask = torch.arange(math.prod(shape)).remainder(3).bool().view(shape)
    packed = pack_bits(mask)
    assert packed.nbytes == math.prod(shape[:-1]) * -(-shape[-1] // 8)
    assert torch.equal(unpack_bits(packed, shape), mask)
