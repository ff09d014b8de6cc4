"""The script for GPUs, tried without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/gpu_check.py"


def test_it_runs_in_the_interpreter(tmp_path):
    pytest.importorskip("triton")
    command = [sys.executable, TOOL, "--device", "cpu", "--small", "--json", tmp_path / "rows.json"]
    run = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert max(map(len, run.stdout.splitlines())) <= 80
    found = json.loads((tmp_path / "rows.json").read_text())
    assert all(row["same"] for row in found["kernels"])
    assert len(found["kernels"]) == 7
    assert [row["same"] for row in found["norms"]] == [True] * 4
    assert [row["same"] for row in found["others"]] == [True] * 6
    assert [network["model"] for network in found["networks"]] == ["vit_tiny_patch16_224", "llama"]
    for network in found["networks"]:
        names = [row["variant"] for row in network["rows"]]
        assert names == ["dense", "checkpointing", "exact", "balanced", "compact"]
        dense, _, *recipes = (row["stored"] for row in network["rows"])
        assert all(stored < dense for stored in recipes)


def test_without_a_gpu_it_says_so():
    run = subprocess.run([sys.executable, TOOL], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == (
        "gpu_check: there is no GPU here; --device cpu --small tries the script alone\n"
    )
