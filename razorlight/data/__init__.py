"""Lightning data modules over public data sets and folders of one's own."""

from razorlight.data.ade20k import ADE20K
from razorlight.data.base import RazorDataModule
from razorlight.data.blue_marble import BlueMarble
from razorlight.data.cifar import CIFAR10, CIFAR100
from razorlight.data.image_folder import ImageFolder
from razorlight.data.oxford_pets import OxfordPets
from razorlight.data.segmentation_folder import SegmentationFolder

__all__ = [
    "ADE20K",
    "CIFAR10",
    "CIFAR100",
    "BlueMarble",
    "ImageFolder",
    "OxfordPets",
    "RazorDataModule",
    "SegmentationFolder",
]
