"""Peaks with the step after backward and within it, of a network of no size."""

import json
import sys

import in_backward
import pytest

NETWORK = ["--model", "resnet10t", "--size", "32", "--batch", "2", "--optimizer", "sgd"]


def measured(monkeypatch, tmp_path, *options):
    path = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["in_backward", *NETWORK, *options, "--json", str(path)])
    in_backward.main()
    return json.loads(path.read_text())["rows"]


@pytest.mark.parametrize("repeats", ["0", "2"])
def test_peaks_side_by_side(monkeypatch, tmp_path, capsys, repeats):
    rows = measured(monkeypatch, tmp_path, "--repeats", repeats)
    assert [row["variant"] for row in rows] == ["dense", "checkpointing", "compact"]
    for row in rows:
        less = row["peaks"]["after"] - row["peaks"]["within"]
        assert row["gradients"] / 2 < less <= row["gradients"]
        assert row["gradients"] == row["parameters"] == row["states"]["after"]
        assert [*row["times"]] == ["after", "within"]
        assert (row["times"]["within"] is None) == (repeats == "0")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80


def test_what_sets_the_peak(monkeypatch, tmp_path, capsys):
    rows = measured(monkeypatch, tmp_path, "--repeats", "0", "--explain")
    shown = capsys.readouterr().out
    for row in rows:
        assert f"{row['variant']}: peak " in shown
        assert row["explained"] in shown


def test_states_of_few_bits_need_their_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SystemExit, match=r"in_backward: --low-bit: .*pip install bitsandbytes"):
        measured(monkeypatch, tmp_path, "--repeats", "0", "--low-bit")


@pytest.mark.clients
def test_peaks_with_states_of_few_bits(monkeypatch, tmp_path):
    pytest.importorskip("bitsandbytes")
    for row in measured(monkeypatch, tmp_path, "--repeats", "0", "--low-bit"):
        fewer = row["states"]["within"] - row["states"]["low bit"]
        assert fewer > 0.7 * row["states"]["within"]
        assert 0 < row["peaks"]["low bit"] < row["peaks"]["after"]
