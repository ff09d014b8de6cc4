from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from razorlight.data import ImageFolder, SegmentationFolder
from razorlight.errors import RazorError

Writer = Callable[..., Path]


@pytest.fixture
def animals(tmp_path: Path, write_jpeg: Writer) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for name in ("dog", "cat"):
            for number in range(count):
                write_jpeg(tmp_path / split / name / f"{number}.jpg", 40 + number, 50)
    return tmp_path


@pytest.fixture
def scenes(tmp_path: Path, write_jpeg: Writer, write_mask: Writer) -> Path:
    for split in ("train", "val"):
        for number in range(3):
            height, width = 30 + number, 44
            write_jpeg(tmp_path / "images" / split / f"{number}.jpg", height, width)
            labels = np.arange(height * width).reshape(height, width) % 3
            write_mask(tmp_path / "masks" / split / f"{number}.png", labels)
    return tmp_path


def test_image_folder_batches(animals: Path) -> None:
    data = ImageFolder(str(animals), image_size=32, batch_size=4, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert data.class_names == ("cat", "dog")
    assert data.num_classes == 2
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert [y.tolist() for _, y in data.val_dataloader()] == [[0, 0, 1, 1]]


def test_worker_processes_load_what_the_main_process_loads(scenes: Path) -> None:
    def masks(num_workers: int) -> torch.Tensor:
        data = SegmentationFolder(
            str(scenes), ["a", "b", "c"], image_size=32, num_workers=num_workers
        )
        data.setup("validate")
        return torch.cat([mask for _, mask in data.val_dataloader()])

    assert torch.equal(masks(0), masks(1))


def test_image_folder_reads_nothing_until_asked(tmp_path: Path) -> None:
    data = ImageFolder(str(tmp_path / "nowhere"))
    with pytest.raises(RazorError, match=r"no folder .*nowhere; ImageFolder reads") as caught:
        _ = data.num_classes
    assert "\n" not in str(caught.value)
    with pytest.raises(RazorError, match="no folder"):
        data.setup("fit")


def test_image_folder_without_classes_or_images(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    data = ImageFolder(str(tmp_path))
    with pytest.raises(RazorError, match="no class folders"):
        _ = data.class_names
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(RazorError, match="no images"):
        data.setup("fit")


def test_labels_follow_train_where_val_lacks_a_class(animals: Path) -> None:
    for file in (animals / "val" / "cat").iterdir():
        file.unlink()
    (animals / "val" / "cat").rmdir()
    data = ImageFolder(str(animals), image_size=8, num_workers=0)
    data.setup("validate")
    assert next(iter(data.val_dataloader()))[1].tolist() == [1, 1]


def test_class_that_train_lacks(animals: Path, write_jpeg: Writer) -> None:
    write_jpeg(animals / "val" / "emu" / "0.jpg")
    with pytest.raises(RazorError, match="emu"):
        ImageFolder(str(animals)).setup("validate")


def test_predict_takes_test_where_there_is_one(animals: Path, write_jpeg: Writer) -> None:
    data = ImageFolder(str(animals), image_size=8, num_workers=0)
    with pytest.raises(RazorError, match="no test split, only train, val"):
        data.setup("test")
    data.setup("predict")
    assert len(data.predict_dataloader().dataset) == 4
    write_jpeg(animals / "test" / "dog" / "0.jpg")
    data = ImageFolder(str(animals), image_size=8, num_workers=0)
    data.setup("predict")
    assert len(data.predict_dataloader().dataset) == 1
    data.setup("test")
    assert next(iter(data.test_dataloader()))[1].tolist() == [1]


def test_segmentation_folder_batches(scenes: Path) -> None:
    data = SegmentationFolder(
        str(scenes), ["a", "b", "c"], image_size=32, batch_size=2, num_workers=0
    )
    data.prepare_data()
    data.setup("fit")
    assert data.num_classes == len(data.palette) == 3
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images, masks = next(iter(loader))
        assert images.shape == (2, 3, 32, 32)
        assert images.dtype == torch.float32
        assert masks.shape == (2, 32, 32)
        assert masks.dtype == torch.int64
        assert set(masks.unique().tolist()) <= {0, 1, 2, 255}


def test_train_drops_an_incomplete_batch_unless_it_is_the_only_one(scenes: Path) -> None:
    for batch_size, batches in ((2, 1), (3, 1), (4, 1)):
        data = SegmentationFolder(
            str(scenes), ["a", "b", "c"], image_size=16, batch_size=batch_size, num_workers=0
        )
        data.setup("fit")
        assert len(list(data.train_dataloader())) == batches
        assert sum(len(y) for _, y in data.val_dataloader()) == 3


def test_label_out_of_range_is_reported_when_read(scenes: Path, write_mask: Writer) -> None:
    write_mask(scenes / "masks" / "val" / "1.png", np.full((31, 44), 9))
    data = SegmentationFolder(str(scenes), ["a", "b", "c"], image_size=16, num_workers=0)
    data.setup("validate")
    with pytest.raises(RazorError, match=r"val/1\.png: label 9 is outside 0\.\.2") as caught:
        list(data.val_dataloader())
    assert "\n" not in str(caught.value)


def test_missing_mask(scenes: Path) -> None:
    (scenes / "masks" / "train" / "2.png").unlink()
    with pytest.raises(RazorError, match=r"images/train/2\.jpg") as caught:
        SegmentationFolder(str(scenes), ["a", "b", "c"]).setup("fit")
    assert "\n" not in str(caught.value)


def test_segmentation_folder_missing(tmp_path: Path) -> None:
    with pytest.raises(RazorError, match=r"no folder .*images; SegmentationFolder reads"):
        SegmentationFolder(str(tmp_path), ["a"]).setup("fit")


def test_arguments_out_of_range(tmp_path: Path) -> None:
    for wrong in ({"batch_size": 0}, {"num_workers": -1}, {"image_size": 0}):
        with pytest.raises(RazorError, match=next(iter(wrong))):
            SegmentationFolder(str(tmp_path), ["a"], **wrong)
    with pytest.raises(RazorError, match="0 classes"):
        SegmentationFolder(str(tmp_path), [])
