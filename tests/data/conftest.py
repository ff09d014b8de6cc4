"""Writers of small files in the data sets' own formats."""

from collections.abc import Callable
from pathlib import Path

import made_dense
import pytest


@pytest.fixture
def write_jpeg() -> Callable[..., Path]:
    return made_dense.write_jpeg


@pytest.fixture
def write_mask() -> Callable[..., Path]:
    return made_dense.write_mask
