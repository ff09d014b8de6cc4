"""Classification sets that torchvision reads: food, flowers, aircraft, cars, textures, land."""

from pathlib import Path
from typing import Any

from torchvision import datasets

from razorlight.data.augmentation import small_images
from razorlight.data.base import Split, hold_out
from razorlight.data.classification import LabelledSamples, PublicSet, TorchvisionSet
from razorlight.data.datasets import LabelledImages
from razorlight.data.files import images_below, subfolders
from razorlight.data.transforms import Pipelines


class Food101(TorchvisionSet):
    """Food-101: 101 dishes, 1,000 images each, at most 512 pixels high and wide.

    75,750 images to train and validate, with some wrong labels that were left on purpose, and
    25,250 clean ones to test; 5 GB to download. On disk::

        root/food-101/images/<class>/<id>.jpg
        root/food-101/meta/{train,test}.json    {"<class>": ["<class>/<id>", ...], ...}

    Licence: the images are Foodspotting's, for scientific fair use. Cite Bossard et al., "Food-101:
    Mining Discriminative Components with Random Forests", ECCV 2014.

    Args: see :class:`TorchvisionSet`.
    """

    num_classes = 101
    source = datasets.Food101


class Flowers102(TorchvisionSet):
    """Oxford 102 Flowers: 102 flowers of the United Kingdom, 40 to 258 images each.

    1,020 images to train, 1,020 to validate (10 a class each) and 6,149 to test; 350 MB to
    download. Published results mostly train on the first two together (``val_fraction``). On disk::

        root/flowers-102/jpg/image_<id>.jpg
        root/flowers-102/imagelabels.mat        labels: 1..102, by id
        root/flowers-102/setid.mat              trnid, valid, tstid: ids

    Its authors state no licence. Cite Nilsback and Zisserman, "Automated Flower Classification over
    a Large Number of Classes", ICVGIP 2008.

    Args: see :class:`TorchvisionSet`.
    """

    num_classes = 102
    parts = ("train", "val", "test")
    source = datasets.Flowers102


class FGVCAircraft(TorchvisionSet):
    """FGVC-Aircraft: 100 variants of aircraft (Boeing 737-700), 100 images each.

    3,334 images to train, 3,333 to validate and 3,333 to test; 2.75 GB to download. Published
    results mostly train on the first two together (``val_fraction``). On disk::

        root/fgvc-aircraft-2013b/data/images/<id>.jpg
        root/fgvc-aircraft-2013b/data/variants.txt                          one a line
        root/fgvc-aircraft-2013b/data/images_variant_{train,val,test}.txt   <id> <variant>

    Licence: the photographs for non-commercial research only. Cite Maji et al., "Fine-Grained
    Visual Classification of Aircraft", arXiv:1306.5151.

    Args: see :class:`TorchvisionSet`.
    """

    num_classes = 100
    parts = ("train", "val", "test")
    source = datasets.FGVCAircraft


class StanfordCars(PublicSet):
    """Stanford Cars: 196 classes of cars by make, model and year.

    8,144 images to train and validate, 8,041 to test. Its server is gone, so the data have to be
    placed by hand, on disk::

        root/stanford_cars/cars_{train,test}/<id>.jpg
        root/stanford_cars/devkit/cars_meta.mat              class_names
        root/stanford_cars/devkit/cars_train_annos.mat       annotations: box, class 1..196, fname
        root/stanford_cars/cars_test_annos_withlabels.mat    likewise

    Licence: for non-commercial research, as ImageNet. Cite Krause et al., "3D Object
    Representations for Fine-Grained Categorization", 3dRR 2013.

    Args: see :class:`PublicSet`.
    """

    num_classes = 196
    remedy = (
        "its server is gone: set root to a folder with stanford_cars/{cars_train,cars_test,devkit} "
        "and stanford_cars/cars_test_annos_withlabels.mat"
    )

    def read(self, part: Split) -> LabelledSamples:
        """What torchvision reads of a part."""
        # the classes in the file are 8-bit, too short for a loss
        return datasets.StanfordCars(
            self.root, split=part, loader=self._read_image, target_transform=int
        )


class DTD(TorchvisionSet):
    """Describable Textures: 47 textures (banded, bubbly), 120 images each.

    1,880 images each to train, validate and test, by the first of its ten divisions; 600 MB to
    download. On disk::

        root/dtd/dtd/images/<class>/<class>_<id>.jpg
        root/dtd/dtd/labels/{train,val,test}1.txt    <class>/<class>_<id>.jpg

    Licence: for research only. Cite Cimpoi et al., "Describing Textures in the Wild", CVPR 2014.

    Args: see :class:`TorchvisionSet`.
    """

    num_classes = 47
    parts = ("train", "val", "test")
    source = datasets.DTD


class _OwnFolders(datasets.EuroSAT):
    """Torchvision's, without the folders and files that tools leave behind."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = subfolders(Path(directory))
        return names, {name: label for label, name in enumerate(names)}

    @staticmethod
    def make_dataset(
        directory: str | Path, class_to_idx: dict[str, int], *args: Any, **kwargs: Any
    ) -> list[tuple[str, int]]:
        return [
            (str(path), label)
            for name, label in class_to_idx.items()
            for path in images_below(Path(directory) / name)
        ]


class EuroSAT(TorchvisionSet):
    """EuroSAT: 10 kinds of land use in 27,000 images of Sentinel-2, RGB, 64x64 pixels of 10 m.

    There is no official division: a fifth, always the same at random, is to test, the rest is to
    train and validate. 90 MB to download. On disk::

        root/eurosat/2750/<class>/<class>_<id>.jpg

    Licence: MIT; the imagery under the Copernicus Sentinel terms. Cite Helber et al., "EuroSAT: A
    Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover Classification", JSTARS
    2019.

    Args:
        root: the folder that holds the data set's own.
        image_size: side that the images are resized to, in pixels.
        **kwargs: see :class:`TorchvisionSet`.
    """

    num_classes = 10
    source = _OwnFolders

    def __init__(self, root: str = "data", image_size: int = 64, **kwargs: Any) -> None:
        super().__init__(root, image_size, **kwargs)

    def read(self, part: Split) -> LabelledSamples:
        """The images of a part, by class."""
        source = self.source(self.root)
        # the split seed divides train and val alone: all runs are judged by the same images
        chosen = hold_out(len(source), "val" if part == "test" else "train", 0.2, seed=0)
        samples = [source.samples[index] for index in sorted(chosen)]
        return LabelledImages([(Path(path), label) for path, label in samples], source.classes)

    def pipelines(self) -> Pipelines:
        """Shifted and flipped to train, whole to judge."""
        return small_images(64, self.image_size, self.mean, self.std, self.augment)
