"""What holds for every data module of segmentation, over data in its own format."""

from pathlib import Path

import pytest
import torch
from made_dense import MAKERS
from PIL import Image

import razorlight.data
from razorlight.data.segmentation import SegmentationData
from razorlight.errors import RazorError

CLASSES = {
    "ADE20K": 150,
    "CamVid": 11,
    "Cityscapes": 19,
    "OxfordPetTrimaps": 2,
    "SegmentationFolder": 2,
    "VOC2012": 21,
    "VOCAug": 21,
}

REMEDIES = {
    "ADE20K": r"no folder .*images/training; for ADE20K, unzip http",
    "CamVid": r"no folder .*camvid/images/train; get CamVid from https.*trainannot",
    "Cityscapes": r"Cityscapes: no usable copy in .*register at .* and put gtFine_\w+\.zip",
    "OxfordPetTrimaps": r"OxfordPetTrimaps: no usable copy in .*download: true",
    "SegmentationFolder": r"no folder .*images; SegmentationFolder reads root/{images,masks}",
    "VOC2012": r"VOC2012: no usable copy in .*download: true",
    "VOCAug": r"VOCAug: no usable copy in .*download: true",
}


def module(name: str, root: Path, **kwargs: object) -> SegmentationData:
    if name == "SegmentationFolder":
        kwargs["classes"] = ["background", "object"]
    return getattr(razorlight.data, name)(root=str(root), num_workers=0, **kwargs)


def test_all_are_tested() -> None:
    kinds = {name: getattr(razorlight.data, name) for name in razorlight.data.__all__}
    found = {name for name, kind in kinds.items() if issubclass(kind, SegmentationData)}
    assert found == set(CLASSES) == set(REMEDIES) == set(MAKERS) - {"DepthFolder"}


@pytest.mark.parametrize("name", CLASSES)
def test_batches(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    data = module(name, tmp_path, image_size=(32, 48), batch_size=2)
    data.prepare_data()
    data.setup("fit")
    assert data.num_classes == len(set(data.class_names)) == CLASSES[name]
    assert len(set(data.palette)) == data.num_classes
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images, masks = next(iter(loader))
        assert images.shape[1:] == (3, 32, 48)
        assert images.dtype == torch.float32
        assert masks.shape[1:] == (32, 48)
        assert masks.dtype == torch.int64
        labels = set(masks.unique().tolist())
        assert labels - {255}
        assert labels <= {*range(data.num_classes), 255}


@pytest.mark.parametrize("name", CLASSES)
def test_full_resolution_judges_every_image_at_its_own_size(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    data = module(name, tmp_path, image_size=32, batch_size=2, full_resolution=True)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 32, 32)
    for (images, masks), (image, mask) in zip(
        data.val_dataloader(), data.samples("val"), strict=True
    ):
        assert images.shape == (1, *image.shape)
        assert torch.equal(masks[0], mask.to(torch.int64))


@pytest.mark.parametrize("name", CLASSES)
def test_missing_data_say_how_to_get_them(name: str, tmp_path: Path) -> None:
    download = {"download": False} if "download: true" in REMEDIES[name] else {}
    with pytest.raises(RazorError, match=REMEDIES[name]) as caught:
        module(name, tmp_path, **download).setup("fit")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("Cityscapes", "cityscapes/gtFine/train/zurich/zurich_000001_000019_gtFine_labelIds.png"),
        ("OxfordPetTrimaps", "oxford-iiit-pet/annotations/trimaps/Abyssinian_3.png"),
        ("OxfordPetTrimaps", "oxford-iiit-pet/images/Abyssinian_3.jpg"),
        ("SegmentationFolder", "masks/train/a.png"),
        ("VOC2012", "VOCdevkit/VOC2012/SegmentationClass/2007_000039.png"),
        ("VOCAug", "sbd/cls/2008_000003.mat"),
        ("VOCAug", "sbd/img/2008_000002.jpg"),
    ],
)
def test_half_of_a_pair_is_missed_before_the_run(name: str, lost: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(RazorError, match=rf"^1 files .*{Path(lost).stem}") as caught:
        module(name, tmp_path).setup("fit")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "mask", "label", "known"),
    [
        ("ADE20K", "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png", 151, "1"),
        ("CamVid", "camvid/masks/val/0001TP_006690.png", 12, "0"),
        ("Cityscapes", "*/gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png", 34, "7"),
        ("SegmentationFolder", "masks/val/a.png", 2, "0"),
        ("VOC2012", "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png", 21, "0"),
    ],
)
def test_unexpected_label_names_its_file(
    name: str, mask: str, label: int, known: str, tmp_path: Path
) -> None:
    MAKERS[name](tmp_path)
    (path,) = tmp_path.glob(mask)
    with Image.open(path) as image:
        image.copy().point(lambda value: label).save(path)
    data = module(name, tmp_path)
    data.setup("validate")
    with pytest.raises(RazorError, match=rf"{path.name}: label {label} is outside {known}\.\."):
        list(data.val_dataloader())


def test_sides_below_two(tmp_path: Path) -> None:
    for wrong in (1, (32, 0)):
        with pytest.raises(RazorError, match="image_size"):
            module("VOC2012", tmp_path, image_size=wrong)
