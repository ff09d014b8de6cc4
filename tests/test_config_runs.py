"""Every shipped configuration trains, is scored and predicts, on data in its set's format."""

import re
import sys
from pathlib import Path

import pytest
from data.made_classification import accept_made_files, write_image
from small_runs import make_data, small, text

from razorlight.cli.training import RazorCLI
from razorlight.config_files import shipped_configs

LAYERS = {"ema.yaml", "tensorboard.yaml", "wandb.yaml", "mlflow.yaml", "debug/fast.yaml"}
SHORT = [
    "--data.predict_folder=photographs",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=1",
    *(f"--trainer.limit_{phase}_batches=1" for phase in ("val", "test", "predict")),
]
PREDICTED = {
    "ClassificationTask": ["classes.csv"],
    "SegmentationTask": ["masks/photograph.png", "overlays/photograph.jpg"],
    "DepthTask": ["depth/photograph.png"],
    "MultiLabelClassificationTask": ["labels.csv"],
    "RegressionTask": ["numbers.csv"],
}
REPORTED = {
    "ClassificationTask": ["classes.csv", "confusion.png"],
    "SegmentationTask": ["classes.csv", "confusion.png"],
    "DepthTask": [],
    "MultiLabelClassificationTask": ["classes.csv"],
    "RegressionTask": ["targets.csv"],
}


def stack(name):
    """The configurations that go on one command line, as the comment of the last of them says."""
    names = re.findall(r"--config (\S+)", text(name).partition("\nmodel:")[0])
    return names if names[-1:] == [name] else [name]


STACKS = [stack(name) for name in shipped_configs() if name not in LAYERS]
DENSE = (
    *("cls_dtd.yaml", "seg_camvid.yaml", "depth_folder.yaml"),
    *("multilabel_csv.yaml", "regression_csv.yaml"),
)
RUNS = [*((names, ()) for names in STACKS), *(([name], ("--razor=false",)) for name in DENSE)]


@pytest.mark.parametrize(("names", "options"), RUNS, ids="+".join)
def test_two_steps_and_what_is_written(names, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])
    accept_made_files(monkeypatch)
    whole = "".join(map(text, names))
    make_data(whole, tmp_path / "data")
    write_image(tmp_path / "photographs" / "photograph.jpg")
    configs = [word for name in names for word in ("--config", name)]
    cli = RazorCLI([*configs, *small(whole), *SHORT, *options], run=False)
    trainer, data = cli.trainer, cli.datamodule
    trainer.fit(cli.model, data)
    trainer.validate(cli.model, data, verbose=False)
    if "test" in data.splits:
        trainer.test(cli.model, data, verbose=False)
    trainer.predict(cli.model, data, return_predictions=False)

    run = Path(trainer.log_dir)
    task = type(cli.model).__name__
    expected = ["config.yaml", "metrics.csv", "checkpoints/last.ckpt", "memory.csv"]
    expected += [f"predictions/{name}" for name in PREDICTED[task]]
    judged = {"val", "test"} & {*data.splits}
    expected += [f"{stage}_{name}" for stage in judged for name in REPORTED[task]]
    assert [name for name in expected if not (run / name).is_file()] == []
