"""The cars of Stanford."""

from typing import Any

from torchvision import datasets

from razorlight.data.held_out import Split
from razorlight.data.public_set import PublicSet
from razorlight.data.samples import LabelledSamples


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

    Example:
        >>> data = StanfordCars("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 196
    remedy = (
        "its server is gone: set root to a folder with stanford_cars/{cars_train,cars_test,devkit} "
        "and stanford_cars/cars_test_annos_withlabels.mat"
    )

    def __init__(self, root: str = "data", image_size: int = 224, **kwargs: Any) -> None:
        super().__init__(root, image_size, download=False, **kwargs)  # nobody offers a download

    def read(self, part: Split) -> LabelledSamples:
        """The images of a part, as torchvision reads them."""
        # the classes in the file are 8-bit, too short for a loss
        return datasets.StanfordCars(
            self.root, split=part, loader=self._read_image, target_transform=int
        )
