import importlib
import itertools
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from razorlight.codecs.slope_tables import CELLS_A_UNIT, STEPS


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return importlib.import_module("derivative_codes")


def same(found, shipped) -> bool:
    # SiLU's slope is its own mirror image: of several best solutions rounding chooses one
    return found[2] == pytest.approx(shipped[2], abs=2e-6) and len(found[0]) == len(shipped[0])


@pytest.mark.parametrize(("function", "bits"), STEPS, ids=str)
def test_solves_the_shipped_table(tool: ModuleType, function: str, bits: int) -> None:
    assert same(tool.solve(tool.FUNCTIONS[function], bits), STEPS[function, bits])


def test_writes_and_prints_the_table(
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "tables.py"
    monkeypatch.setattr(sys, "argv", ["derivative_codes.py", "--output", str(output)])
    tool.main()
    written = runpy.run_path(str(output))
    assert written["CELLS_A_UNIT"] == CELLS_A_UNIT
    assert written["STEPS"].keys() == STEPS.keys()
    for key, steps in written["STEPS"].items():
        assert same(steps, STEPS[key])
    assert max(map(len, output.read_text().splitlines())) <= 100
    assert "0.0407" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_segments_of_least_cost(tool: ModuleType, count: int) -> None:
    torch.manual_seed(0)
    n = 7
    start, end = torch.arange(n + 1)[:, None], torch.arange(n + 1)
    cost = torch.rand(n + 1, n + 1).where(start < end, torch.inf)
    cuts = itertools.combinations(range(1, n), count - 1)
    every = [sum(cost[i, j] for i, j in itertools.pairwise((0, *c, n))) for c in cuts]
    ends = tool.segment(cost, count)
    assert ends[0] == 0
    assert ends[-1] == n
    assert len(ends) == count + 1
    assert sum(cost[i, j] for i, j in itertools.pairwise(ends)) == pytest.approx(min(every))


def test_moments_of_a_known_slope(tool: ModuleType) -> None:
    # f = x^2 / 2 has slope x: mean 0, and the variance of x
    mass, mean, square = tool.moments(lambda x: x**2 / 2, spread=1.5).sum(dim=1).tolist()
    assert mass == pytest.approx(1)
    assert mean == pytest.approx(0, abs=1e-12)
    assert square == pytest.approx(1.5**2, rel=1e-4)


@pytest.mark.parametrize("function", [F.gelu, F.silu, F.hardswish])
def test_what_shared_levels_save(tool: ModuleType, function: Callable[[Tensor], Tensor]) -> None:
    # the same levels at the ends, but a level for each interval: cells in the order of x
    level, cost = tool.segment_costs(tool.moments(function, tool.SPREAD), 0, tool.CELLS - 1)
    ends = list(itertools.pairwise(tool.segment(cost, 8)))
    assert [level[ends[0]].item(), level[ends[-1]].item()] == [0, 1]
    alone = sum(cost[i, j] for i, j in ends).sqrt().item()
    assert 0.14 < 1 - tool.solve(function, 3).error / alone < 0.24
