"""The estimators: DensityRatio, and a front door to it for each method, one file each."""

from .base import DensityRatio, Update
from .kliep import KLIEP
from .kmm import KMM
from .lsif import LSIF
from .wasserstein import Wasserstein

__all__ = ["ESTIMATORS", "KLIEP", "KMM", "LSIF", "DensityRatio", "Update", "Wasserstein"]

ESTIMATORS: dict[str, type[DensityRatio]] = {"kmm": KMM, "kliep": KLIEP, "lsif": LSIF, "wasserstein": Wasserstein}
