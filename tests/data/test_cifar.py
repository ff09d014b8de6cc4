import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from razorlight.data import CIFAR10, CIFAR100
from razorlight.errors import RazorError


def write_cifar(
    root: Path, source: type[datasets.CIFAR10], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickled batches of 20 images each, with torchvision's checksums set to theirs."""
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, content: dict[str, object]) -> str:
        packed = pickle.dumps(content)
        (folder / name).write_bytes(packed)
        return hashlib.md5(packed).hexdigest()

    def batch(name: str) -> list[str]:
        pixels = rng.integers(0, 256, (20, 3072), np.uint8)
        return [name, write(name, {"data": pixels, key: [n % 10 for n in range(20)]})]

    train = [batch(name) for name, _ in source.train_list]
    test = [batch(name) for name, _ in source.test_list]
    names = {source.meta["key"]: [str(n) for n in range(100)]}
    meta = {**source.meta, "md5": write(source.meta["filename"], names)}
    monkeypatch.setattr(source, "train_list", train)
    monkeypatch.setattr(source, "test_list", test)
    monkeypatch.setattr(source, "meta", meta)


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_cifar(tmp_path, datasets.CIFAR10, "labels", monkeypatch)
    return tmp_path


@pytest.mark.parametrize(("image_size", "val_fraction"), [(32, 0.1), (48, 0.25)])
def test_cifar10_batches(cifar10: Path, image_size: int, val_fraction: float) -> None:
    data = CIFAR10(
        str(cifar10), image_size, val_fraction, download=False, batch_size=4, num_workers=0
    )
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, image_size, image_size)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    sizes = [len(dl.dataset) for dl in (data.train_dataloader(), data.val_dataloader())]
    assert sizes == [100 - round(100 * val_fraction), round(100 * val_fraction)]
    assert len(data.test_dataloader().dataset) == 20


def test_cifar100_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, datasets.CIFAR100, "fine_labels", monkeypatch)
    data = CIFAR100(str(tmp_path), val_fraction=0.5, num_workers=0, batch_size=8)
    data.prepare_data()
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (8, 3, 32, 32)


def test_class_names_are_known_without_data() -> None:
    assert CIFAR10("nowhere").num_classes == 10
    assert CIFAR10("nowhere").class_names[3] == "cat"
    assert CIFAR100("nowhere").num_classes == 100


def test_split_is_disjoint_complete_and_seeded(cifar10: Path) -> None:
    def parts(seed: int) -> tuple[list[int], list[int]]:
        data = CIFAR10(str(cifar10), split_seed=seed, download=False)
        return data.samples("train").indices, data.samples("val").indices

    train, val = parts(0)
    assert sorted(train + val) == list(range(100))
    assert parts(0) == (train, val)
    assert parts(1) != (train, val)


def test_evaluation_images_are_untouched(cifar10: Path) -> None:
    data = CIFAR10(str(cifar10), download=False, num_workers=0, mean=(0, 0, 0), std=(1, 1, 1))
    data.setup("test")
    image = next(iter(data.test_dataloader()))[0][5]
    original = datasets.CIFAR10(str(cifar10), train=False).data[5]
    assert torch.equal((image * 255).round().byte(), torch.from_numpy(original).permute(2, 0, 1))


def test_missing(tmp_path: Path) -> None:
    data = CIFAR10(str(tmp_path), download=False)
    for step in (data.prepare_data, lambda: data.setup("fit")):
        with pytest.raises(RazorError, match=f"CIFAR10: .*{tmp_path.name}.*download") as caught:
            step()
        assert "\n" not in str(caught.value)


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR100, "url", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(RazorError, match=r"CIFAR100: no usable copy.*absent\.tar\.gz") as caught:
        CIFAR100(str(tmp_path)).prepare_data()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001])
def test_val_fraction_out_of_range(cifar10: Path, fraction: float) -> None:
    with pytest.raises(RazorError, match="val_fraction"):
        CIFAR10(str(cifar10), val_fraction=fraction, download=False).setup("fit")
