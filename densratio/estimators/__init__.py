"""The estimators: DensityRatio, and a front door to it or a method of its own for each name, one file each."""

from .base import DensityRatio, Update
from .contract import RatioEstimator
from .kliep import KLIEP
from .kmm import KMM
from .lsif import LSIF
from .wasserstein import Wasserstein

__all__ = ["ESTIMATORS", "IN_LOOPS", "KLIEP", "KMM", "LSIF", "DensityRatio", "RatioEstimator", "Update", "Wasserstein"]

IN_LOOPS: dict[str, type[DensityRatio]] = {"kmm": KMM, "kliep": KLIEP, "lsif": LSIF, "wasserstein": Wasserstein}
"""The methods with an `update` for training loops, by name."""

ESTIMATORS: dict[str, type[RatioEstimator]] = {**IN_LOOPS}
"""All density ratios, by name."""
