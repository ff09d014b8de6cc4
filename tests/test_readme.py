"""What the README shows runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from razorlight.config_files import find_config

README = Path(__file__).parents[1].joinpath("README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))


@pytest.mark.parametrize("code", PYTHON, ids=["Lightning", "plain"])
def test_examples(code, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "dense" in run.stdout


def test_configs_are_shipped():
    configs = re.findall(r"--config (\S+)", SHELL)
    assert len(configs) >= 5
    for config in configs:
        assert Path(find_config(config)).is_file() or Path(config).is_file()


def test_tools_exist():
    for tool in re.findall(r"python (tools/\S+)", README):
        assert Path(__file__).parents[1].joinpath(tool).is_file()
