"""Lightning data modules over public data sets and folders of one's own."""

from razorlight.data.base import RazorDataModule
from razorlight.data.csv_data import ClassificationCSV, MultiLabelCSV, RegressionCSV
from razorlight.data.depth_folder import DepthFolder
from razorlight.data.image_folder import ImageFolder
from razorlight.data.segmentation_folder import SegmentationFolder
from razorlight.data.sets.ade20k import ADE20K
from razorlight.data.sets.blue_marble import BlueMarble
from razorlight.data.sets.camvid import CamVid
from razorlight.data.sets.cifar import CIFAR10, CIFAR100
from razorlight.data.sets.cityscapes import Cityscapes
from razorlight.data.sets.cub200 import CUB200
from razorlight.data.sets.dtd import DTD
from razorlight.data.sets.eurosat import EuroSAT
from razorlight.data.sets.fgvc_aircraft import FGVCAircraft
from razorlight.data.sets.flowers102 import Flowers102
from razorlight.data.sets.food101 import Food101
from razorlight.data.sets.imagenet import ImageNet
from razorlight.data.sets.oxford_pets import OxfordPets, OxfordPetTrimaps
from razorlight.data.sets.stanford_cars import StanfordCars
from razorlight.data.sets.voc import VOC2012, VOCAug

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
    "ClassificationCSV",
    "DepthFolder",
    "EuroSAT",
    "FGVCAircraft",
    "Flowers102",
    "Food101",
    "ImageFolder",
    "ImageNet",
    "MultiLabelCSV",
    "OxfordPetTrimaps",
    "OxfordPets",
    "RazorDataModule",
    "RegressionCSV",
    "SegmentationFolder",
    "StanfordCars",
    "VOCAug",
]
