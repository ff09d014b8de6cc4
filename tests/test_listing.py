"""What ``razorlight list`` reads from sources is what there is at run time."""

import pytest
import segmentation_models_pytorch as smp
import timm

import razorlight.callbacks
import razorlight.data
from razorlight.cli import main
from razorlight.cli.help import CALLBACK_KEYS
from razorlight.cli.listing import KINDS
from razorlight.codecs import CODECS
from razorlight.config_files import shipped_configs
from razorlight.data import RazorDataModule
from razorlight.planning import RECIPES

KEYED = {key.callback for key in CALLBACK_KEYS.values()}
ARCHITECTURES = [kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("configs", shipped_configs()),
        ("datasets", [n for n in razorlight.data.__all__ if n != RazorDataModule.__name__]),
        ("recipes", RECIPES),
        ("codecs", CODECS),
        ("callbacks", [*CALLBACK_KEYS, *set(razorlight.callbacks.__all__) - KEYED]),
        ("models", [*ARCHITECTURES, *smp.encoders.encoders, *timm.list_models()]),
    ],
)
def test_all_are_listed(kind, names):
    groups = KINDS[kind]().values()
    assert sorted(name for group in groups for name in group) == sorted(names)


@pytest.mark.parametrize("kind", ["configs", "datasets", "recipes", "codecs", "callbacks"])
def test_each_says_in_a_line_what_it_is(kind, capsys):
    assert main(["list", kind]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[0] != "#"]
    for line in lines:
        name, text = line.split("  ", 1)
        assert len(text.split()) >= 3, name
        assert not text.endswith(".")


def test_models_say_where_they_go(capsys):
    assert main(["list", "models", "*resnet18"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# SegmentationTask: encoder (or tu-NAME of a model below)",
        "# ClassificationTask: model",
    ]
    assert "resnet18         ResNetEncoder" in lines
    assert "resnet18           Constructs a ResNet-18 model" in lines


def test_a_pattern_without_match_is_an_error(capsys):
    assert main(["list", "recipes", "balancd"]) == 1
    assert "error: list recipes: 'balancd' matches nothing; the nearest names are balanced" in (
        capsys.readouterr().err
    )


def test_lines_are_cut_to_a_window(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["list", "models"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert max(map(len, lines)) == 60
