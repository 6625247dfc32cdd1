"""What a training loop lends every method: the rows of a batch, passes, the validation bank, losses, the monitor, and data."""

from .batch_reweighter import BatchReweighter
from .data import DeviceData, Indexed, ShiftedDataset, endless, importance_sampler, labels_of
from .monitor import Monitor
from .reweighter import Reweighter
from .row_losses import RowLosses, suspicious_rows

__all__ = [
    "BatchReweighter",
    "DeviceData",
    "Indexed",
    "Monitor",
    "Reweighter",
    "RowLosses",
    "ShiftedDataset",
    "endless",
    "importance_sampler",
    "labels_of",
    "suspicious_rows",
]
