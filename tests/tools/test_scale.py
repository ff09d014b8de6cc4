"""Slopes of memory, of networks of no size."""

import json
import sys

import pytest
import scale


def run(monkeypatch, tmp_path, *arguments):
    """The slopes that the tool writes, by what they are of and by variant."""
    path = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["scale", "--json", str(path), *arguments])
    scale.main()
    rows = json.loads(path.read_text())["rows"]
    return {(row["unit"], row["variant"]): row for row in rows}


def test_slopes_of_a_vit(monkeypatch, tmp_path, capsys):
    varied = ["--batches", "4,8", "--sizes", "64,112", "--depths", "1,2"]
    fixed = ["--batch", "4", "--size", "112", "--depth", "2"]
    rows = run(monkeypatch, tmp_path, "--model", "vit_tiny_patch16_224", *varied, *fixed)
    for unit in ("sample", "1000 pixels", "block"):
        dense = rows[unit, "dense"]
        assert 0 < rows[unit, "balanced"]["stored"] < dense["stored"] / 10
        assert 0 < rows[unit, "checkpointing"]["stored"] < dense["stored"]
        assert dense["peak"] > 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_line_is_fitted():
    points = [scale.Setting(batch, 10, None) for batch in (1, 2, 4)]
    measured = [{"dense": (3.0 * at.batch + 1, 5.0 * at.batch)} for at in points]
    (row,) = scale.fitted("batch", points, measured)
    assert (row["stored"], row["peak"]) == (pytest.approx(3), pytest.approx(5))
    assert (row["stored r"], row["peak r"]) == (pytest.approx(1), pytest.approx(1))


def test_a_network_without_such_a_depth_is_refused(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="resnet10t has 0 blocks: no depth of 1"):
        run(monkeypatch, tmp_path, "--model", "resnet10t", "--batches", "1,2", "--depth", "1")
