"""The figure of a step, on a network of no size."""

import re
import sys

import step_figure
from PIL import Image


def test_figure_and_peaks(monkeypatch, tmp_path, capsys):
    path = tmp_path / "step.png"
    chosen = ["--model", "resnet10t", "--size", "64", "--batch", "8", "--out", str(path)]
    monkeypatch.setattr(step_figure.bench, "default_images", lambda model: "random")
    monkeypatch.setattr(sys, "argv", ["step_figure", *chosen])
    step_figure.main()
    peaks = dict(re.findall(r"(\w+): peak (\d+) MiB", capsys.readouterr().out))
    assert int(peaks["balanced"]) < int(peaks["dense"])
    with Image.open(path) as image:
        assert image.width > image.height
