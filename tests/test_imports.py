"""What imports what: never up, and never more than is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import razorlight

PACKAGE = Path(razorlight.__file__).parent
FROM_THE_BOTTOM = [
    ["errors", "files", "protocols", "_torch"],
    ["html"],
    ["fields", "patterns", "tensors"],
    ["codecs"],
    ["planning"],
    ["records"],
    ["functional"],
    ["layers"],
    ["conversion"],
    ["memory"],
    ["comparison"],
    ["config_files", "checkpoints", "logged_pictures"],
    ["callbacks", "tasks", "data"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(FROM_THE_BOTTOM) for name in names}


def imported_by(file):
    """Names of parts of the package that a file imports when it is imported."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("razorlight."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "razorlight":
            yield from (alias.name for alias in node.names if alias.name in RANK)


@pytest.mark.parametrize("part", [part for part in RANK if part not in FROM_THE_BOTTOM[-2]])
def test_imports_never_run_up(part):
    module = PACKAGE / f"{part}.py"
    files = [module] if module.is_file() else [*(PACKAGE / part).rglob("*.py")]
    assert files
    for file in files:
        for other in imported_by(file):
            assert RANK[other] < RANK[part] or other == part, f"{file} imports {other}"


PROGRAM = """
import sys
import torch
before = set(sys.modules)
import razorlight
model = torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Linear(8, 8))
razorlight.razor_(model, razorlight.Recipe(*[razorlight.Uniform(4)] * 5))
razorlight.register, razorlight.Plan, razorlight.Role
new = set(sys.modules) - before
print(*sorted({name.split(".")[0] for name in new}), "torch._dynamo" in new)
"""


def test_to_convert_takes_torch_alone():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    *loaded, compiler = done.stdout.split()
    assert "razorlight" in loaded, done.stderr
    others = {"lightning", "matplotlib", "segmentation_models_pytorch", "timm", "torchmetrics"}
    assert not (others | {"torchvision", "transformers", "rich"}).intersection(loaded)
    assert compiler == "False"


def test_public_names_are_those_that_a_type_checker_sees():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in checked.body for alias in node.names}
    assert seen == set(razorlight.__all__)
    assert all(hasattr(razorlight, name) for name in seen)
    with pytest.raises(AttributeError, match="no attribute 'razor'"):
        razorlight.razor  # noqa: B018
    assert (PACKAGE / "py.typed").is_file()
