import sys
from pathlib import Path

import pytest
from accidents.killed_runs import CONFIG, make_images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: images, and the configuration of a small run of three epochs."""
    make_images(tmp_path / "images")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    Path("small.yaml").write_text(CONFIG)
    return tmp_path / "run"


@pytest.fixture
def error_line(capsys):
    """Gives the one line on stderr that says what went wrong."""

    def read():
        err = capsys.readouterr().err
        assert "Traceback" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        return line

    return read
