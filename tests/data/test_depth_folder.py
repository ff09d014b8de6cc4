from pathlib import Path

import numpy as np
import pytest
import torch
from made_dense import depth_folder, write_depth
from PIL import Image

from razorlight.data import DepthFolder
from razorlight.errors import RazorError


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    depth_folder(tmp_path)
    return tmp_path


def test_batches(rooms: Path) -> None:
    data = DepthFolder(str(rooms), image_size=(32, 64), batch_size=2, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images, depths = next(iter(loader))
        assert images.shape == (2, 3, 32, 64)
        assert depths.shape == (2, 32, 64)
        assert images.dtype == depths.dtype == torch.float32
        assert type(depths) is torch.Tensor
        # nearest neighbours: no depth between the surfaces, and padding is not measured
        assert depths.unique().tolist() == [0, 1.5, 4]
    # 48x64 pixels fit as 32x43
    assert depths[0, :, 43:].unique().tolist() == [0]
    assert depths[0, 0, 14] == 0
    assert depths[0, 0, 15] == 1.5
    assert depths[0, 0, 42] == 4


@pytest.mark.parametrize(("scale", "metres"), [(1000.0, 65.535), (256.0, 65535 / 256)])
def test_scale_divides_the_full_range_of_16_bits(rooms: Path, scale: float, metres: float) -> None:
    write_depth(rooms / "depths/val/kitchen_0001.png", np.full((48, 64), 65535))
    _, depth = DepthFolder(str(rooms), scale=scale).samples("val")[0]
    assert depth.unique().item() == pytest.approx(metres)


def test_has_no_classes(rooms: Path) -> None:
    assert not hasattr(DepthFolder(str(rooms)), "num_classes")


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [
        (np.zeros((48, 64), np.uint8), "mode L, with 8 bits"),
        (np.zeros((48, 64, 3), np.uint8), "mode RGB, with 8 bits"),
    ],
)
def test_pictures_of_depth_are_refused(rooms: Path, pixels: np.ndarray, mode: str) -> None:
    Image.fromarray(pixels).save(rooms / "depths/val/kitchen_0001.png")
    with pytest.raises(RazorError, match=rf"kitchen_0001\.png is of {mode}.*16-bit") as caught:
        DepthFolder(str(rooms)).samples("val")[0]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 40, 90])
def test_damaged_depth_is_named(rooms: Path, keep: int) -> None:
    path = rooms / "depths/val/kitchen_0001.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RazorError, match=r"cannot read depth .*kitchen_0001\.png: "):
        DepthFolder(str(rooms)).samples("val")[0]


def test_depth_of_another_size_than_its_image(rooms: Path) -> None:
    write_depth(rooms / "depths/val/kitchen_0001.png", np.ones((24, 32)))
    with pytest.raises(RazorError, match=r"kitchen_0001\.jpg is 48x64 .*kitchen_0001\.png 24x32"):
        DepthFolder(str(rooms)).samples("val")[0]


def test_missing(rooms: Path) -> None:
    (rooms / "depths/train/office_0002.png").unlink()
    data = DepthFolder(str(rooms))
    with pytest.raises(RazorError, match=r"^1 files .*office_0002\.jpg"):
        data.setup("fit")
    with pytest.raises(RazorError, match="no test split, only train, val"):
        data.setup("test")
    with pytest.raises(RazorError, match=r"no folder .*; DepthFolder reads root/{images,depths}/"):
        DepthFolder(str(rooms / "nowhere")).setup("fit")


def test_arguments_out_of_range() -> None:
    for wrong in ({"scale": 0.0}, {"scale": -1.0}, {"image_size": (1, 32)}):
        with pytest.raises(RazorError, match=next(iter(wrong))):
            DepthFolder("nowhere", **wrong)
