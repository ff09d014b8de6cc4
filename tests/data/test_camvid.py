from pathlib import Path

import pytest
from made_dense import camvid, write_jpeg, write_mask

from razorlight.data import CamVid
from razorlight.errors import RazorError


def test_eleven_classes_and_two_ways_to_leave_a_pixel_out(tmp_path: Path) -> None:
    camvid(tmp_path)
    data = CamVid(str(tmp_path))
    _, mask = data.samples("val")[0]
    assert mask.unique().tolist() == [*range(11), 255]
    # 56 pixels in 13 stripes: 0..10, then 11 and 255
    assert (mask[0, -9], mask[0, -8], mask[0, -1]) == (10, 255, 255)
    assert (data.class_names[3], data.palette[3]) == ("road", (128, 64, 128))


def test_a_test_split_where_there_is_one(tmp_path: Path) -> None:
    camvid(tmp_path)
    data = CamVid(str(tmp_path))
    with pytest.raises(RazorError, match="no test split"):
        data.setup("test")
    write_jpeg(tmp_path / "camvid/images/test/a.jpg", 8, 8)
    write_mask(tmp_path / "camvid/masks/test/a.png", [[0] * 8] * 8)
    data.setup("test")
    assert len(data.test_dataloader().dataset) == 1
