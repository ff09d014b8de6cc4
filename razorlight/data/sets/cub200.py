"""The birds of Caltech-UCSD."""

from pathlib import Path
from typing import Any

from razorlight.data.files import require_below
from razorlight.data.held_out import Split
from razorlight.data.public_set import PublicSet
from razorlight.data.samples import LabelledImages
from razorlight.errors import RazorError


class CUB200(PublicSet):
    """CUB-200-2011: 200 birds of North America, about 60 images each.

    5,994 images to train and validate, 5,794 to test. Its authors hand it out on request to a web
    page, so the data have to be placed by hand. On disk, as ``CUB_200_2011.tgz`` unpacks::

        root/CUB_200_2011/images/<class>/<name>.jpg
        root/CUB_200_2011/images.txt                <id> <class>/<name>.jpg
        root/CUB_200_2011/image_class_labels.txt    <id> <class 1..200>
        root/CUB_200_2011/train_test_split.txt      <id> <1 to train, 0 to test>
        root/CUB_200_2011/classes.txt               <class 1..200> <name>

    Licence: for non-commercial research and education. Cite Wah et al., "The Caltech-UCSD
    Birds-200-2011 Dataset", CNS-TR-2011-001.

    Args: see :class:`PublicSet`.

    Example:
        >>> data = CUB200("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 200
    remedy = (
        "unpack CUB_200_2011.tgz of https://www.vision.caltech.edu/datasets/cub_200_2011 in root"
    )

    def __init__(self, root: str = "data", image_size: int = 224, **kwargs: Any) -> None:
        super().__init__(root, image_size, download=False, **kwargs)  # nobody offers a download

    def read(self, part: Split) -> LabelledImages:
        """The images that the lists give to a part.

        Raises:
            RazorError: if the lists disagree.
        """
        base = self.root / "CUB_200_2011"
        images, labels, to_train = (
            _column(base / name)
            for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt")
        )
        if not images.keys() == labels.keys() == to_train.keys():
            raise RazorError(
                f"CUB200: images.txt, image_class_labels.txt and train_test_split.txt in {base} "
                f"list different images; {self.remedy}"
            )
        names = _column(base / "classes.txt")
        index = {number: label for label, number in enumerate(names)}
        wanted = "1" if part == "train" else "0"
        samples = [
            (require_below(base, base / "images" / path), index[labels[image]])
            for image, path in images.items()
            if to_train[image] == wanted
        ]
        return LabelledImages(samples, [_plain(name) for name in names.values()])


def _column(path: Path) -> dict[str, str]:
    """The lines ``<number> <value>`` of a file."""
    return dict(line.split(maxsplit=1) for line in path.read_text().splitlines())


def _plain(name: str) -> str:
    """``001.Black_footed_Albatross`` -> ``Black footed Albatross``."""
    return name.partition(".")[2].replace("_", " ")
