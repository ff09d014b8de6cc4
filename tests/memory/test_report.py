from io import StringIO

import matplotlib.image
import pytest
from rich.console import Console

from razorlight.memory.history import PhaseMemory
from razorlight.memory.meter import MIB
from razorlight.memory.report import memory_table, save_memory_plot
from razorlight.memory.step import StepMemory

TITLE = "Memory in MiB, measured: batch 128, bf16-mixed, cuda:0"
STEPS = {
    "dense": StepMemory(stored=12000 * MIB, peak=15000 * MIB),
    "razor": StepMemory(stored=2000 * MIB, peak=6000 * MIB),
}
ROWS = [
    PhaseMemory(0, "train", 6100.0, 2000.0, 90.0, 90.0, 180.0),
    PhaseMemory(0, "val", 1500.0),
    PhaseMemory(1, "train", 6400.0, 2000.0, 90.0, 90.0, 180.0),
    PhaseMemory(1, "val", 1400.0),
]
METRICS = {"val/loss": 0.25, "val/a_metric_with_a_name_much_longer_than_a_column": 0.5}


def render(run, steps):
    console = Console(width=80, file=StringIO())
    console.print(memory_table(TITLE, run, steps, ROWS, METRICS))
    lines = console.file.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    return lines


def line_of(lines, label):
    (line,) = (line for line in lines if label in line)
    return line.replace("│", " ").split(label)[1].split()


def test_table_compares_and_sums_up_the_run():
    lines = render("razor", STEPS)
    assert TITLE in lines[0]
    assert lines[2].replace("┃", " ").split() == ["dense", "razor", "dense/razor"]
    assert line_of(lines, "one step: stored after forward") == ["12000.00", "2000.00", "6.00x"]
    assert line_of(lines, "one step: peak allocated") == ["15000.00", "6000.00", "2.50x"]
    assert line_of(lines, "run: train peak allocated") == ["6400.00"]
    assert line_of(lines, "run: val peak allocated") == ["1500.00"]
    assert line_of(lines, "run: train optimizer state") == ["180.00"]
    assert line_of(lines, "val/loss") == ["0.25"]
    assert len(lines) == 1 + 3 + 2 + 1 + 6 + 1 + 2 + 1  # heads, sections and rules: none wraps


def test_table_of_a_dense_run_and_of_one_not_compared():
    lines = render("dense", {"dense": STEPS["dense"]})
    assert line_of(lines, "one step: peak allocated") == ["15000.00"]
    assert not any("razor" in line for line in lines)
    assert not any("one step" in line for line in render("dense", {}))


def test_table_says_out_of_memory():
    lines = render("razor", {"razor": STEPS["razor"], "dense": None})
    cells = line_of(lines, "one step: peak allocated")
    assert cells == ["out", "of", "memory", "6000.00"]
    assert lines[2].replace("┃", " ").split() == ["dense", "razor"]
    assert lines[2].count("┃") == 4


@pytest.mark.parametrize("steps", [STEPS, {}, {"razor": STEPS["razor"], "dense": None}])
def test_plot_is_a_picture_with_a_line_for_each_phase(tmp_path, steps):
    path = tmp_path / "memory.png"
    save_memory_plot(path, ROWS, steps)
    picture = matplotlib.image.imread(path)
    assert picture.shape == (480, 1200 if steps else 840, 4)
    blue, orange = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)
    for color in (blue, orange):
        assert (abs(picture[..., :3] * 255 - color).max(axis=-1) < 2).sum() > 100
