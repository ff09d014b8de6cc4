"""LightningModules that fine-tune pretrained networks."""

from razorlight.tasks.base import FineTuningTask
from razorlight.tasks.classification import ClassificationTask
from razorlight.tasks.depth import DepthTask
from razorlight.tasks.multi_label import MultiLabelClassificationTask
from razorlight.tasks.regression import RegressionTask
from razorlight.tasks.schedule import Schedule
from razorlight.tasks.segmentation import SegmentationTask

__all__ = [
    "ClassificationTask",
    "DepthTask",
    "FineTuningTask",
    "MultiLabelClassificationTask",
    "RegressionTask",
    "Schedule",
    "SegmentationTask",
]
