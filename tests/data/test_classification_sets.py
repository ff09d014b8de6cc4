"""The public classification sets, made small in their own formats."""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from made_classification import MAKERS, accept_made_files, make_cifar10, write_image
from torchvision import datasets

import razorlight.data as data_package
from razorlight.data import CIFAR10, CUB200, ImageNet
from razorlight.data.held_out import hold_out
from razorlight.data.public_set import PublicSet
from razorlight.errors import RazorError

SETS = {
    # classes, images to train, val and test as made, first and last class
    "CIFAR10": (10, (45, 5, 10), "class0", "class9"),
    "CIFAR100": (100, (90, 10, 100), "class0", "class99"),
    "CUB200": (200, (180, 20, 200), "Bird 1", "Bird 200"),
    "DTD": (47, (47, 47, 47), "texture00", "texture46"),
    "EuroSAT": (10, (36, 4, 10), "Land0", "Land9"),
    "FGVCAircraft": (100, (100, 100, 100), "Boeing 737-000", "Boeing 737-099"),
    "Flowers102": (102, (102, 102, 102), "pink primrose", "blackberry lily"),
    "Food101": (101, (91, 10, 101), "dish_000", "dish_100"),
    "OxfordPets": (37, (33, 4, 37), "A Breed00", "A Breed36"),
    "StanfordCars": (196, (176, 20, 196), "Make Model 0 2012", "Make Model 195 2012"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of data that no test changes."""
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            MAKERS[name](folders[name])
        return folders[name]

    return make


@pytest.fixture
def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    accept_made_files(monkeypatch)


def build(name: str, root: Path, **arguments: Any) -> PublicSet:
    kind = getattr(data_package, name)
    offline = {"download": False} if hasattr(kind, "source") else {}
    return kind(str(root), **{"image_size": 16, "num_workers": 0, **offline, **arguments})


def targets(samples: Any) -> list[int]:
    return [samples[index][1] for index in range(len(samples))]


def one_line(caught: pytest.ExceptionInfo[RazorError]) -> None:
    assert "\n" not in str(caught.value)


def test_every_set_is_here() -> None:
    public = {
        name for name in data_package.__all__ if issubclass(getattr(data_package, name), PublicSet)
    }
    assert public == SETS.keys()


@pytest.mark.usefixtures("no_checksums")
@pytest.mark.parametrize("name", SETS)
def test_splits_batches_and_names(name: str, made: Callable[[str], Path]) -> None:
    classes, sizes, first, last = SETS[name]
    data = build(name, made(name), batch_size=8)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    assert tuple(len(loader.dataset) for loader in loaders) == sizes
    for loader in loaders:
        images, labels = next(iter(loader))
        assert images.shape == (len(labels), 3, 16, 16)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
    if name != "EuroSAT":
        assert sorted(targets(data.samples("test"))) == list(range(classes))
    assert len(data.class_names) == data.num_classes == classes
    assert (data.class_names[0], data.class_names[-1]) == (first, last)


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_read_nor_made_until_asked(name: str, tmp_path: Path) -> None:
    data = build(name, tmp_path / "nowhere")
    assert data.num_classes == SETS[name][0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SETS)
def test_missing(name: str, tmp_path: Path) -> None:
    data = build(name, tmp_path)
    message = f"{name}: no usable copy in .*{tmp_path.name}.*root"
    steps = (data.prepare_data, lambda: data.setup("fit"), lambda: data.class_names)
    for step in steps:
        with pytest.raises(RazorError, match=message) as caught:
            step()
        one_line(caught)


LISTS = {
    "CIFAR10": "cifar-10-batches-py/test_batch",
    "CIFAR100": "cifar-100-python/meta",
    "CUB200": "CUB_200_2011/image_class_labels.txt",
    "DTD": "dtd/dtd/labels/test1.txt",
    "FGVCAircraft": "fgvc-aircraft-2013b/data/images_variant_test.txt",
    "Flowers102": "flowers-102/setid.mat",
    "Food101": "food-101/meta/test.json",
    "OxfordPets": "oxford-iiit-pet/annotations/test.txt",
    "StanfordCars": "stanford_cars/devkit/cars_meta.mat",
}


@pytest.mark.usefixtures("no_checksums")
@pytest.mark.parametrize(("name", "file"), LISTS.items())
@pytest.mark.parametrize("content", [None, "", "no such list"])
def test_lists_that_are_missing_or_do_not_parse(
    name: str, file: str, content: str | None, tmp_path: Path
) -> None:
    MAKERS[name](tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(RazorError, match=f"{name}: .*{tmp_path.name}.*root") as caught:
        build(name, tmp_path).prepare_data()
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("CUB200", "CUB_200_2011/images/001.Bird_1/Bird_1_2.jpg"),
        ("DTD", "dtd/dtd/images/texture00/texture00_test.jpg"),
        ("FGVCAircraft", "fgvc-aircraft-2013b/data/images/2000000.jpg"),
        ("Flowers102", "flowers-102/jpg/image_00205.jpg"),
        ("Food101", "food-101/images/dish_000/test0.jpg"),
        ("OxfordPets", "oxford-iiit-pet/images/a_breed00_1.jpg"),
        ("StanfordCars", "stanford_cars/cars_test/00001.jpg"),
    ],
)
@pytest.mark.usefixtures("no_checksums")
def test_broken_image_is_named_when_read(name: str, image: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    path = tmp_path / image
    path.write_bytes(path.read_bytes()[:300])
    data = build(name, tmp_path)
    data.setup("test")
    with pytest.raises(RazorError, match=f"cannot read image .*{path.name}") as caught:
        next(iter(data.test_dataloader()))
    one_line(caught)


def test_incomplete_copy(tmp_path: Path) -> None:
    MAKERS["EuroSAT"](tmp_path)
    for image in (tmp_path / "eurosat/2750/Land3").iterdir():
        image.unlink()
    (tmp_path / "eurosat/2750/Land3").rmdir()
    with pytest.raises(RazorError, match=r"EuroSAT: train has \d+ images of 9 classes") as caught:
        build("EuroSAT", tmp_path).setup("fit")
    one_line(caught)


# ---- divisions


def test_hold_out_is_what_it_has_always_been() -> None:
    assert hold_out(10, "val", 0.3, seed=0) == [4, 1, 7]
    assert hold_out(10, "val", 0.3, seed=1) == [5, 6, 1]
    assert sorted(hold_out(10, "train", 0.3, seed=0)) == [0, 2, 3, 5, 6, 8, 9]


@pytest.mark.usefixtures("no_checksums")
@pytest.mark.parametrize("name", ["CIFAR10", "Flowers102"])
def test_division_is_disjoint_complete_and_seeded(name: str, made: Callable[[str], Path]) -> None:
    def parts(seed: int) -> tuple[list[int], list[int]]:
        data = build(name, made(name), val_fraction=0.3, split_seed=seed)
        return data.samples("train").indices, data.samples("val").indices

    train, val = parts(0)
    # official validation images are divided with the rest
    total = 50 if name == "CIFAR10" else 204
    assert sorted(train + val) == list(range(total))
    assert len(val) == round(0.3 * total)
    assert parts(0) == (train, val)
    assert parts(1) != (train, val)


@pytest.mark.usefixtures("no_checksums")
@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001])
def test_val_fraction_out_of_range(made: Callable[[str], Path], fraction: float) -> None:
    with pytest.raises(RazorError, match="val_fraction"):
        build("CIFAR10", made("CIFAR10"), val_fraction=fraction).setup("fit")


def test_eurosat_is_tested_on_the_same_images_whatever_the_seed(
    made: Callable[[str], Path],
) -> None:
    def files(seed: int, split: str) -> set[str]:
        data = build("EuroSAT", made("EuroSAT"), split_seed=seed)
        part = "test" if split == "test" else "train"
        source = data.read(part).files
        chosen = data.samples(split)
        return {str(source[i]) for i in getattr(chosen, "indices", range(len(chosen)))}

    assert files(0, "test") == files(1, "test")
    assert files(0, "val") != files(1, "val")
    everything = [files(0, split) for split in ("train", "val", "test")]
    assert len(set.union(*everything)) == sum(map(len, everything)) == 50


# ---- downloads and checksums


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "Flowers102"])
def test_files_with_other_checksums_are_refused(name: str, made: Callable[[str], Path]) -> None:
    with pytest.raises(RazorError, match=f"{name}: .*corrupted") as caught:
        build(name, made(name)).prepare_data()
    one_line(caught)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Made data of CIFAR-10 as an archive, at a local address that torchvision is told."""
    make_cifar10(tmp_path / "made")
    path = tmp_path / "served" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/{path.name}"
        monkeypatch.setattr(datasets.CIFAR10, "url", address)
        Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


@pytest.mark.usefixtures("no_checksums")
def test_prepare_data_downloads_and_setup_does_not(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksum = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", checksum)
    data = CIFAR10(str(tmp_path / "root"), num_workers=0)
    with pytest.raises(RazorError, match="no usable copy"):
        data.setup("fit")
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_dataloader().dataset) == 45


@pytest.mark.usefixtures("no_checksums")
@pytest.mark.parametrize("name", sorted(SETS.keys() - {"CUB200", "StanfordCars"}))
def test_what_is_there_is_not_downloaded(
    name: str, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*args: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr("socket.socket.connect", connect)
    build(name, made(name), download=True).prepare_data()


@pytest.mark.usefixtures("no_checksums", "archive")
def test_damaged_download_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RazorError, match=r"CIFAR10: .*corrupted") as caught:
        CIFAR10(str(tmp_path / "root")).prepare_data()
    one_line(caught)


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "url", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(RazorError, match=r"CIFAR10: no usable copy.*absent\.tar\.gz") as caught:
        CIFAR10(str(tmp_path)).prepare_data()
    one_line(caught)


# ---- what is one set's own


@pytest.mark.usefixtures("no_checksums")
def test_small_images_are_judged_untouched(made: Callable[[str], Path]) -> None:
    root = made("CIFAR10")
    data = build("CIFAR10", root, image_size=32, mean=(0, 0, 0), std=(1, 1, 1))
    data.setup("test")
    image = next(iter(data.test_dataloader()))[0][5]
    original = datasets.CIFAR10(str(root), train=False).data[5]
    assert torch.equal((image * 255).round().byte(), torch.from_numpy(original).permute(2, 0, 1))


def test_eight_bit_classes_of_the_cars_come_out_whole(made: Callable[[str], Path]) -> None:
    samples = build("StanfordCars", made("StanfordCars")).samples("test")
    assert {type(target) for target in targets(samples)} == {int}


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("image_class_labels.txt", "401 7", "list different images"),
        ("train_test_split.txt", "401 1", "list different images"),
        ("image_class_labels.txt", "400 201", "KeyError: '201'"),
    ],
)
def test_birds_whose_lists_disagree(file: str, line: str, message: str, tmp_path: Path) -> None:
    MAKERS["CUB200"](tmp_path)
    with (tmp_path / "CUB_200_2011" / file).open("a") as lines:
        lines.write(f"{line}\n")
    with pytest.raises(RazorError, match=f"CUB200: .*{message}.*CUB_200_2011.tgz") as caught:
        CUB200(str(tmp_path)).prepare_data()
    one_line(caught)


def test_aircraft_of_no_known_variant(tmp_path: Path) -> None:
    MAKERS["FGVCAircraft"](tmp_path)
    path = tmp_path / "fgvc-aircraft-2013b/data/images_variant_val.txt"
    path.write_text("1000000 Concorde\n")
    with pytest.raises(RazorError, match=r"FGVCAircraft: .*Concorde"):
        build("FGVCAircraft", tmp_path).prepare_data()


def test_imagenet_counts_its_classes_by_wordnet(made: Callable[[str], Path]) -> None:
    data = ImageNet(str(made("ImageNet")), image_size=16, num_workers=0)
    assert (data.num_classes, len(set(data.folder_names))) == (1000, 1000)
    assert data.class_names[0] == "tench, Tinca tinca"
    assert data.class_names[999].startswith("toilet tissue")
    data.prepare_data()
    data.setup("fit")
    assert [y.tolist() for _, y in data.val_dataloader()] == [[0, 0, 1, 1, 999, 999]]
    with pytest.raises(RazorError, match="ImageNet has no test split"):
        data.setup("test")


def test_imagenet_missing_unknown_and_unsorted(tmp_path: Path) -> None:
    data = ImageNet(str(tmp_path))
    assert data.num_classes == 1000
    with pytest.raises(RazorError, match=r"no folder .*imagenet/train; .*<wnid>") as caught:
        data.setup("fit")
    one_line(caught)
    write_image(tmp_path / "imagenet/train/tench/1.JPEG")
    with pytest.raises(RazorError, match=r"imagenet/train has classes .*tench"):
        data.setup("fit")
    # as ILSVRC2012_img_val.tar unpacks
    write_image(tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(RazorError, match=r"no images in the class folders of .*val; .*<wnid>"):
        data.setup("validate")
