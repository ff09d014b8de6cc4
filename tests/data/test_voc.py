from pathlib import Path

import numpy as np
import pytest
from made_dense import stripes, voc2012, voc_aug
from scipy.io import savemat

from razorlight.data import VOC2012, VOCAug
from razorlight.errors import RazorError


@pytest.fixture
def aug(tmp_path: Path) -> Path:
    voc_aug(tmp_path)
    return tmp_path


def test_class_ids_are_those_of_the_palette_files(tmp_path: Path) -> None:
    voc2012(tmp_path)
    data = VOC2012(str(tmp_path))
    image, mask = data.samples("val")[0]
    assert image.shape == (3, 40, 56)
    assert mask.tolist() == stripes((0, 255, 20, 255)).tolist()
    assert [data.class_names[i] for i in (0, 1, 15, 20)] == [
        "background",
        "aeroplane",
        "person",
        "tvmonitor",
    ]
    assert data.palette[15] == (192, 128, 128)


def test_trainaug_adds_to_voc_what_neither_of_its_splits_has(aug: Path) -> None:
    data = VOCAug(str(aug))
    masks = [mask for _, mask in data.samples("train")]
    from_voc, from_sbd = stripes((0, 255, 20, 255)).tolist(), stripes((0, 15)).tolist()
    assert [mask.tolist() for mask in masks] == [from_voc, from_voc, from_sbd, from_sbd]
    stems = [image.stem for part in data.samples("train").datasets for image, _ in part.pairs]
    assert stems == ["2007_000032", "2007_000039", "2008_000002", "2008_000003"]
    assert [image.stem for image, _ in data.samples("val").pairs] == ["2007_000033", "2007_000042"]


def added_mask(root: Path) -> Path:
    return root / "sbd" / "cls" / "2008_000002.mat"


def read_added(root: Path) -> str:
    """The message on reading the first image that SBD adds."""
    with pytest.raises(RazorError, match=r"2008_000002\.mat") as caught:
        VOCAug(str(root)).samples("train")[2]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 100, 127, 130, 140, 200, -1])
def test_damaged_mat_file_is_named(aug: Path, keep: int) -> None:
    path = added_mask(aug)
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot read mask" in read_added(aug)


@pytest.mark.parametrize("content", [b"no mat file", b"\x89HDF\r\n\x1a\n" + bytes(200), bytes(300)])
def test_what_is_no_mat_file_is_named(aug: Path, content: bytes) -> None:
    added_mask(aug).write_bytes(content)
    assert "cannot read mask" in read_added(aug)


@pytest.mark.parametrize(
    "variables",
    [{"other": 1}, {"GTcls": 1}, {"GTcls": {"Boundaries": 1}}, {"GTcls": {"Segmentation": 0.5}}],
    ids=["no GTcls", "no struct", "no Segmentation", "no integers"],
)
def test_mat_file_of_something_else_is_named(aug: Path, variables: dict[str, object]) -> None:
    savemat(added_mask(aug), variables)
    assert "cannot read mask" in read_added(aug)


def test_unexpected_label_in_a_mat_file(aug: Path) -> None:
    labels = np.full((40, 56), 21, np.uint8)
    savemat(added_mask(aug), {"GTcls": {"Segmentation": labels}})
    assert "label 21 is outside 0..20" in read_added(aug)


def test_mat_file_of_another_size_than_its_image(aug: Path) -> None:
    savemat(added_mask(aug), {"GTcls": {"Segmentation": np.zeros((40, 55), np.uint8)}})
    assert "2008_000002.mat 40x55; they must be equal" in read_added(aug)


def test_only_what_is_absent_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, root: str | Path, filename: str, md5: str) -> None:
        asked.append(filename)
        made = Path(root)
        if filename == "benchmark.tgz":
            voc_aug(made / "made")
            (made / "benchmark_RELEASE").mkdir()
            dataset = (made / "made" / "sbd").rename(made / "benchmark_RELEASE" / "dataset")
            (dataset / "inst").mkdir()
        else:
            voc2012(made)

    for source in ("voc", "sbd"):
        monkeypatch.setattr(f"torchvision.datasets.{source}.download_and_extract_archive", download)
    VOC2012(str(tmp_path)).prepare_data()
    assert asked == ["VOCtrainval_11-May-2012.tar"]
    for _ in range(2):
        VOCAug(str(tmp_path)).prepare_data()
    assert asked == ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"]


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("File not found\nor corrupted.")

    monkeypatch.setattr("torchvision.datasets.voc.download_and_extract_archive", fail)
    with pytest.raises(RazorError, match=r"VOC2012: .*File not found or corrupted\.\); set root"):
        VOC2012(str(tmp_path)).prepare_data()
