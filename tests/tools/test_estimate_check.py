"""Estimated and measured memory of runs, side by side."""

import json
import sys

import estimate_check
import pytest


def test_side_by_side(monkeypatch, tmp_path, capsys):
    path = tmp_path / "rows.json"
    options = ["--networks", "Unet:tu-resnet10t", "--size", "32", "--batch", "2"]
    options += ["--recipes", "dense,balanced", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["estimate_check", *options])
    estimate_check.main()
    rows = json.loads(path.read_text())["rows"]
    assert [row["recipe"] for row in rows] == ["dense", "balanced"]
    for row in rows:
        assert row["stored"]["estimated"] == pytest.approx(row["stored"]["measured"], abs=0.001)
        assert row["peak"]["estimated"] == pytest.approx(row["peak"]["measured"], rel=0.02)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
