"""Peaks of plans within budgets, of a network of no size."""

import json
import sys

import budget


def test_peaks_are_within_their_budgets(monkeypatch, tmp_path, capsys):
    path, plot = tmp_path / "rows.json", tmp_path / "plot.png"
    options = ["--model", "resnet10t", "--size", "96", "--batch", "16", "--shares", ".95,.85"]
    options += ["--recipes", "exact", "--repeats", "1", "--json", str(path), "--plot", str(plot)]
    monkeypatch.setattr(sys, "argv", ["budget", *options])
    budget.main()
    dense, checkpointing, _, *kept = json.loads(path.read_text())["rows"]
    assert [row["budget"] for row in kept] == [0.95, 0.85]
    for row in kept:
        assert row["peak"] <= row["budget"] * dense["peak"]
        assert 0.9 < row["cosine"] <= 1.0001
    assert checkpointing["budget"] is None
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
