"""LightningModules that fine-tune pretrained networks."""

from razorlight.tasks.classification import ClassificationTask
from razorlight.tasks.segmentation import SegmentationTask

__all__ = ["ClassificationTask", "SegmentationTask"]
