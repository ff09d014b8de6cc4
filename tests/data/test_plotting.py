from pathlib import Path

import pytest
import torch
from made_classification import make_food101
from matplotlib.figure import Figure
from torch import Tensor

from razorlight.data import DepthFolder, Food101, OxfordPetTrimaps
from razorlight.data.palette import voc_palette
from razorlight.data.pictures import VOID, colour_labels, colours_of, denormalise
from razorlight.data.plotting import draw_shares
from razorlight.data.transforms import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture
def food(tmp_path: Path) -> Food101:
    make_food101(tmp_path)
    return Food101(str(tmp_path), image_size=16, batch_size=12, num_workers=0)


def panels(figure: Figure) -> list[tuple[str, Tensor]]:
    """Caption and picture of each."""
    return [
        (axes.get_title(), torch.from_numpy(axes.get_images()[0].get_array().data))
        for axes in figure.axes
    ]


def test_classes_are_written_over_the_images(food: Food101, tmp_path: Path) -> None:
    food.setup("validate")
    images, targets = next(iter(food.val_dataloader()))
    figure = food.plot((images, targets), count=6)
    drawn = panels(figure)
    assert [caption for caption, _ in drawn] == [f"dish_{t:03}" for t in targets[:6]]
    for (_, picture), image in zip(drawn, images, strict=False):
        again = denormalise(image, food.mean, food.std).permute(1, 2, 0)
        assert torch.equal(picture, again)
    figure.savefig(tmp_path / "batch.png")
    assert (tmp_path / "batch.png").stat().st_size > 1000


def test_shares_are_written_out(food: Food101) -> None:
    target = torch.zeros(101)
    target[7], target[3] = 0.7, 0.3
    assert food.show_target(target) == "70% dish_007 + 30% dish_003"
    assert food.show_target(torch.eye(101)[5]) == "100% dish_005"


def test_masks_lie_over_the_images_and_the_colours_are_named() -> None:
    data = OxfordPetTrimaps("nowhere", mean=(0, 0, 0), std=(1, 1, 1))
    masks = torch.tensor([[[0, 1], [255, 1]]])
    figure = data.plot((torch.full((1, 3, 2, 2), 100 / 255), masks))
    (_, image), (_, mask) = panels(figure)
    assert image.tolist() == [[[100] * 3] * 2] * 2
    background = [100] * 3  # class 1 is called background
    assert mask.tolist() == [[[50, 50, 50], background], [[162, 162, 146], background]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["pet", "ignored"]


def test_classes_that_are_not_there_are_not_named() -> None:
    palette, names = voc_palette(4), ("background", "roof", "road", "tree")
    assert colours_of(torch.tensor([[0, 2]]), palette, names) == {"road": palette[2]}
    assert colours_of(torch.tensor([0]), palette, names) == {}


def test_a_picture_of_shares_names_classes_and_splits(tmp_path: Path) -> None:
    figure = draw_shares(["a", "b"], {"train": [0.25, 0.75], "val": [1.0, 0.0]})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [25, 75, 100, 0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    many = draw_shares([str(n) for n in range(500)], {"train": [n / 500**2 for n in range(500)]})
    many.savefig(tmp_path / "many.png")
    (line,) = many.axes[0].lines
    assert line.get_ydata()[:2].tolist() == pytest.approx([100 * 499 / 500**2, 100 * 498 / 500**2])


def test_depths_are_painted_by_their_share_of_the_farthest() -> None:
    data = DepthFolder("nowhere")
    depths = torch.tensor([[[0.0, 0.5], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    drawn = panels(data.plot((torch.zeros(2, 3, 2, 2), depths)))
    (unmeasured, near), (middle, far) = drawn[1][1].tolist()
    assert unmeasured == [*VOID]
    assert near[0] > 2 * near[2]  # red
    assert min(middle) > 150  # pale
    assert far[2] > far[0]  # blue
    assert (drawn[3][1] == torch.tensor(VOID)).all()


def test_every_class_has_its_colour() -> None:
    palette = voc_palette(150)
    painted = colour_labels(torch.arange(150).view(10, 15), palette)
    assert painted.shape == (3, 10, 15)
    assert [tuple(c) for c in painted.flatten(1).T.tolist()] == list(palette)


def test_denormalise_undoes_the_normalisation() -> None:
    picture = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
    normalised = (picture / 255 - mean) / std
    assert torch.equal(denormalise(normalised, IMAGENET_MEAN, IMAGENET_STD), picture)
