"""Data sets and samplers of a loop: rows with their index, shifted labels, data on the device, draws by weight, chosen rows."""

from .chosen_rows import ChosenRows
from .indexed import Indexed, endless
from .on_device import DeviceData
from .sampler import ImportanceSampler, importance_sampler
from .shifted import ShiftedDataset, labels_of

__all__ = [
    "ChosenRows",
    "DeviceData",
    "ImportanceSampler",
    "Indexed",
    "ShiftedDataset",
    "endless",
    "importance_sampler",
    "labels_of",
]
