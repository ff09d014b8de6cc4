"""Small data sets of dense prediction, made in the true format of their files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.io import savemat

from razorlight.data.palette import voc_palette

HEIGHT, WIDTH = 40, 56


def write_jpeg(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_mask(path: Path, labels: ArrayLike) -> Path:
    """A PNG with a palette, as annotation tools write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(labels, np.uint8))
    image.putpalette([channel for colour in voc_palette(256) for channel in colour])
    image.save(path)
    return path


def write_depth(path: Path, steps: ArrayLike) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(steps, np.uint16)).save(path)
    return path


def write_mat(path: Path, labels: ArrayLike) -> Path:
    """A file of SBD, compressed as MATLAB does it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    present = np.unique(labels)[:, None]
    annotation = {"Segmentation": np.asarray(labels, np.uint8), "CategoriesPresent": present}
    savemat(path, {"GTcls": annotation}, do_compression=True)
    return path


def stripes(values: Sequence[int], height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.integer]:
    """Upright stripes of equal width, (height, width)."""
    row = np.asarray(values)[np.arange(width) * len(values) // width]
    return np.tile(row, (height, 1))


def ade20k(root: Path) -> None:
    base = root / "ADEChallengeData2016"
    for folder, name in (("training", "train"), ("validation", "val")):
        for number in (1, 2, 3, 4):
            size = (48, 64) if number % 2 else (64, 40)
            stem = f"ADE_{name}_{number:08d}"
            write_jpeg(base / "images" / folder / f"{stem}.jpg", *size)
            labels = stripes((0, 1, 13, 150), *size)
            write_mask(base / "annotations" / folder / f"{stem}.png", labels)


def voc2012(root: Path) -> None:
    base = root / "VOCdevkit" / "VOC2012"
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, stems in {
        "train": ("2007_000032", "2007_000039"),
        "val": ("2007_000033", "2007_000042"),
    }.items():
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            write_jpeg(base / "JPEGImages" / f"{stem}.jpg")
            write_mask(base / "SegmentationClass" / f"{stem}.png", stripes((0, 255, 20, 255)))


def voc_aug(root: Path) -> None:
    """Each list of SBD has one image that VOC has too, and one of its own."""
    voc2012(root)
    for split, stems in {
        "train": ("2007_000032", "2008_000002"),
        "val": ("2007_000033", "2008_000003"),
    }.items():
        for stem in stems:
            write_jpeg(root / "sbd" / "img" / f"{stem}.jpg")
            write_mat(root / "sbd" / "cls" / f"{stem}.mat", stripes((0, 15)))
        (root / "sbd" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))


def cityscapes(root: Path) -> None:
    """Every id of the annotation, and 255 where a licence plate is."""
    base = root / "cityscapes"
    for split, cities in {"train": ("aachen", "zurich"), "val": ("lindau",)}.items():
        for city in cities:
            for frame in ("000000_000019", "000001_000019"):
                stem = f"{city}_{frame}"
                image = base / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
                write_jpeg(image, 48, 105)
                mask = base / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                labels = stripes((*range(34), 255), 48, 105)
                Image.fromarray(labels.astype(np.uint8)).save(mask)


def camvid(root: Path) -> None:
    _masked(root / "camvid", (*range(12), 255), ("0001TP_006690", "0006R0_f00930"))


def segmentation_folder(root: Path) -> None:
    _masked(root, (0, 1, 255), ("a", "b"))


def oxford_pet_trimaps(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for part, numbers in (("trainval", range(1, 9)), ("test", range(9, 12))):
        lines = []
        for number in numbers:
            breed, name = (1, "Abyssinian") if number % 2 else (37, "yorkshire_terrier")
            stem = f"{name}_{number}"
            write_jpeg(base / "images" / f"{stem}.jpg")
            write_mask(base / "annotations" / "trimaps" / f"{stem}.png", stripes((2, 3, 1, 3, 2)))
            lines.append(f"{stem} {breed} {1 + number % 2} {number}\n")
        (base / "annotations" / f"{part}.txt").write_text("".join(lines))


def depth_folder(root: Path) -> None:
    """In millimetres; a third is not measured."""
    for split in ("train", "val"):
        for stem, size in (("kitchen_0001", (48, 64)), ("office_0002", (48, 60))):
            write_jpeg(root / "images" / split / f"{stem}.jpg", *size)
            write_depth(root / "depths" / split / f"{stem}.png", stripes((0, 1500, 4000), *size))


def _masked(base: Path, values: Sequence[int], stems: Sequence[str]) -> None:
    for split in ("train", "val"):
        for number, stem in enumerate(stems):
            size = (HEIGHT + 8 * number, WIDTH)
            write_jpeg(base / "images" / split / f"{stem}.jpg", *size)
            write_mask(base / "masks" / split / f"{stem}.png", stripes(values, *size))


MAKERS: dict[str, Callable[[Path], None]] = {
    "ADE20K": ade20k,
    "CamVid": camvid,
    "Cityscapes": cityscapes,
    "DepthFolder": depth_folder,
    "OxfordPetTrimaps": oxford_pet_trimaps,
    "SegmentationFolder": segmentation_folder,
    "VOC2012": voc2012,
    "VOCAug": voc_aug,
}
"""By the name of the data module, whose ``root`` is the folder that is given."""
