"""torch's functions that layers of one's own may name, in every setting, against torch's."""

import pytest
import torch
import torch.nn.functional as F
from cases import ALL_RECIPES, LOSSLESS, assert_gradients, compare, leaf, settings
from hypothesis import given
from hypothesis import strategies as st
from kinds import shapes
from torch import nn

from razorlight import razor_
from razorlight.layers import register

from razorlight.layers import Role


class Call(nn.Module):
    """A function of tensors as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)
