import importlib
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from razorlight.codecs import TopK


@pytest.fixture(scope="module")
def accounting() -> ModuleType:
    return importlib.import_module("accounting")


def test_proxyless_is_the_published_network(accounting: ModuleType) -> None:
    with torch.device("meta"):
        network = accounting.proxyless_mobile(num_classes=1000).eval()
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        network(torch.empty(1, 3, 224, 224, device="meta"))
    assert sum(p.numel() for p in network.parameters()) == 4_080_512
    assert flops.get_total_flops() / 2 == pytest.approx(320e6, rel=0.01)


@pytest.mark.parametrize(("rows", "count"), [("proxyless_rows", 9), ("vit_rows", 4)])
def test_every_figure_is_reproduced(accounting: ModuleType, rows: str, count: int) -> None:
    ours = {row.setting: row.difference for row in getattr(accounting, rows)()}
    assert ours == dict.fromkeys(ours, pytest.approx(0, abs=1.0))
    assert len(ours) == count


def test_a_figure_that_is_off_shows_in_the_exit_status(
    accounting: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    near, off = accounting.Row("near", 100.0, 100.9), accounting.Row("off", 1_000.0, 989.0)
    monkeypatch.setattr(accounting, "proxyless_rows", lambda: [near])
    monkeypatch.setattr(accounting, "vit_rows", lambda: [near])
    assert accounting.main() == 0
    monkeypatch.setattr(accounting, "vit_rows", lambda: [near, off])
    assert accounting.main() == 1
    printed = capsys.readouterr().out
    assert "-1.10 %" in printed
    assert max(map(len, printed.splitlines())) <= 80


def three_layers() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1, groups=4))


def test_three_layers_by_hand(accounting: ModuleType) -> None:
    network, pixels = three_layers(), 224 * 224
    # the last layer: two inputs stored (3 floats, then 4 bits a pixel), its input, 1/4 its output
    peak = (12 + 0.5 + 16 + 4) * pixels
    parameters = 4 * (16 + 8)
    assert accounting.step_bytes(network, 1, network, accounting.DENSE) == peak + parameters


def test_what_a_layer_works_on_is_the_floor_of_pruning(accounting: ModuleType) -> None:
    network, pixels = three_layers(), 224 * 224
    codecs = {**accounting.DENSE, nn.Conv2d: TopK(0.9, values="fp32")}
    # the first layer: its input and output
    floor = (12 + 16) * pixels + 4 * (16 + 8)
    assert accounting.step_bytes(network, 1, network, codecs) == floor


def test_a_frozen_layer_stores_nothing_and_its_weights_count_a_byte(accounting: ModuleType) -> None:
    network, pixels = three_layers(), 224 * 224
    network.get_submodule("0").requires_grad_(False)
    # the first layer again: nothing but 4 bits a pixel is stored before the last
    bytes_ = (12 + 16) * pixels + 16 + 4 * 8
    assert accounting.step_bytes(network, 1, network, accounting.DENSE) == bytes_
