"""FGVC-Aircraft."""

from torchvision import datasets

from razorlight.data.public_set import PublicSet


class FGVCAircraft(PublicSet):
    """FGVC-Aircraft: 100 variants of aircraft (Boeing 737-700), 100 images each.

    3,334 images to train, 3,333 to validate and 3,333 to test; 2.75 GB to download. Published
    results mostly train on the first two together (``val_fraction``). On disk::

        root/fgvc-aircraft-2013b/data/images/<id>.jpg
        root/fgvc-aircraft-2013b/data/variants.txt                          one a line
        root/fgvc-aircraft-2013b/data/images_variant_{train,val,test}.txt   <id> <variant>

    Licence: the photographs for non-commercial research only. Cite Maji et al., "Fine-Grained
    Visual Classification of Aircraft", arXiv:1306.5151.

    Args: see :class:`PublicSet`.

    Example:
        >>> data = FGVCAircraft("data", image_size=64, batch_size=2, num_workers=0)
        >>> data.prepare_data()  # downloads what is not there
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """

    num_classes = 100
    parts = ("train", "val", "test")
    source = datasets.FGVCAircraft
