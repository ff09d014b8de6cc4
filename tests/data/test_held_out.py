"""A folder without ``val``: what is held out, and masks that are named and numbered otherwise."""

from collections import Counter
from pathlib import Path

import made_dense
import numpy as np
import pytest
from made_classification import write_image

from razorlight.data import DepthFolder, ImageFolder, SegmentationFolder
from razorlight.errors import RazorError

FEW, MANY = 4, 20


@pytest.fixture
def photos(tmp_path):
    """Class folders and nothing else: 20 oaks, 4 birches, one rock."""
    root = tmp_path / "photos"
    for name, count in (("birch", FEW), ("oak", MANY), ("rock", 1)):
        for number in range(count):
            write_image(root / name / f"{number}.jpg")
    return root


@pytest.fixture
def roofs(tmp_path):
    """Ten images, and masks of black and white whose names end otherwise."""
    root = tmp_path / "roofs"
    for number in range(10):
        made_dense.write_jpeg(root / "images" / f"{number:04}.jpg", 8, 8)
        mask = np.where(np.eye(8), 255, 0)
        made_dense.write_mask(root / "masks" / f"{number:04}_mask.png", mask)
    return root


def folder_of(root, **kwargs):
    return ImageFolder(str(root), num_workers=0, **kwargs)


def roofs_of(root, **kwargs):
    return SegmentationFolder(str(root), ["other", "roof"], num_workers=0, **kwargs)


def names(data, split):
    return [path.relative_to(data.root).as_posix() for path in data.samples(split).files]


def stems(data, split):
    return [image.stem for image, _ in data.samples(split).pairs]


def test_a_share_of_each_class_is_held_out_and_one_line_says_so(photos, caplog):
    data = folder_of(photos)
    with caplog.at_level("INFO"):
        data.setup("fit")
    line = (
        f"there is no folder val: 5 of the 25 images of {photos} are held out for validation, "
        "in every run the same (val_fraction 0.2, split_seed 0)"
    )
    assert caplog.messages.count(line) == 1
    assert data.class_names == ("birch", "oak", "rock")
    train, val = names(data, "train"), names(data, "val")
    assert sorted(train + val) == sorted(
        p.relative_to(photos).as_posix() for p in photos.rglob("*.jpg")
    )
    assert Counter(name.split("/")[0] for name in val) == {"birch": 1, "oak": 4}


def test_every_stage_and_every_run_holds_out_the_same(photos, tmp_path):
    runs = [folder_of(photos) for _ in range(3)]
    for data, stage in zip(runs, ("fit", "validate", "predict"), strict=True):
        data.setup(stage)
    assert {tuple(data._samples["val"].files) for data in runs} == {
        tuple(runs[0].samples("val").files)
    }
    assert names(folder_of(photos, split_seed=1), "val") != names(runs[0], "val")
    moved = photos.rename(tmp_path / "moved")
    assert names(folder_of(moved), "val") == names(folder_of(moved), "val") != []


def test_files_that_come_later_move_few_of_the_others(photos):
    before = set(names(folder_of(photos), "val"))
    for number in range(MANY, MANY + 10):
        write_image(photos / "oak" / f"{number}.jpg")
    after = set(names(folder_of(photos), "val"))
    assert len(after) == 1 + 6
    moved = {name for name in before - after if int(Path(name).stem) < MANY}
    assert len(moved) <= 2


@pytest.mark.parametrize(("fraction", "held_out"), [(0.01, 2), (0.5, 12), (0.99, 3 + 19)])
def test_no_class_loses_its_only_or_its_last_image(photos, fraction, held_out):
    data = folder_of(photos, val_fraction=fraction)
    assert len(names(data, "val")) == held_out
    assert {name.split("/")[0] for name in names(data, "train")} == {"birch", "oak", "rock"}


@pytest.mark.parametrize("fraction", [0.2, 0.25, 1 / 3])
def test_folds_are_all_images_once(photos, fraction):
    folds = range(round(1 / fraction))
    data = [folder_of(photos, val_fraction=fraction, val_fold=fold) for fold in folds]
    held_out = [name for each in data for name in names(each, "val")]
    assert len(held_out) == len({*held_out})
    everything = {*names(data[0], "val"), *names(data[0], "train")}
    assert everything - {*held_out} <= {name for name in everything if "rock" in name}  # the only
    for each in data:
        assert not {*names(each, "val")} & {*names(each, "train")}
    with pytest.raises(RazorError, match="val_fold is 9; a val_fraction of"):
        folder_of(photos, val_fraction=fraction, val_fold=9)


def test_a_fold_beside_a_folder_val(tmp_path):
    for split in ("train", "val"):
        write_image(tmp_path / split / "oak" / "1.jpg")
    data = folder_of(tmp_path, val_fold=1)
    with pytest.raises(RazorError, match=r"val_fold is 1, and .*val is validated in any case"):
        data.setup("fit")


def test_train_without_val_is_divided_and_test_is_left_alone(photos):
    train = photos / "train"
    train.mkdir()
    for name in ("birch", "oak", "rock"):
        (photos / name).rename(train / name)
    write_image(photos / "test" / "oak" / "0.jpg")
    data = folder_of(photos)
    assert data.class_names == ("birch", "oak", "rock")
    assert data.splits == ("train", "val", "test")
    assert names(data, "test") == ["test/oak/0.jpg"]
    assert (len(names(data, "train")), len(names(data, "val"))) == (20, 5)


def test_a_folder_val_is_taken_as_it_is(photos, caplog):
    (photos / "train").mkdir()
    for name in ("birch", "oak", "rock"):
        (photos / name).rename(photos / "train" / name)
    write_image(photos / "val" / "rock" / "0.jpg")
    with caplog.at_level("INFO"):
        assert names(folder_of(photos), "val") == ["val/rock/0.jpg"]
    assert len(names(folder_of(photos), "train")) == 25
    assert caplog.messages == []


@pytest.mark.parametrize(
    "others", [["Train", "Val"], ["train", "validation"], ["training", "test"]]
)
def test_splits_of_other_names_are_no_classes(tmp_path, others):
    for name in others:
        write_image(tmp_path / name / "oak" / "0.jpg")
    with pytest.raises(RazorError, match="which seem to be splits; call the folders of splits"):
        folder_of(tmp_path).setup("fit")


def test_classes_may_be_called_like_splits_beside_others(tmp_path):
    for name in ("valid", "invalid"):
        for number in range(5):
            write_image(tmp_path / name / f"{number}.jpg")
    assert folder_of(tmp_path).class_names == ("invalid", "valid")


def test_a_folder_that_cannot_be_divided(tmp_path):
    write_image(tmp_path / "oak" / "0.jpg")
    with pytest.raises(RazorError, match=r"val_fraction 0.2 of 1 samples leaves a split empty"):
        folder_of(tmp_path).setup("fit")
    with pytest.raises(RazorError, match=rf"no folder {tmp_path}/train"):
        folder_of(tmp_path, val_fraction=None).setup("fit")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 20])
def test_a_fraction_out_of_range(fraction):
    with pytest.raises(RazorError, match=rf"val_fraction is {fraction}; choose it in \(0, 1\)"):
        folder_of("anywhere", val_fraction=fraction)


def test_masks_named_and_numbered_otherwise(roofs):
    data = roofs_of(roofs, mask_suffix="_mask", label_map={255: 1}, image_size=8)
    assert (len(stems(data, "train")), len(stems(data, "val"))) == (8, 2)
    assert {*stems(data, "train"), *stems(data, "val")} == {f"{n:04}" for n in range(10)}
    data.setup("validate")
    _, masks = next(iter(data.val_dataloader()))
    assert masks.tolist() == [np.eye(8, dtype=int).tolist()] * 2


def test_the_suffix_of_masks_is_found_where_it_is_missing(roofs):
    with pytest.raises(
        RazorError, match=r"20 files of .* lack a partner .*; set mask_suffix: _mask"
    ):
        roofs_of(roofs).setup("fit")
    (roofs / "masks" / "0003_mask.png").unlink()
    with pytest.raises(RazorError, match=r"0000.jpg, .*; add what is missing or move these away"):
        roofs_of(roofs).setup("fit")
    with pytest.raises(RazorError, match=r"1 files of .*, first .*/0003.jpg; add what is missing"):
        roofs_of(roofs, mask_suffix="_mask").setup("fit")


def test_masks_that_are_no_png(roofs):
    with pytest.raises(
        RazorError, match=r"no .png .tif .tiff files with names that end in _seg in .*/masks; Seg"
    ):
        roofs_of(roofs, mask_suffix="_seg").setup("fit")
    for mask in (roofs / "masks").iterdir():
        mask.rename(mask.with_suffix(".jpg"))
    with pytest.raises(
        RazorError, match=r"no .png .tif .tiff files in .*/masks; SegmentationFolder reads"
    ):
        roofs_of(roofs).setup("fit")


def test_a_suffix_passes_over_files_that_are_no_masks(roofs):
    made_dense.write_mask(roofs / "masks" / "0003_outline.png", np.eye(8))
    assert len(stems(roofs_of(roofs, mask_suffix="_mask"), "train")) == 8


def test_a_number_without_a_class_names_the_way_out(roofs):
    made_dense.write_mask(roofs / "masks" / "0000_mask.png", np.full((8, 8), 128))
    plain = roofs_of(roofs, mask_suffix="_mask")
    split = "train" if "0000" in stems(plain, "train") else "val"
    with pytest.raises(RazorError, match=r"label 128 is outside 0..1 .*, or set label_map: \{128"):
        [*plain.samples(split)]
    mapped = {128: 255, 255: 1}
    both = [
        roofs_of(roofs, mask_suffix="_mask", label_map=mapped).samples(s) for s in ("train", "val")
    ]
    assert {n for samples in both for _, mask in samples for n in mask.unique().tolist()} == {
        0,
        1,
        255,
    }


@pytest.mark.parametrize("wrong", [{255: 2}, {255: -1}, {-1: 0}, {2**16: 1}])
def test_a_label_map_out_of_range(wrong):
    with pytest.raises(
        RazorError, match=r"label_map: .* is outside of the classes; map numbers, 0"
    ):
        roofs_of("anywhere", label_map=wrong)


def test_depths_in_one_folder(tmp_path):
    for number in range(10):
        made_dense.write_jpeg(tmp_path / "images" / f"{number}.jpg", 8, 8)
        made_dense.write_depth(
            tmp_path / "depths" / f"{number}.png", np.full((8, 8), 1000 + number)
        )
    data = DepthFolder(str(tmp_path), num_workers=0, image_size=8)
    data.setup("fit")
    val = data.samples("val")
    assert len(data.samples("train")) == 8
    assert [round(1000 * depth.mean().item() - 1000) for _, depth in val] == [
        int(stem) for stem in stems(data, "val")
    ]
