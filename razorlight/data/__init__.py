"""Lightning data modules over public data sets and folders of one's own."""

from razorlight.data.ade20k import ADE20K
from razorlight.data.base import RazorDataModule
from razorlight.data.blue_marble import BlueMarble
from razorlight.data.camvid import CamVid
from razorlight.data.cifar import CIFAR10, CIFAR100
from razorlight.data.cityscapes import Cityscapes
from razorlight.data.cub200 import CUB200
from razorlight.data.depth_folder import DepthFolder
from razorlight.data.image_folder import ImageFolder
from razorlight.data.imagenet import ImageNet
from razorlight.data.oxford_pets import OxfordPets, OxfordPetTrimaps
from razorlight.data.segmentation_folder import SegmentationFolder
from razorlight.data.torchvision_sets import (
    DTD,
    EuroSAT,
    FGVCAircraft,
    Flowers102,
    Food101,
    StanfordCars,
)
from razorlight.data.voc import VOC2012, VOCAug

__all__ = [
    "ADE20K",
    "CIFAR10",
    "CIFAR100",
    "CUB200",
    "DTD",
    "VOC2012",
    "BlueMarble",
    "CamVid",
    "Cityscapes",
    "DepthFolder",
    "EuroSAT",
    "FGVCAircraft",
    "Flowers102",
    "Food101",
    "ImageFolder",
    "ImageNet",
    "OxfordPetTrimaps",
    "OxfordPets",
    "RazorDataModule",
    "SegmentationFolder",
    "StanfordCars",
    "VOCAug",
]
