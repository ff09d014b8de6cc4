"""The flowers of Oxford."""

from torchvision import datasets

from razorlight.data.public_set import PublicSet


class Flowers102(PublicSet):
    """Oxford 102 Flowers: 102 flowers of the United Kingdom, 40 to 258 images each.

    1,020 images to train, 1,020 to validate (10 a class each) and 6,149 to test; 350 MB to
    download. Published results mostly train on the first two together (``val_fraction``). On disk::

        root/flowers-102/jpg/image_<id>.jpg
        root/flowers-102/imagelabels.mat        labels: 1..102, by id
        root/flowers-102/setid.mat              trnid, valid, tstid: ids

    Its authors state no licence. Cite Nilsback and Zisserman, "Automated Flower Classification over
    a Large Number of Classes", ICVGIP 2008.

    Args: see :class:`PublicSet`.

    Example:
        >>> data = Flowers102("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 102
    parts = ("train", "val", "test")
    source = datasets.Flowers102
