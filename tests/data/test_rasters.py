"""Images of any number of bands: how they are read, cut into windows, normalised and refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from data import made_dense
from data.made_rasters import bands, labels, tiles, write_raster
from PIL import Image

from razorlight.data import ImageFolder, SegmentationFolder
from razorlight.data.augmentation import Augmentation
from razorlight.data.check import check_data
from razorlight.data.image_readers import PICTURES, Window
from razorlight.data.predict_folder import COVERED
from razorlight.data.raster_samples import EMPTY, PredictWindows
from razorlight.data.raster_transforms import PadTo
from razorlight.data.rasters import Rasters, is_raster, reader_of
from razorlight.errors import RazorError


def folder_of(root, **kwargs):
    settings = {"image_size": 32, "batch_size": 2, "num_workers": 0} | kwargs
    return SegmentationFolder(str(root), ["ground", "roof"], **settings)


@pytest.fixture
def without_rasterio(monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setattr("razorlight.data.rasters.find_spec", lambda name: None)


# ---- reading


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 13])
def test_every_number_of_bands_of_every_dtype(tmp_path, count, dtype):
    stored = bands(labels(20, 30), count, dtype)
    path = write_raster(tmp_path / "a.tif", stored)
    reader = reader_of(path, None)
    scale = 255 if dtype == "uint8" else 1
    np.testing.assert_allclose(reader.read(path).numpy(), stored / scale, rtol=1e-6)
    part = reader.read(path, Window(3, 5, 7, 11))
    np.testing.assert_allclose(part.numpy(), stored[:, 3:10, 5:16] / scale, rtol=1e-6)
    assert reader.size(path) == (20, 30)
    assert reader.are_colours == ((count, dtype) == (3, "uint8"))


def test_bands_are_counted_from_one_and_come_in_the_order_given(tmp_path):
    stored = np.arange(4, dtype=np.uint16)[:, None, None] * np.ones((4, 5, 5), np.uint16)
    path = write_raster(tmp_path / "a.tif", stored)
    assert reader_of(path, [4, 1]).read(path)[:, 0, 0].tolist() == [3, 0]


@pytest.mark.parametrize("nodata", [0, -9999, np.nan])
def test_nodata_and_what_is_no_number_are_missing(tmp_path, nodata):
    stored = np.ones((2, 4, 4), np.float32)
    stored[0, 0, 0], stored[1, 1, 1] = nodata, np.inf
    path = write_raster(tmp_path / "a.tif", stored, nodata=nodata)
    missing = reader_of(path, None).read(path).isnan()
    assert missing.nonzero().tolist() == [[0, 0, 0], [1, 1, 1]]


def test_which_files_are_rasters(tmp_path):
    colours = np.zeros((3, 8, 8), np.uint8)
    assert is_raster(write_raster(tmp_path / "placed.tif", colours))
    assert not is_raster(write_raster(tmp_path / "plain.tif", colours, place=None))
    assert is_raster(write_raster(tmp_path / "deep.tif", colours.astype(np.uint16), place=None))
    assert is_raster(write_raster(tmp_path / "float.tif", np.zeros((8, 8), "f4"), place=None))
    assert not is_raster(made_dense.write_jpeg(tmp_path / "a.jpg"))
    Image.fromarray(colours.transpose(1, 2, 0)).save(tmp_path / "a.tif", "PNG")
    assert not is_raster(tmp_path / "a.tif")
    (tmp_path / "empty.tif").touch()
    assert not is_raster(tmp_path / "empty.tif")


def test_pictures_are_read_by_bands_if_they_are_asked_for(tmp_path):
    path = made_dense.write_mask(tmp_path / "a.png", labels(8, 8))
    assert reader_of(path, None) is PICTURES
    assert reader_of(path, [1]).read(path).shape == (1, 8, 8)


def test_a_picture_reads_windows_too(tmp_path):
    path = made_dense.write_jpeg(tmp_path / "a.jpg", 20, 30)
    whole = PICTURES.read(path)
    assert PICTURES.size(path) == (20, 30)
    assert torch.equal(PICTURES.read(path, Window(2, 3, 4, 5)), whole[:, 2:6, 3:8])


# ---- without rasterio


def test_plain_pictures_need_no_rasterio(tmp_path, without_rasterio):
    for name in range(5):
        grey = Image.fromarray(np.full((40, 40, 3), 9, np.uint8))
        grey.save(_new(tmp_path / f"images/{name}.tif"))
        made_dense.write_mask(tmp_path / f"masks/{name}.png", labels(40, 40))
    data = folder_of(tmp_path)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 32, 32)


def _new(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_colours_with_a_place_are_pictures_without_rasterio(tmp_path, request, caplog):
    path = write_raster(tmp_path / "a.tif", np.zeros((3, 8, 8), np.uint8))
    request.getfixturevalue("without_rasterio")
    with caplog.at_level("INFO"):
        assert reader_of(path, None) is PICTURES
    assert 'a place on the earth, which is lost without rasterio; pip install "razor' in caplog.text


def test_bands_need_rasterio(tmp_path, request):
    path = write_raster(tmp_path / "a.tif", np.zeros((13, 8, 8), np.uint16))
    request.getfixturevalue("without_rasterio")
    with pytest.raises(RazorError, match=r'is missing; pip install "razorlight\[geo\]"'):
        reader_of(path, None)


# ---- windows


def test_windows_in_order_cover_each_pixel_once(tmp_path):
    tiles(tmp_path, 2, "uint16", number=3, side=50)
    windows = folder_of(tmp_path, val_fraction=0.4).samples("train").in_order()
    seen = [np.zeros(size) for size in windows.tiling.sizes]
    for index in range(len(windows)):
        number, window = windows.tiling[index]
        seen[number][window.within] += 1
        image, mask = windows[index]
        assert image.shape[-2:] == mask.shape
        whole = labels(*windows.tiling.sizes[number])
        assert np.array_equal(mask.numpy(), whole[window.within])
    assert all((each == 1).all() for each in seen)


def test_training_windows_lie_anywhere_and_others_do_not_move(tmp_path):
    tiles(tmp_path, 2, "uint16", side=100)
    data = folder_of(tmp_path)
    train, val = data.samples("train"), data.samples("val")
    torch.manual_seed(0)
    places = {train[0][0].sum().item() for _ in range(8)}
    assert len(places) == 8
    assert torch.equal(val[1][0], val[1][0])
    assert train[0][0].shape == (2, 32, 32)


def test_a_file_is_never_read_whole(tmp_path, monkeypatch):
    tiles(tmp_path, 1, "uint16", side=90)
    read, sizes = rasterio.io.DatasetReader.read, []

    def spied(self, *args, **kwargs):
        found = read(self, *args, **kwargs)
        sizes.append(found.shape[-1] * found.shape[-2])
        return found

    monkeypatch.setattr(rasterio.io.DatasetReader, "read", spied, raising=False)
    monkeypatch.setattr("razorlight.data.normalisation.SIDE", 32)
    data = folder_of(tmp_path, predict_folder=str(tmp_path / "images"))
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()):
        for images, _ in loader:
            assert images.shape[-2:] == (32, 32)
    assert max(sizes) == 32 * 32


def test_cores_to_predict_cover_each_pixel_once(tmp_path):
    stored = bands(labels(75, 90), 2, "float32")
    stored[:, :5] = -9999
    write_raster(tmp_path / "a.tif", stored, nodata=-9999)
    write_raster(tmp_path / "b.tif", bands(labels(10, 7), 2, "float32"), nodata=-9999)
    windows = folder_of(tmp_path, predict_folder=str(tmp_path)).predict_images
    assert isinstance(windows, PredictWindows)
    seen = [np.zeros(size) for size in windows.tiling.sizes]
    for index in range(len(windows)):
        number, core = windows.tiling[index]
        image, region = windows[index]
        shown = (region == COVERED) | (region == EMPTY)
        assert shown.sum() == core.height * core.width
        within = stored if number == 0 else bands(labels(10, 7), 2, "float32")
        there = image.numpy()[:, shown.numpy()].reshape(2, core.height, core.width)
        expected = within[(slice(None), *core.within)]
        assert np.array_equal(np.nan_to_num(there, nan=-9999), expected)
        assert ((region == EMPTY).numpy()[shown.numpy()] == (expected[0] == -9999).ravel()).all()
        seen[number][core.within] += 1
    assert all((each == 1).all() for each in seen)


def test_small_images_are_padded_by_what_counts_for_nothing(tmp_path):
    tiles(tmp_path, 4, "uint8", side=20)
    data = folder_of(tmp_path, image_size=[32, 64])
    data.setup("fit")
    images, masks = next(iter(data.val_dataloader()))
    assert images.shape == (1, 4, 32, 64)
    assert (masks[:, 20:] == 255).all()
    assert images[:, :, 20:].abs().max() < 1e-5
    assert PadTo((2, 2))(torch.zeros(1, 4, 4)).shape == (1, 4, 4)


# ---- masks


def test_nodata_of_masks_is_ignored_unless_label_map_names_it(tmp_path, caplog):
    for name in range(5):
        write_raster(tmp_path / f"images/{name}.tif", bands(labels(32, 32), 2, "uint16"))
        write_raster(tmp_path / f"masks/{name}.tif", labels(32, 32), nodata=0)
    with caplog.at_level("INFO"):
        mask = folder_of(tmp_path).samples("val")[0][1]
    assert mask.unique().tolist() == [1, 255]
    assert "0 is ignored in" in caplog.text
    assert "to read it as a class, set label_map: {0: CLASS}" in caplog.text
    named = folder_of(tmp_path, label_map={0: 0}).samples("val")[0][1]
    assert named.unique().tolist() == [0, 1]


def test_where_images_have_no_data_masks_are_ignored(tmp_path):
    tiles(tmp_path, 2, "uint16", nodata=0)
    path = tmp_path / "images/0.tif"
    with rasterio.open(path, "r+") as file:
        file.write(np.zeros((2, 4, 4), np.uint16), window=((0, 4), (0, 4)))
    data = folder_of(tmp_path, image_size=64, val_fraction=0.9)
    windows = [data.samples(split).in_order() for split in ("train", "val")]
    (found,) = [s[i][1] for s in windows for i in range(len(s)) if s.files(i)[0] == path]
    assert (found[:4, :4] == 255).all()
    assert (found == 255).sum() == 16


def test_random_windows_look_for_a_class(tmp_path):
    mask = np.full((400, 40), 255, np.uint8)
    mask[:200] = 1
    for name in range(5):
        write_raster(tmp_path / f"images/{name}.tif", bands(mask, 1, "uint16"))
        write_raster(tmp_path / f"masks/{name}.tif", mask)
    train = folder_of(tmp_path).samples("train")
    torch.manual_seed(0)
    assert all((train[index][1] != 255).any() for index in range(len(train)))


def test_label_counts_are_those_of_whole_masks(tmp_path):
    tiles(tmp_path, 2, "uint16", side=50)
    data = folder_of(tmp_path)
    files = {data.samples("train").files(i)[1] for i in range(len(data.samples("train")))}
    whole = np.concatenate([np.asarray(Image.open(path)).ravel() for path in files])
    assert data.label_counts() == {0: (whole == 0).sum(), 1: (whole == 1).sum()}


@pytest.mark.parametrize(("count", "dtype"), [(5, "float32"), (3, "uint8")])
def test_a_blank_batch_has_the_bands(tmp_path, count, dtype):
    tiles(tmp_path, count, dtype)
    images, masks = folder_of(tmp_path).blank_batch()
    assert (images.shape, masks.shape) == ((2, count, 32, 32), (2, 32, 32))


# ---- mean and standard deviation


def test_bands_are_normalised_by_the_training_images(tmp_path):
    tiles(tmp_path, 3, "uint16", nodata=0)
    with rasterio.open(tmp_path / "images/1.tif", "r+") as file:
        file.write(np.zeros((3, 9, 9), np.uint16), window=((0, 9), (0, 9)))
    data = folder_of(tmp_path)
    files = {path for path, _ in data.samples("train").pairs}
    stored = np.concatenate([rasterio.open(path).read().reshape(3, -1) for path in files], axis=1)
    known = np.ma.masked_equal(stored, 0)
    assert data.mean == pytest.approx(known.mean(1).tolist())
    assert data.std == pytest.approx(known.std(1).tolist())
    data.setup("fit")
    images, masks = next(iter(data.val_dataloader()))
    original = data.samples("val")[0][0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    expected = (original - mean) / std
    torch.testing.assert_close(images[0], expected.as_subclass(torch.Tensor))
    assert masks.shape == images[:, 0].shape


def test_colours_keep_the_mean_of_the_configuration(tmp_path):
    tiles(tmp_path, 3, "uint8")
    data = folder_of(tmp_path, mean=[0.5] * 3, std=[0.25] * 3)
    assert (data.mean, data.std) == ([0.5] * 3, [0.25] * 3)
    data.setup("fit")
    data.load_state_dict(
        {"mean": [0.1] * 3, "std": [0.2] * 3, "bands": [1, 2, 3], "dtype": "uint8"}
    )
    assert data.mean == [0.5] * 3


def test_a_band_of_one_value_is_not_blown_up(tmp_path):
    for name in range(5):
        write_raster(tmp_path / f"images/{name}.tif", np.full((1, 32, 32), 7000, np.uint16))
        write_raster(tmp_path / f"masks/{name}.tif", labels(32, 32))
    assert folder_of(tmp_path).std == [1.0]


def test_a_band_without_data_is_refused(tmp_path):
    stored = np.ones((2, 32, 32), np.float32)
    stored[1] = np.nan
    for name in range(5):
        write_raster(tmp_path / f"images/{name}.tif", stored)
        write_raster(tmp_path / f"masks/{name}.tif", labels(32, 32))
    with pytest.raises(RazorError, match="the band at place 2 has no data in 4 windows"):
        _ = folder_of(tmp_path).mean


def test_other_bands_than_those_of_training_are_refused(tmp_path):
    tiles(tmp_path, 4, "uint16")
    state = folder_of(tmp_path, bands=[1, 2]).state_dict()
    assert (state["bands"], state["dtype"], len(state["mean"])) == ([1, 2], "uint16", 2)
    match = r"trained on bands \[1, 2\] of uint16, and the images are bands \[2, 1\] of uint16"
    with pytest.raises(RazorError, match=match):
        folder_of(tmp_path, bands=[2, 1]).load_state_dict(state)
    with pytest.raises(RazorError, match="trained on pictures, and the images are bands"):
        folder_of(tmp_path).load_state_dict({"mean": [0.5] * 3, "std": [0.5] * 3})


def test_without_checkpoint_and_training_images_the_mean_is_not_known(tmp_path):
    write_raster(tmp_path / "new/a.tif", bands(labels(32, 32), 4, "uint16"))
    data = folder_of(tmp_path / "none", predict_folder=str(tmp_path / "new"))
    data.setup("predict")
    with pytest.raises(RazorError, match=r"give --ckpt_path, or the images: no folder .*none"):
        data.predict_dataloader()


# ---- what is refused


def broken(root):
    (root / "images/0.tif").write_bytes((root / "images/0.tif").read_bytes()[:60])


def of_other_bands(root):
    write_raster(root / "images/2.tif", bands(labels(48, 64), 3, "uint16"))


def of_other_dtype(root):
    write_raster(root / "images/2.tif", bands(labels(48, 64), 4, "float32"))


def of_other_size(root):
    write_raster(root / "masks/2.tif", labels(48, 60))


def complex_numbers(root):
    write_raster(root / "images/0.tif", np.zeros((4, 48, 48), np.complex64))


def of_another_format(root):
    (root / "images/2.tif").write_text("no image")


@pytest.mark.parametrize(
    ("spoil", "bands_given", "message"),
    [
        (broken, None, r"cannot read image .*0.tif: "),
        (of_other_bands, None, r"2.tif has 3 bands, others have 4; set bands to those that all"),
        (of_other_bands, [4], r"bands: there is no band 4 in .*2.tif; its bands are 1 to 3"),
        (of_other_dtype, None, r"2.tif holds float32, others hold uint16; convert it"),
        (of_other_size, None, r"2.tif is 48x64 pixels .*masks/2.tif 48x60; they must be equal"),
        (complex_numbers, None, r"0.tif holds complex64; save it as whole numbers or floats"),
        (of_another_format, None, r"cannot read image .*2.tif: it is no TIFF, PNG or JPEG"),
        (lambda root: None, [5], r"bands: there is no band 5 in .*0.tif; its bands are 1 to 4"),
        (lambda root: None, [0], r"bands: there is no band 0 in"),
        (lambda root: None, [], r"bands: the list is empty"),
    ],
)
def test_mistakes_are_lines(tmp_path, spoil, bands_given, message):
    tiles(tmp_path, 4, "uint16", number=5)
    spoil(tmp_path)
    with pytest.raises(RazorError, match=message) as caught:
        folder_of(tmp_path, bands=bands_given).setup("fit")
    assert "\n" not in str(caught.value)


def test_other_bands_of_all_images_may_be_chosen(tmp_path):
    tiles(tmp_path, 4, "uint16")
    of_other_bands(tmp_path)
    folder_of(tmp_path, bands=[3, 1]).setup("fit")


def test_images_to_predict_must_be_as_those_of_training(tmp_path):
    tiles(tmp_path, 4, "uint16")
    write_raster(tmp_path / "new/a.tif", bands(labels(32, 32), 3, "uint16"))
    data = folder_of(tmp_path, predict_folder=str(tmp_path / "new"))
    with pytest.raises(
        RazorError, match=r"a.tif is 3 x uint16, and training images are read with 4"
    ):
        _ = data.predict_images


def test_a_reader_of_bands_is_had_before_there_are_images():
    assert reader_of(None, [4, 3]) == Rasters((4, 3), "uint8", False)
    assert reader_of(None, None) is PICTURES


# ---- what is found before a run


def test_check_finds_what_is_wrong_within_windows(tmp_path):
    tiles(tmp_path, 4, "uint16", number=5)
    mask = labels(48, 64)
    mask[40, 50] = 7
    write_raster(tmp_path / "masks/2.tif", mask)
    found = check_data(folder_of(tmp_path, val_fraction=0.21))
    assert sum(facts.samples for facts in found.splits.values()) == 4 + 4 + 4 + 6 + 6
    assert len(found.faults) == 1
    assert "masks/2.tif: label 7 is outside 0..1" in found.faults[0]
    facts = found.splits["train"]
    assert facts.modes.keys() == {"4 x uint16"}
    assert facts.sizes.keys() <= {(48, 48 + 8 * name) for name in range(5)}
    assert len(facts.mean) == len(facts.std) == 4
    assert not found.warnings


# ---- classification


@pytest.mark.parametrize(("count", "dtype"), [(13, "float32"), (3, "uint8"), (1, "uint16")])
def test_class_folders(tmp_path, count, dtype):
    for label in (0, 1):
        for name in range(5):
            stored = bands(np.full((24, 24), label), count, dtype, name)
            stored[:, :3, :3] = 0
            write_raster(tmp_path / f"{label}/{name}.tif", stored, nodata=0)
    data = ImageFolder(
        str(tmp_path), 16, augment=Augmentation(randaugment=9), batch_size=4, num_workers=0
    )
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images, _ = next(iter(loader))
        assert images.shape[1:] == (count, 16, 16)
        assert images.isfinite().all()
    assert data.blank_batch()[0].shape == (4, count, 16, 16)
