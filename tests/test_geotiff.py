"""GeoTIFFs through the command line: from tiles of any bands to masks with a place on the earth."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from data.made_classification import write_image
from data.made_rasters import CRS, PLACE, bands, labels, tiles, write_raster
from lightning import LightningModule, Trainer
from safetensors import safe_open

from razorlight.callbacks import PredictionWriter
from razorlight.cli import main
from razorlight.data import SegmentationFolder
from razorlight.data.palette import voc_palette
from razorlight.errors import RazorError
from razorlight.tasks.networks import smp_network, timm_network

FIT = ["fit", "--config", "seg_folder.yaml", "--data.root", "tiles", "--data.num_workers=0"]
SMALL = ["--data.image_size=32", "--data.batch_size=4", "--trainer.accelerator=cpu"]
FAST = [*SMALL, "--trainer.max_epochs=1", "--profiler=false", "--trainer.num_sanity_val_steps=0"]
NET = ["--model.encoder=tu-resnet10t", "--model.weights=none"]
RUN = Path("runs/seg_folder/version_0")
TRAINED = ["--config", str(RUN / "config.yaml"), "--ckpt_path", "last"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["razorlight"])


def test_from_13_bands_of_16_bits_to_a_mask_on_the_earth(caplog):
    """With pretrained weights of three channels; the tiles are gone when new ones are predicted."""
    tiles(Path("tiles"), 13, "uint16", nodata=0)
    stored = bands(labels(70, 50), 13, "uint16")
    stored[:, :9] = 0
    write_raster(Path("new/far/a.tif"), stored, nodata=0)
    quickstart = ["--model.encoder=tu-tf_efficientnet_lite0", "--trainer.max_epochs=2"]
    with caplog.at_level("INFO"):
        assert main([*FIT, *FAST, *quickstart]) == 0
    assert "conv_stem.weight adapted from 3 channels" in caplog.text
    assert "13 x uint16: mean and standard deviation of each band are those of the" in caplog.text
    assert (RUN / "pictures/val_0.png").is_file()
    assert main(["validate", *TRAINED]) == 0
    Path("tiles").rename("gone")
    assert main(["predict", *TRAINED, "--data.predict_folder=new"]) == 0
    (mask,) = Path("runs").rglob("predictions/masks/far/a.tif")
    with rasterio.open(mask) as file:
        assert (str(file.crs), file.transform, file.nodata) == (CRS, PLACE, 255)
        assert file.colormap(1)[1][:3] == voc_palette(2)[1]
        predicted = file.read(1)
    assert (predicted[:9] == 255).all()
    assert (predicted[9:] == labels(70, 50)[9:]).mean() > 0.8
    last = str(RUN / "checkpoints/last.ckpt")
    assert main(["export", "--ckpt", last, "--out", "net.safetensors"]) == 0
    with safe_open("net.safetensors", "pt") as file:
        card = json.loads(file.metadata()["razorlight"])
    assert (card["bands"], card["dtype"], len(card["mean"])) == ([*range(1, 14)], "uint16", 13)
    assert "13 of uint16 as stored, minus mean" in Path("net.md").read_text()
    assert main(["predict", "--model=net.safetensors", "--data.predict_folder=new"]) == 0
    with rasterio.open("runs/net/version_0/predictions/masks/far/a.tif") as file:
        assert np.array_equal(file.read(1), predicted)
    assert main(["predict", "--model", "net.safetensors", "--data.predict_folder", "new"]) == 0
    with rasterio.open("runs/net/version_0/predictions/masks/far/a.tif") as file:
        assert np.array_equal(file.read(1), predicted)


def test_small_pictures_are_predicted_by_a_network_of_colours_on_the_earth(capsys):
    tiles(Path("tiles"), 3, "uint8")
    assert main([*FIT, *FAST, *NET]) == 0
    write_image(Path("new/a.png"), 20, 24)
    write_image(Path("new/b.png"), 60, 50)
    assert main(["predict", *TRAINED, "--data.predict_folder=new"]) == 0, capsys.readouterr().err
    assert len([*Path("runs").rglob("predictions/masks/*.png")]) == 2


@pytest.mark.parametrize(
    ("count", "dtype", "options"),
    [
        (1, "float32", []),
        (4, "uint8", ["--data.full_resolution=true", "--model.class_weights=auto"]),
        (3, "uint8", ["--model.window=32", "--data.num_workers=2"]),
    ],
)
def test_tiles_of_other_kinds_train(capsys, caplog, count, dtype, options):
    tiles(Path("tiles"), count, dtype)
    with caplog.at_level("INFO"):
        assert main([*FIT, *FAST, *NET, *options]) == 0, capsys.readouterr().err
    colours_stay = "augmentation moves pixels, and changes no values" in caplog.text
    assert colours_stay == ((count, dtype) != (3, "uint8"))


def test_what_is_checked_and_shown_before_a_run(capsys):
    tiles(Path("tiles"), 13, "uint16")
    data = ["--config=seg_folder.yaml", "--data.root=tiles", "--data.num_workers=0", *SMALL]
    assert main(["check", *data]) == 0
    out = capsys.readouterr().out
    assert "of mode 13 x uint16" in out
    assert "mean of each band in training: [1.2" in out
    assert main(["preview", *data, "--data.bands=[4, 3, 2]"]) == 0
    assert Path("preview.png").is_file()
    write_raster(Path("tiles/masks/2.tif"), labels(48, 60))
    assert main(["check", *data]) == 1
    assert "48x64 pixels high and wide, tiles/masks/2.tif 48x60" in capsys.readouterr().out


def test_classes_of_tiles(capsys):
    for label in (0, 1):
        for name in range(6):
            stored = bands(np.full((24, 24), label), 4, "float32", name)
            write_raster(Path(f"photos/{['dark', 'bright'][label]}/{name}.tif"), stored)
    fit = ["fit", "--config=cls_image_folder.yaml", "--data.root=photos", "--data.num_workers=0"]
    net = ["--model.model=resnet10t", "--model.weights=none"]
    assert main([*fit, *FAST, *net]) == 0, capsys.readouterr().err
    run = ["--config=runs/image_folder/version_0/config.yaml", "--ckpt_path=last"]
    assert main(["predict", *run, "--data.predict_folder=photos/dark"]) == 0
    (table,) = Path("runs").rglob("classes.csv")
    assert len(table.read_text().splitlines()) == 1 + 6


def test_numbers_of_tiles():
    lines = ["file,target"]
    for number in range(12):
        stored = bands(np.full((24, 24), number % 2), 5, "int16", number)
        write_raster(Path(f"fields/images/{number}.tif"), stored)
        lines.append(f"{number}.tif,{number % 2 + number / 50}")
    Path("fields/yields.csv").write_text("\n".join(lines))
    fit = ["fit", "--config=regression_csv.yaml", "--data.root=fields", "--data.num_workers=0"]
    net = ["--model.model=resnet10t", "--model.weights=none", "--data.bands=[5, 1]"]
    assert main([*fit, *FAST, *net]) == 0
    run = ["--config=runs/regression_csv/version_0/config.yaml", "--ckpt_path=last"]
    assert main(["predict", *run, "--data.predict_folder=fields/images"]) == 0
    (table,) = Path("runs").rglob("numbers.csv")
    assert len(table.read_text().splitlines()) == 1 + 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.in_channels=5"], "model.in_channels: the images of SegmentationFolder are read"),
        (["--model.model_args={in_channels: 5}"], "model_args.in_channels: the images of"),
        (["--data.bands=[5]"], "bands: there is no band 5 in tiles/images/0.tif"),
    ],
)
def test_mistakes_end_in_a_line(capsys, options, message):
    tiles(Path("tiles"), 4, "uint16")
    assert main([*FIT, *FAST, *NET, *options]) == 1
    assert message in capsys.readouterr().err


# ---- how windows become a mask


class Bright(LightningModule):
    """Class 1 where the first band is above its mean."""

    def predict_step(self, batch, batch_idx):
        return (batch[0][:, 0] > 0).long()


def predict(side=48, **kwargs):
    data = SegmentationFolder(
        "tiles", ["ground", "roof"], image_size=side, num_workers=0, predict_folder="new", **kwargs
    )
    trainer = Trainer(
        callbacks=[PredictionWriter()], accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.predict(Bright(), data, return_predictions=False)
    return Path("predictions/masks")


@pytest.mark.parametrize("side", [48, 20, 200])
def test_windows_are_stitched_without_a_seam(side):
    tiles(Path("tiles"), 2, "int16")
    for name, size in {"a": (130, 77), "b": (16, 16), "c": (1, 300)}.items():
        write_raster(Path(f"new/{name}.tif"), bands(labels(*size), 2, "int16"))
    folder = predict(side)
    for name, size in {"a": (130, 77), "b": (16, 16), "c": (1, 300)}.items():
        with rasterio.open(folder / f"{name}.tif") as file:
            assert np.array_equal(file.read(1), labels(*size))


def test_an_image_without_a_place_gives_a_mask_without_one(recwarn):
    tiles(Path("tiles"), 2, "uint16")
    write_raster(Path("new/a.tif"), bands(labels(40, 40), 2, "uint16"), place=None)
    with rasterio.open(predict() / "a.tif") as file:
        assert file.crs is None
    assert not [each for each in recwarn if "eoreferenc" in str(each.message)][1:]


def test_several_processes_are_refused(monkeypatch):
    tiles(Path("tiles"), 2, "uint16")
    monkeypatch.setattr(Trainer, "world_size", 2)
    write_raster(Path("new/a.tif"), bands(labels(40, 40), 2, "uint16"))
    with pytest.raises(RazorError, match=r"predict with --trainer\.devices 1"):
        predict()


def test_the_first_layer_has_the_channels_of_the_images():
    four = smp_network("Unet", "resnet18", 2, "none", {}, 4)
    assert four.encoder.conv1.weight.shape[1] == 4
    assert timm_network("resnet10t", 2, "none", {}, 1).conv1[0].weight.shape[1] == 1
