"""The benchmark and the fine-tuning study, on networks and figures of no size."""

import json
import sys

import bench
import finetune
import pytest


def run(monkeypatch, tmp_path, *arguments):
    """The rows that the benchmark writes, by variant."""
    path = tmp_path / "rows.json"
    command = ["bench", "--images", "random", "--size", "32", "--batch", "2", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", [*command, *arguments])
    bench.main()
    return {row["variant"]: row for row in json.loads(path.read_text())["rows"]}


def test_variants_side_by_side(monkeypatch, tmp_path, capsys):
    arguments = ["--model", "resnet10t", "--recipes", "exact,balanced", "--repeats", "1"]
    rows = run(monkeypatch, tmp_path, *arguments, "--codec", '{"codec": "uniform", "bits": 8}')
    assert [*rows] == ["dense", "checkpointing", "exact", "balanced", "--codec"]
    assert rows["balanced"]["stored"] < rows["exact"]["stored"] < rows["dense"]["stored"]
    assert rows["checkpointing"]["cosine"] == pytest.approx(1)
    assert rows["exact"]["cosine"] == pytest.approx(1, abs=1e-4)
    assert rows["dense"]["time"] == 1
    assert all(row["time"] > 0 and row["peak"] > 0 for row in rows.values())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("balanced" in line for line in lines)


def test_a_network_of_smp_without_times(monkeypatch, tmp_path):
    rows = run(monkeypatch, tmp_path, "--model", "Unet:resnet18", "--recipes", "exact", "--no-time")
    assert rows["exact"]["time"] is None
    assert rows["exact"]["stored"] < rows["dense"]["stored"]


def test_images_of_another_kind_are_refused(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="camvid do not fit resnet10t"):
        run(monkeypatch, tmp_path, "--model", "resnet10t", "--images", "camvid")


def test_study_counts_points_against_dense():
    def one(score, seconds):
        return {"score": score, "stored": 1.0, "seconds": [seconds] * 3}

    runs = [{"dense": one(0.5, 1.0), "paper": one(0.4, 3.0)}] * 2
    dense, paper = finetune.summarise(runs)
    assert dense["points"] == 0
    assert paper["points"] == pytest.approx(-10)
    assert paper["time"] == pytest.approx(3)
