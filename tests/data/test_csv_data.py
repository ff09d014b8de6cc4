"""Images whose targets stand in a CSV: how they are read, divided and shown, and mistakes in it."""

from pathlib import Path

import pytest
import torch
from made_classification import make_csv, write_image, write_lines

from razorlight.data import ClassificationCSV, MultiLabelCSV, RegressionCSV
from razorlight.data.augmentation import Augmentation
from razorlight.errors import RazorError

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}


@pytest.fixture
def pets(tmp_path):
    make_csv(tmp_path / "pets")
    return tmp_path / "pets"


def write(root, *lines, images=8):
    """A CSV of some lines, with images."""
    for number in range(images):
        write_image(root / "images" / f"{number}.jpg")
    write_lines(root / "table.csv", lines)
    return str(root)


def stems(data, split):
    return [int(file.stem) for file in data.samples(split).files]


def targets(data, split):
    samples = data.samples(split)
    return [samples.target(index) for index in range(len(samples))]


def test_each_kind_of_target(pets):
    data = ClassificationCSV(str(pets), "species", **SMALL)
    assert (data.class_names, data.num_classes) == (("cat", "dog"), 2)
    assert targets(data, "train") == [1, 0, 1, 0, 1, 0]
    assert data.label_counts() == {0: 3, 1: 3}
    data = MultiLabelCSV(str(pets), **SMALL)
    assert data.class_names == ("cat", "dog", "sky")
    assert torch.stack(targets(data, "val")).int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert data.class_shares() == pytest.approx([1 / 2, 1 / 3, 1 / 3])
    data = RegressionCSV(str(pets), ["age", "target"], **SMALL)
    assert torch.stack(targets(data, "test")).tolist() == [[4.5, 181], [5, 200], [5.5, 221]]
    mean, std = data.target_moments()
    ages = torch.arange(6).double() / 2
    assert (mean[0], std[0]) == pytest.approx((ages.mean().item(), ages.std(correction=0).item()))


def test_one_column_of_names_or_a_column_for_each(pets):
    named = MultiLabelCSV(str(pets), **SMALL)
    columns = MultiLabelCSV(str(pets), ["cat", "dog"], **SMALL)
    assert columns.class_names == ("cat", "dog")
    for split in ("train", "val", "test"):
        by_name = torch.stack(targets(named, split))
        assert torch.equal(by_name[:, :2], torch.stack(targets(columns, split)))


def test_batches_and_what_is_shown(pets):
    data = MultiLabelCSV(str(pets), **SMALL)
    data.setup("fit")
    images, present = next(iter(data.val_dataloader()))
    assert (images.shape, present.dtype, present.shape) == ((2, 3, 32, 32), torch.bool, (2, 3))
    assert [data.show_target(target) for target in present] == ["dog", "cat"]
    assert data.show_target(torch.zeros(3, dtype=torch.bool)) == "-"
    assert data.show_target(torch.tensor([0.25, 0, 0.75])) == "25% cat + 75% sky"
    assert data.blank_batch()[1].shape == (2, 3)
    numbers = RegressionCSV(str(pets), ["age", "target"], **SMALL)
    numbers.setup("fit")
    images, values = next(iter(numbers.val_dataloader()))
    assert (values.dtype, values.shape) == (torch.float32, (2, 2))
    assert numbers.show_target(values[0]) == "age 3, target 136"
    assert data.plot((images, present)).axes


def test_mixed_images_have_shares(pets):
    data = MultiLabelCSV(str(pets), augment=Augmentation(mixup=1.0), **SMALL)
    data.setup("fit")
    _, shares = next(iter(data.train_dataloader()))
    assert (shares.dtype, shares.shape) == (torch.float32, (2, 3))
    assert 0 <= shares.min() <= shares.max() <= 1


def test_without_val_a_share_is_held_out_of_each_class_alike(tmp_path, caplog):
    lines = [f"{n}.jpg,{'ab'[n % 2]}" for n in range(10)]
    root = write(tmp_path, "image,label", *lines, images=10)
    data = ClassificationCSV(root, **SMALL)
    with caplog.at_level("INFO"):
        data.setup("fit")
    held = "no row is of val: 2 of the 10 images of"
    assert sum(message.startswith(held) for message in caplog.messages) == 1
    train, val = stems(data, "train"), stems(data, "val")
    assert sorted(train + val) == [*range(10)]
    assert {number % 2 for number in val} == {0, 1}
    assert data.splits == ("train", "val")
    assert stems(ClassificationCSV(root, **SMALL), "val") == val
    assert stems(ClassificationCSV(root, split_seed=3, **SMALL), "val") != val
    with pytest.raises(RazorError, match="no row is of val; call some of the rows so, or set val_"):
        ClassificationCSV(root, val_fraction=None, **SMALL).setup("fit")


def test_a_csv_for_each_split(tmp_path):
    root = write(tmp_path, "file,age", "0.jpg,1", "1.jpg,2")
    (tmp_path / "table.csv").rename(tmp_path / "train.csv")
    write_lines(tmp_path / "val.csv", ["file,age", "2.jpg,4"])
    data = RegressionCSV(root, ["age"], **SMALL)
    assert data.splits == ("train", "val")
    assert (stems(data, "train"), stems(data, "val")) == ([0, 1], [2])
    write_lines(tmp_path / "test.csv", ["file", "3.jpg"])  # without its target
    data = RegressionCSV(root, ["age"], **SMALL)
    data.setup("fit")
    with pytest.raises(RazorError, match=r"test.csv has no column 'age', only file"):
        data.setup("test")


@pytest.mark.parametrize(
    "content",
    [
        "\ufefffile,age\n0.jpg,1.5\n1.jpg,2\n",  # as Excel writes it
        "file;age\n0.jpg;1.5\n1.jpg;2\n",
        "file\tage\r\n0.jpg\t1.5\r\n\r\n1.jpg\t2\r\n",
        'age, "image"\n1.5, "images/0.jpg"\n2, "./1.jpg"\n',
    ],
)
def test_ways_to_write_a_csv(tmp_path, content):
    root = write(tmp_path, "")
    (tmp_path / "table.csv").write_bytes(content.encode())
    data = RegressionCSV(root, ["age"], val_fraction=0.5, **SMALL)
    assert sorted(row.number("age") for row in data.training_rows) == [1.5, 2]
    assert sorted(stems(data, "train") + stems(data, "val")) == [0, 1]


def test_other_names_of_columns_and_files(tmp_path):
    root = write(tmp_path, "id,kind", "0.jpg,10", "1.jpg,9", "2.jpg,10", "3.jpg,9")
    (tmp_path / "other.csv").touch()
    data = ClassificationCSV(root, "kind", table="table.csv", image_column="id", **SMALL)
    assert data.class_names == ("9", "10")
    data.setup("fit")


ROWS = ("file,split,label,labels,cat,age", "0.jpg,train,a,a;b,1,1", "1.jpg,val,a,a,0,2")


@pytest.mark.parametrize(
    ("make", "lines", "message"),
    [
        (
            lambda root: RegressionCSV(root, ["ages"]),
            ROWS,
            "no column 'ages', only file, split, label, labels, cat, age; the nearest is age",
        ),
        (
            ClassificationCSV,
            ("id,label", "0.jpg,a"),
            "no column file or image, only id, label; set",
        ),
        (ClassificationCSV, (*ROWS, "2.jpg,val,c,,0,1"), "line 4: no row of train has the class"),
        (ClassificationCSV, (*ROWS, "2.jpg,val,,,0,1"), "line 4: label is empty; fill it in"),
        (
            ClassificationCSV,
            (*ROWS, "9.jpg,val,a,,0,1"),
            "line 4: there is no image 9.jpg in",
        ),
        (
            ClassificationCSV,
            (*ROWS, "./0.jpg,val,a,,0,1"),
            "line 4: image ./0.jpg stands in",
        ),
        (
            ClassificationCSV,
            (*ROWS, "images/0.jpg,val,a,,0,1"),
            "line 4: image images/0.jpg stands in",
        ),
        (
            ClassificationCSV,
            (*ROWS, "sub\\9.jpg,val,a,,0,1"),
            r"one of these folders, with / in place of \\",
        ),
        (
            lambda root: ClassificationCSV(root, val_fold=1),
            ROWS,
            "val_fold is 1, and val of .*csv is validated in any case; leave val_fold out",
        ),
        (
            lambda root: MultiLabelCSV(root, "cat"),
            (*ROWS, "2.jpg,train,a,,0,1"),
            r"cat holds 0 and 1, and no names of classes; give a list .* .\[cat, OTHER\]",
        ),
        (
            lambda root: RegressionCSV(root, ["age"]),
            (*ROWS, '2.jpg,train,a,,0,"1,5"'),
            "age is '1,5', which is no number; write it as 3.5, with a point",
        ),
        (
            ClassificationCSV,
            (*ROWS, "2.jpg,dev,a,,0,1"),
            "line 4: split is 'dev'; it must be",
        ),
        (
            ClassificationCSV,
            (*ROWS, "2.jpg,val,a,0"),
            "line 4: 4 cells, where the first line",
        ),
        (ClassificationCSV, (*ROWS, '"2.jpg,val,a,,0,1'), "cannot read .*unexpected end of data"),
        (ClassificationCSV, ("file,label",), "has no rows below the names of its columns"),
        (ClassificationCSV, ("",), "has no rows below the names of its columns"),
        (ClassificationCSV, ("file,file",), "has two columns 'file'; rename one"),
        (ClassificationCSV, (ROWS[0], ROWS[2]), "no row is of train; call some of the rows train"),
        (ClassificationCSV, (*ROWS, "../../a.jpg,train,a,,0,1"), "a.jpg is not below"),
        (
            lambda root: MultiLabelCSV(root, ["cat", "age"]),
            ROWS,
            "line 3: age is '2'; it must be 0 or 1",
        ),
        (
            MultiLabelCSV,
            (ROWS[0], "0.jpg,train,a,,1,1", ROWS[2]),
            "no cell of labels names a class",
        ),
        (lambda root: MultiLabelCSV(root, []), ROWS, "labels: name the columns of the classes"),
        (
            lambda root: RegressionCSV(root, ["label"]),
            ROWS,
            "line 2: label is 'a', which is no number; write it as 3.5",
        ),
        (
            lambda root: RegressionCSV(root, ["age"]),
            (*ROWS, "2.jpg,train,a,,0,nan"),
            "line 4: age is 'nan', which is no number",
        ),
        (lambda root: RegressionCSV(root, "age"), ROWS, "targets: give a list of columns"),
        (lambda root: RegressionCSV(root, ["age"] * 2), ROWS, "targets: age is given twice"),
        (lambda root: MultiLabelCSV(root, ["cat"] * 2), ROWS, "labels: cat is given twice"),
        (
            lambda root: RegressionCSV(root, ["age"], augment=Augmentation(cutmix=1.0)),
            ROWS,
            "augment: mixup and cutmix mix classes, and no numbers",
        ),
    ],
)
def test_a_mistake_is_a_line(tmp_path, make, lines, message):
    root = write(tmp_path / "root", *lines, images=3)
    write_image(tmp_path / "root" / "a.jpg").rename(tmp_path / "a.jpg")
    with pytest.raises(RazorError, match=message) as refused:
        make(root).setup("fit")
    assert "\n" not in str(refused.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(RazorError, match=r"no folder .*nowhere; set root"):
        ClassificationCSV(str(tmp_path / "nowhere")).setup("fit")
    with pytest.raises(RazorError, match="has no CSV, where one CSV"):
        ClassificationCSV(str(tmp_path)).setup("fit")
    for name in "ab":
        (tmp_path / f"{name}.csv").touch()
    with pytest.raises(RazorError, match=r"has a.csv, b.csv, where one CSV.*set table"):
        ClassificationCSV(str(tmp_path)).setup("fit")
    with pytest.raises(RazorError, match=r"cannot read .*none.csv"):
        ClassificationCSV(str(tmp_path), table="none.csv").setup("fit")
    Path(tmp_path, "a.csv").write_bytes(b"file,label\n\xff.jpg,a\n")
    with pytest.raises(RazorError, match=r"cannot read .*a.csv: .*; give a CSV in UTF-8"):
        ClassificationCSV(str(tmp_path), table="a.csv").setup("fit")


def test_a_target_that_never_varies(tmp_path):
    root = write(tmp_path, "file,age,split", "0.jpg,3,train", "1.jpg,3,train", "2.jpg,4,val")
    with pytest.raises(RazorError, match="targets: age is 3 in all training rows"):
        RegressionCSV(root, ["age"], **SMALL).target_moments()
