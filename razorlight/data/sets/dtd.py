"""The Describable Textures Dataset."""

from torchvision import datasets

from razorlight.data.public_set import PublicSet


class DTD(PublicSet):
    """Describable Textures: 47 textures (banded, bubbly), 120 images each.

    1,880 images each to train, validate and test, by the first of its ten divisions; 600 MB to
    download. On disk::

        root/dtd/dtd/images/<class>/<class>_<id>.jpg
        root/dtd/dtd/labels/{train,val,test}1.txt    <class>/<class>_<id>.jpg

    Licence: for research only. Cite Cimpoi et al., "Describing Textures in the Wild", CVPR 2014.

    Args: see :class:`PublicSet`.

    Example:
        >>> data = DTD("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 47
    parts = ("train", "val", "test")
    source = datasets.DTD
