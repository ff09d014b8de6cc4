"""Food-101."""

from torchvision import datasets

from razorlight.data.public_set import PublicSet


class Food101(PublicSet):
    """Food-101: 101 dishes, 1,000 images each, at most 512 pixels high and wide.

    75,750 images to train and validate, with some wrong labels that were left on purpose, and
    25,250 clean ones to test; 5 GB to download. On disk::

        root/food-101/images/<class>/<id>.jpg
        root/food-101/meta/{train,test}.json    {"<class>": ["<class>/<id>", ...], ...}

    Licence: the images are Foodspotting's, for scientific fair use. Cite Bossard et al., "Food-101:
    Mining Discriminative Components with Random Forests", ECCV 2014.

    Args: see :class:`PublicSet`.

    Example:
        >>> data = Food101("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 101
    source = datasets.Food101
