"""``razorlight runs``: what differs between runs, their scores and their peaks."""

import os
import re
from urllib.parse import unquote

import pytest
import yaml

from razorlight.cli import main

BASE = {
    "seed_everything": 0,
    "model": {
        "class_path": "razorlight.tasks.SegmentationTask",
        "init_args": {
            "freeze": None,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}},
        },
    },
    "data": {"class_path": "razorlight.data.BlueMarble", "init_args": {"batch_size": 2}},
    "trainer": {"max_epochs": 1, "callbacks": [{"class_path": "a.ModelCheckpoint"}]},
    "razor": True,
}
METRICS = "epoch,step,val/loss,val/mIoU\n0,9,.7,.5\n1,19,.6,{}\n"
MEMORY = "epoch,phase,peak_mib,stored_mib\n0,train,{},1\n0,val,999,\n1,train,10.0,1\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def write(name, place, score=0.5, peak=80.0, **changes):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        config = run / "config.yaml"
        config.write_text(yaml.safe_dump(BASE | changes))
        os.utime(config, (place, place))
        (run / "metrics.csv").write_text(METRICS.format(score))
        (run / "memory.csv").write_text(MEMORY.format(peak))

    return write


def rows(capsys):
    """The cells of each row, and what follows the table."""
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    return [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if line.strip()]


def test_what_differs_scores_and_peaks(write, capsys):
    write("b/version_0", 1, score=0.625)
    write("a/version_1", 2, data=BASE["data"] | {"init_args": {"batch_size": 8}})
    write("a/version_0", 3, peak=120.25, razor=False)
    compact = {"class_path": "razorlight.BackRazor", "init_args": {"recipe": "compact"}}
    write("a/version_2", 4, razor=compact, seed_everything=1)
    write("a/version_3", 5, trainer=BASE["trainer"] | {"logger": {"class_path": "x.Logger"}})
    assert main(["runs"]) == 0
    head, _, *body = rows(capsys)
    assert head == ["run", "what differs", "val/mIoU", "peak MiB"]
    assert body[:3] == [
        ["b/version_0", "0.625", "80.0"],
        ["a/version_1", "data.batch_size=8", "0.5", "80.0"],
        ["a/version_0", "razor=false", "0.5", "120.2"],
    ]
    found = " ".join(" ".join(row) for row in body[3:])
    assert "a/version_2 seed_everything=1 0.5 80.0 razor.recipe=compact a/version_3 0.5" in found
    assert "the others: seed_everything=0, data.batch_size=2, razor=true, razor.rec" in found


def test_one_run_differs_from_none(write, capsys):
    write("version_0", 1)
    assert main(["runs", "runs"]) == 0
    assert rows(capsys)[2:] == [["version_0", "0.5", "80.0"]]


def test_no_run_is_a_line(write, capsys):
    assert main(["runs", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("error: runs: no run in nowhere: none of its folders")


def test_a_page_with_curves(write, tmp_path, capsys):
    write("a&b/version_0", 1, score=0.625)
    write("c/version_0", 2, peak=120.25, razor=False)
    (tmp_path / "runs/c/version_0/memory.html").write_text("page")
    assert main(["runs", "--html", "out/runs.html"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out/runs.html"
    page = (tmp_path / "out/runs.html").read_text()
    assert "<td>a&amp;b/version_0</td>" in page
    assert "razor=true<br>razor.recipe=balanced</div></td><td>0.625</td><td>80.0</td>" in page
    links = re.findall(r'href="(.*?)"', page)
    files = [(tmp_path / "out" / unquote(link)).resolve() for link in links]
    assert [file.name for file in files] == ["config.yaml", "memory.html", "config.yaml"]
    assert all(file.is_file() for file in files)
    # scores over peaks, and the curves of mIoU and loss
    words = re.findall(r'<img alt="(.*?)" src="data:image/png;base64,', page)
    assert words == [
        "val/mIoU of each run over the peak of its training",
        "val/mIoU of each run by step",
        "val/loss of each run by step",
    ]
