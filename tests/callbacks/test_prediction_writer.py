"""What PredictionWriter leaves in the run's folder, of folders of any images and of splits."""

import csv

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image, ImageOps
from torchvision import tv_tensors

from razorlight.callbacks import PredictionWriter
from razorlight.data import ImageFolder, SegmentationFolder
from razorlight.data.pictures import GUTTER, VOID
from razorlight.data.segmentation import SegmentationData
from razorlight.data.transforms import Pipelines, pipeline
from razorlight.errors import RazorError

SIZE = 32
HALVES = ("left", "right")


class Halves(LightningModule):
    """Tells by red over green, pixel by pixel: class 1, or 7 m, where red."""

    def __init__(self, kind="masks"):
        super().__init__()
        self.kind = kind

    def predict_step(self, batch, batch_idx):
        red = batch[0][:, 0] > batch[0][:, 1]
        if self.kind == "depth":
            return 3.0 + 4.0 * red
        share = red.float().mean((1, 2))
        return red.long() if self.kind == "masks" else torch.stack([1 - share, share], dim=1)

    validation_step = test_step = predict_step


@pytest.fixture
def trainer(tmp_path):
    def make(**kwargs):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        return Trainer(
            accelerator="cpu",
            default_root_dir=tmp_path / "run",
            callbacks=[PredictionWriter(**kwargs)],
            **quiet,
        )

    return make


@pytest.fixture
def photographs(tmp_path):
    """Left half green, right half red, in files of several kinds and shapes."""

    def draw(path, height, width, **options):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[:, : width // 2, 1] = pixels[:, width // 2 :, 0] = 255
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)

    folder = tmp_path / "photographs"
    draw(folder / "wide.png", 60, 100)
    draw(folder / "a" / "high.png", 90, 40)
    draw(folder / "b" / "high.webp", 16, 20, lossless=True)
    return folder


def segmentation(tmp_path, photographs):
    return SegmentationFolder(
        str(tmp_path), list(HALVES), image_size=SIZE, num_workers=0, predict_folder=str(photographs)
    )


def predicted(folder, kind, name):
    return Image.open(folder / "run" / "predictions" / kind / name)


def test_masks_have_the_names_and_sizes_of_the_images(trainer, photographs, tmp_path):
    trainer().predict(Halves(), segmentation(tmp_path, photographs))
    masks = tmp_path / "run" / "predictions" / "masks"
    names = sorted(p.relative_to(masks).as_posix() for p in masks.rglob("*.png"))
    assert names == ["a/high.png", "b/high.png", "wide.png"]
    for name, (width, height) in {
        "wide": (100, 60),
        "a/high": (40, 90),
        "b/high": (20, 16),
    }.items():
        mask = predicted(tmp_path, "masks", f"{name}.png")
        assert (mask.mode, mask.size) == ("P", (width, height))
        expected = np.arange(width)[None].repeat(height, 0) >= width // 2
        # at the border a pixel of the network's input covers both halves
        assert (np.asarray(mask) != expected).mean() <= 2 / SIZE
    assert predicted(tmp_path, "masks", "wide.png").convert("RGB").getpixel((99, 0)) == (128, 0, 0)


def test_overlay_shows_photograph_and_class(trainer, photographs, tmp_path):
    trainer().predict(Halves(), segmentation(tmp_path, photographs))
    picture = np.asarray(predicted(tmp_path, "overlays", "wide.jpg")).astype(int)
    # class 0 is black over green, class 1 dark red over red
    assert np.abs(picture[:, :40] - (0, 128, 0)).max() <= 12
    assert np.abs(picture[:, 60:] - (192, 0, 0)).max() <= 12


@pytest.mark.parametrize("name", ["background", "_background_", "BG"])
def test_the_photograph_stays_as_it_is_where_the_class_is_background(
    trainer, photographs, tmp_path, name
):
    data = segmentation(tmp_path, photographs)
    data.class_names = (name, "right")
    trainer().predict(Halves(), data)
    picture = np.asarray(predicted(tmp_path, "overlays", "wide.jpg")).astype(int)
    assert np.abs(picture[:, :40] - (0, 255, 0)).max() <= 12
    assert np.abs(picture[:, 60:] - (192, 0, 0)).max() <= 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_written_as_it_is_shown(trainer, tmp_path, orientation):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 1] = pixels[:, 30:, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "photographs").mkdir()
    photograph = tmp_path / "photographs" / "a.png"
    Image.fromarray(pixels).save(photograph, exif=exif)
    trainer().predict(Halves(), segmentation(tmp_path, tmp_path / "photographs"))
    trainer().predict(Halves("depth"), segmentation(tmp_path, tmp_path / "photographs"))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(photograph)))
    red = shown[..., 0] > 0
    mask, depth, overlay = (
        np.asarray(predicted(tmp_path, kind, name))
        for kind, name in (("masks", "a.png"), ("depth", "a.png"), ("overlays", "a.jpg"))
    )
    assert mask.shape == depth.shape == overlay.shape[:2] == red.shape
    assert (mask == red).mean() > 0.95
    assert ((depth > 5000) == red).mean() > 0.95
    assert ((overlay[..., 0] > 100) == red).mean() > 0.95


def test_depth_in_millimetres(trainer, photographs, tmp_path):
    trainer().predict(Halves("depth"), segmentation(tmp_path, photographs))
    picture = predicted(tmp_path, "depth", "wide.png")
    values = np.asarray(picture)
    assert picture.mode == "I;16"
    assert values.shape == (60, 100)
    assert (values[:, :40] == 3000).all()
    assert (values[:, 60:] == 7000).all()


@pytest.mark.parametrize("twice", [1, 2])
def test_classes_of_files(trainer, photographs, tmp_path, twice):
    for split in ("train", "val"):
        for name in HALVES:
            (tmp_path / split / name).mkdir(parents=True)
    data = ImageFolder(str(tmp_path), SIZE, num_workers=0, predict_folder=str(photographs))
    for _ in range(twice):
        trainer().predict(Halves("classes"), data)
    with (tmp_path / "run" / "predictions" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(f) for f in sorted(photographs.rglob("*.*"))]
    assert all({row["class"], row["class_2"]} == set(HALVES) for row in rows)
    chances = [float(row["probability"]) + float(row["probability_2"]) for row in rows]
    assert chances == pytest.approx([1.0] * 3)


def test_equal_stems_keep_their_suffixes(trainer, photographs, tmp_path):
    Image.new("RGB", (8, 8), "red").save(photographs / "wide.bmp")
    trainer().predict(Halves(), segmentation(tmp_path, photographs))
    assert predicted(tmp_path, "masks", "wide.bmp.png").size == (8, 8)
    assert predicted(tmp_path, "masks", "wide.png.png").size == (100, 60)


class Split(SegmentationData):
    """Three images whose left half is green and whose right half is red."""

    class_names = HALVES

    def samples(self, split):
        image = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
        image[1, :, : SIZE // 2] = image[0, :, SIZE // 2 :] = 255
        mask = (image[0] > 0).to(torch.uint8)
        mask[0] = 255
        return [(tv_tensors.Image(image), tv_tensors.Mask(mask))] * 3

    def pipelines(self):
        return Pipelines(*[pipeline([], self.mean, self.std)] * 2)


def test_a_split_is_named_by_place(trainer, tmp_path):
    trainer().predict(Halves(), Split(batch_size=2, num_workers=0))
    masks = tmp_path / "run" / "predictions" / "masks"
    assert sorted(path.name for path in masks.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    assert (np.asarray(Image.open(masks / "00002.png"))[:, SIZE // 2 :] == 1).all()


@pytest.mark.parametrize("count", [0, 2])
def test_validation_shows_image_truth_and_prediction(trainer, tmp_path, count):
    trainer(count=count).validate(Halves(), Split(batch_size=2, num_workers=0), verbose=False)
    paths = sorted((tmp_path / "run").rglob("*.png"))
    assert [path.name for path in paths] == [f"val_{n}.png" for n in range(count)]
    for path in paths:
        picture = np.asarray(Image.open(path))
        assert picture.shape == (SIZE, 3 * SIZE + 2 * GUTTER, 3)
        image, truth, prediction = (picture[:, start : start + SIZE] for start in (0, 36, 72))
        assert (image[:, 0] == (0, 255, 0)).all()
        assert (image[:, -1] == (255, 0, 0)).all()
        assert (truth[0] == VOID).all()
        assert (truth[1:] == prediction[1:]).all()
        assert (prediction[:, -1] == (128, 0, 0)).all()


def test_validation_of_depth_shows_what_was_not_measured(trainer, tmp_path):
    class Metres(Split):
        def samples(self, split):
            depth = torch.full((SIZE, SIZE), 7.0)
            depth[0] = 0
            return [(image, tv_tensors.Mask(depth)) for image, _ in super().samples(split)]

    trainer(count=1).validate(Halves("depth"), Metres(num_workers=0), verbose=False)
    picture = np.asarray(Image.open(tmp_path / "run" / "pictures" / "val_0.png"))
    truth, prediction = picture[:, 36 : 36 + SIZE], picture[:, 72:]
    assert (truth[0] == VOID).all()
    assert (truth[1:, -1] == prediction[1:, -1]).all()
    assert (truth[1:, 0].astype(int).sum(-1) < prediction[1:, 0].astype(int).sum(-1)).all()


def test_sanity_check_draws_nothing(trainer, tmp_path):
    class Failing(Halves):
        def on_train_start(self):
            raise KeyError("stop")

        def training_step(self, batch, batch_idx):
            raise AssertionError

        def configure_optimizers(self):
            return None

    with pytest.raises(KeyError, match="stop"):
        trainer().fit(Failing(), Split(num_workers=0))
    assert not list((tmp_path / "run").rglob("*.png"))


def test_masks_without_a_palette_are_refused(trainer):
    data = Split(num_workers=0)
    data.setup("validate")
    with pytest.raises(RazorError, match="no palette; leave PredictionWriter out"):
        trainer().validate(Halves(), data.val_dataloader(), verbose=False)


def test_pictures_of_data_without_mean_and_std_are_refused(trainer):
    data = Split(num_workers=0)
    data.setup("validate")
    with pytest.raises(RazorError, match="no mean and std, which turn its"):
        trainer().validate(Halves("depth"), data.val_dataloader(), verbose=False)


def test_other_predictions_are_refused(trainer):
    class Images(Halves):
        def predict_step(self, batch, batch_idx):
            return batch[0]

    with pytest.raises(RazorError, match="must return probabilities"):
        trainer().predict(Images(), Split(num_workers=0))


def test_negative_count_is_refused():
    with pytest.raises(RazorError, match="count must be 0 or more, got -1"):
        PredictionWriter(count=-1)
