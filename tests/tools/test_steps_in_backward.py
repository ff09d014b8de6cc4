"""Peaks with the step after backward and within it, of a network of no size."""

import json
import sys

import in_backward
import pytest


@pytest.mark.parametrize("repeats", ["0", "2"])
def test_peaks_side_by_side(monkeypatch, tmp_path, capsys, repeats):
    path = tmp_path / "rows.json"
    arguments = ["--model", "resnet10t", "--size", "32", "--batch", "2", "--optimizer", "sgd"]
    more = ["--repeats", repeats, "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["in_backward", *arguments, *more])
    in_backward.main()
    rows = json.loads(path.read_text())["rows"]
    assert [row["variant"] for row in rows] == ["dense", "checkpointing", "compact"]
    for row in rows:
        assert row["gradients"] / 2 < row["after"] - row["within"] <= row["gradients"]
        assert (row["time"] is None) == (repeats == "0")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
