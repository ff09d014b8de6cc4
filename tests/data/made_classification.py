"""Small classification sets in their true formats on disk, every class in each part.

:data:`MAKERS` has, by the name of the data module, what writes its data below a folder. The files
are not those whose checksums torchvision knows: :func:`accept_made_files` makes it content with
their presence.
"""

import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets


def accept_made_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision take any file for intact that is there."""
    for module in ("cifar", "flowers102"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5: Path(path).is_file()
        )


def write_image(path: Path, height: int = 24, width: int = 30, format: str = "JPEG") -> Path:
    """A picture of one colour that follows from its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(np.random.default_rng(list(path.name.encode())).integers(0, 256, 3).tolist())
    Image.new("RGB", (width, height), colour).save(path, format)
    return path


def write_lines(path: Path, lines: Iterable[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def _cifar(root: Path, source: type[datasets.CIFAR10], key: str, classes: int) -> None:
    """Pickled batches of one image of each class."""
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, _ in [*source.train_list, *source.test_list]:
        pixels = rng.integers(0, 256, (classes, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, key: [*range(classes)]}))
    names = {source.meta["key"]: [f"class{label}" for label in range(classes)]}
    (folder / source.meta["filename"]).write_bytes(pickle.dumps(names))


def make_cifar10(root: Path) -> None:
    _cifar(root, datasets.CIFAR10, "labels", 10)


def make_cifar100(root: Path) -> None:
    _cifar(root, datasets.CIFAR100, "fine_labels", 100)


def make_food101(root: Path) -> None:
    base = root / "food-101"
    for part in ("train", "test"):
        listed = {f"dish_{c:03}": [f"dish_{c:03}/{part}{c}"] for c in range(101)}
        for stems in listed.values():
            write_image(base / "images" / f"{stems[0]}.jpg")
        (base / "meta").mkdir(exist_ok=True)
        (base / "meta" / f"{part}.json").write_text(json.dumps(listed))


def make_flowers102(root: Path) -> None:
    base = root / "flowers-102"
    ids = np.arange(1, 307)
    for number in ids:
        write_image(base / "jpg" / f"image_{number:05}.jpg")
    savemat(base / "imagelabels.mat", {"labels": (ids - 1) % 102 + 1})
    savemat(
        base / "setid.mat",
        {"trnid": ids[:102], "valid": ids[102:204], "tstid": ids[204:]},
    )


def make_fgvc_aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    variants = [f"Boeing 737-{c:03}" for c in range(100)]
    write_lines(data / "variants.txt", variants)
    lines: dict[str, list[str]] = {}
    for number, part in enumerate(("train", "val", "test")):
        ids = [f"{number}{c:06}" for c in range(100)]
        for image in ids:
            write_image(data / "images" / f"{image}.jpg")
        lines[part] = [f"{image} {variant}" for image, variant in zip(ids, variants, strict=True)]
    lines["trainval"] = lines["train"] + lines["val"]
    for part, listed in lines.items():
        write_lines(data / f"images_variant_{part}.txt", listed)


def make_stanford_cars(root: Path) -> None:
    base = root / "stanford_cars"
    names = np.array([f"Make Model {c} 2012" for c in range(196)], dtype=object)
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    fields = [*((side, "O") for side in ("x1", "y1", "x2", "y2")), ("class", "O"), ("fname", "O")]
    for part, file in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        rows = [(1, 1, 30, 24, np.uint8(c + 1), f"{c + 1:05}.jpg") for c in range(196)]
        for row in rows:
            write_image(base / f"cars_{part}" / str(row[-1]))
        savemat(base / file, {"annotations": np.array(rows, dtype=fields)})


def make_cub200(root: Path) -> None:
    base = root / "CUB_200_2011"
    classes = [f"{c:03}.Bird_{c}" for c in range(1, 201)]
    paths = [f"{name}/{name[4:]}_{number}.jpg" for name in classes for number in (1, 2)]
    for path in paths:
        write_image(base / "images" / path)
    ids = range(1, len(paths) + 1)
    write_lines(base / "classes.txt", [f"{c} {name}" for c, name in enumerate(classes, start=1)])
    write_lines(base / "images.txt", [f"{i} {path}" for i, path in zip(ids, paths, strict=True)])
    write_lines(base / "image_class_labels.txt", [f"{i} {(i + 1) // 2}" for i in ids])
    write_lines(base / "train_test_split.txt", [f"{i} {i % 2}" for i in ids])


def make_imagenet(root: Path) -> None:
    for split in ("train", "val"):
        for wnid in ("n01440764", "n01443537", "n15075141"):
            for number in range(2):
                write_image(root / "imagenet" / split / wnid / f"{wnid}_{number}.JPEG")


def make_dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    for part in ("train", "val", "test"):
        names = [f"texture{c:02}/texture{c:02}_{part}.jpg" for c in range(47)]
        for name in names:
            write_image(base / "images" / name)
        write_lines(base / "labels" / f"{part}1.txt", names)


def make_eurosat(root: Path) -> None:
    for c in range(10):
        for number in range(1, 6):
            write_image(root / "eurosat" / "2750" / f"Land{c}" / f"Land{c}_{number}.jpg", 64, 64)


def make_oxford_pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    trimap = np.full((24, 30), 2, np.uint8)
    trimap[4:20, 4:20] = 3
    trimap[6:18, 6:18] = 1
    (base / "annotations" / "trimaps").mkdir(parents=True)
    for number, part in enumerate(("trainval", "test")):
        stems = [f"a_breed{c:02}_{number}" for c in range(37)]
        for stem in stems:
            write_image(base / "images" / f"{stem}.jpg")
            Image.fromarray(trimap).save(base / "annotations" / "trimaps" / f"{stem}.png")
        lines = [f"{stem} {breed} 1 1" for breed, stem in enumerate(stems, start=1)]
        write_lines(base / "annotations" / f"{part}.txt", lines)


def make_image_folder(root: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(3):
                write_image(root / split / name / f"{number}.jpg")


def make_csv(root: Path) -> None:
    """A CSV that has targets of each kind; a column divides it."""
    lines = ["file,split,label,species,labels,tags,cat,dog,age,target"]
    for number, split in enumerate(["train"] * 6 + ["val"] * 3 + ["test"] * 3):
        write_image(root / "images" / f"{number}.jpg")
        cat, dog = number % 2, number % 3 == 0
        tags = ";".join(["cat"] * cat + ["dog"] * dog + ["sky"] * (number % 4 == 0))
        name = "cat" if cat else "dog"
        cells = [name, name, tags, tags, cat, int(dog), number / 2, 100 + number**2]
        lines.append(f"{number}.jpg,{split},{','.join(map(str, cells))}")
    write_lines(root / "table.csv", lines)


MAKERS: dict[str, Callable[[Path], None]] = {
    "CIFAR10": make_cifar10,
    "CIFAR100": make_cifar100,
    "CUB200": make_cub200,
    "ClassificationCSV": make_csv,
    "DTD": make_dtd,
    "EuroSAT": make_eurosat,
    "FGVCAircraft": make_fgvc_aircraft,
    "Flowers102": make_flowers102,
    "Food101": make_food101,
    "ImageFolder": make_image_folder,
    "ImageNet": make_imagenet,
    "MultiLabelCSV": make_csv,
    "OxfordPetTrimaps": make_oxford_pets,
    "OxfordPets": make_oxford_pets,
    "RegressionCSV": make_csv,
    "StanfordCars": make_stanford_cars,
}
"""Writers of data, by the name of the data module that reads it below the same folder."""
