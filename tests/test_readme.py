"""What the README shows runs as it stands there."""

import re

import pytest
from pages import PAGES, README, ROOT, blocks, run_python

PROJECT = (ROOT / "docs/examples/lightning_project.py").read_text()


def test_five_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [(_, code)] = blocks(README.read_text(), "python")
    assert len([line for line in code.splitlines() if line]) <= 5
    # the module and the data of a project that is there already
    project = PROJECT.partition("if __name__")[0] + (
        "module = Classifier()\n"
        "data = TensorDataset(torch.randn(4, 3, 224, 224), torch.randint(10, (4,)))\n"
        "loader = DataLoader(data, batch_size=2)\n"
    )
    run_python(project + code)
    assert "dense" in capsys.readouterr().out


def test_how_to_test():
    assert 'pip install -e ".[test]" && pytest' in README.read_text()
    assert 'pip install --quiet -e ".[test]" && pytest' in (ROOT / ".ci/run").read_text()


def test_it_stays_short():
    assert len(README.read_text().splitlines()) <= 105


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page", [README, ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda path: path.stem
)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", without_code(page.read_text()))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing
