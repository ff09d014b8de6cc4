"""The plan of a run: kept in its folder, edited by hand, taken back by another run."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from callbacks.plain_module import Plain, loader, trainer
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from razorlight import BackRazor, Dense, Plan, RazorError
from razorlight.callbacks.back_razor import _save_or_warn
from razorlight.conversion import make_plan


def run_with_a_folder(callback, tmp_path, **options):
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[callback],
        logger=CSVLogger(tmp_path),
        enable_progress_bar=False,
        **options,
    )
    trainer.fit(Plain(), loader())
    return Path(trainer.log_dir) / "plan.yaml"


def test_a_run_keeps_its_plan_and_takes_one_back(tmp_path):
    first = BackRazor("compact")
    path = run_with_a_folder(first, tmp_path)
    assert Plan.load(path).layers == first.plan.layers

    second = BackRazor(plan=str(path))
    again = run_with_a_folder(second, tmp_path)
    assert again != path
    assert second.plan.layers == first.plan.layers
    assert second.recipe_name == "by plan"
    assert again.read_text() == path.read_text()

    other = tmp_path / "other.yaml"
    other.write_text(path.read_text().replace("model.2", "model.20"))
    with pytest.raises(RazorError, match=r"another network: this one has no layer model\.20"):
        trainer(BackRazor(plan=other), tmp_path=tmp_path).fit(Plain(), loader())
    with pytest.raises(RazorError, match="give no recipe"):
        BackRazor("exact", plan=path)
    with pytest.raises(RazorError, match=r"no plan .*nowhere"):
        BackRazor(plan="nowhere.yaml")


def test_a_run_by_a_plan_resumes_with_weights_only(tmp_path):
    path = run_with_a_folder(BackRazor("exact"), tmp_path)
    saves = ModelCheckpoint(tmp_path, save_last=True)
    trainer(BackRazor(plan=path), saves, tmp_path=tmp_path).fit(Plain(), loader())
    again = trainer(BackRazor(plan=path), tmp_path=tmp_path, max_epochs=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "BackRazor: the checkpoint")
        again.fit(Plain(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)


def test_without_a_folder_no_plan_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Trainer(
        fast_dev_run=True, accelerator="cpu", callbacks=[BackRazor()], enable_progress_bar=False
    ).fit(Plain(), loader())
    assert not [*tmp_path.rglob("plan.yaml")]


def test_a_plan_that_somebody_edited_stays(tmp_path):
    path = run_with_a_folder(BackRazor("exact"), tmp_path)
    edited = path.read_text().replace("codec: dense", "codec: {codec: uniform, bits: 8, axis: -2}")
    path.write_text(edited)
    with pytest.warns(UserWarning, match="says otherwise than this run, and stays"):
        _save_or_warn(make_plan(Plain(), "exact"), path)
    assert path.read_text() == edited
    path.write_text("")
    with pytest.warns(UserWarning, match="holds no plan of this run"):
        _save_or_warn(make_plan(Plain(), "exact"), path)


@dataclass(frozen=True)
class Own(Dense):
    """A codec without a name in YAML."""


def test_a_codec_of_ones_own_stops_no_run(tmp_path):
    with pytest.warns(UserWarning, match="codecs with a name in YAML"):
        path = run_with_a_folder(BackRazor(overrides={"model.3": Own()}), tmp_path)
    assert not path.exists()
