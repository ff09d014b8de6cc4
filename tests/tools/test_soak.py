"""The soak, of no length."""

import sys

import pytest
import soak
import torch

from razorlight import RECIPES


@pytest.mark.parametrize("network", soak.NETWORKS)
def test_live_bytes_are_flat_and_exact_is_dense(network):
    dense, *razors = [soak.soak(network, recipe, 24) for recipe in (soak.DENSE, *RECIPES)]
    for run in razors:
        assert len(set(run.live[1:])) == 1, run.recipe
        assert run.losses[0] == dense.losses[0]
        if run.recipe == "exact":
            torch.testing.assert_close(run.losses, dense.losses, rtol=1e-3, atol=1e-4)


def test_what_grows_is_seen():
    run = soak.Soaked("vit", "exact", [1.0] * 8, [1, 2, 3], [0, 0, 5], [1.0, 1.0, 1.0, 3.0])
    assert run.live_range() == (2, 3)
    assert run.resident_growth() == 5
    assert run.slowdown() == 3


def test_table_and_plot(monkeypatch, tmp_path, capsys):
    path = tmp_path / "soak.png"
    arguments = ["--networks", "cnn", "--recipes", "balanced", "--steps", "20"]
    monkeypatch.setattr(sys, "argv", ["soak", *arguments, "--plot", str(path)])
    soak.main()
    printed = capsys.readouterr().out
    assert "balanced" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert path.stat().st_size > 10_000
