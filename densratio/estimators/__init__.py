"""The density-ratio estimators: DensityRatio and its subclasses, which minimize an objective, and other methods."""

from typing import Any

from .base import RatioEstimator
from .density_ratio import DensityRatio
from .discriminator import Discriminator
from .gaussian import GaussianRatio
from .kde import KDERatio
from .kliep import KLIEP
from .kmm import KMM
from .label_shift import LabelShiftRatio
from .lsif import LSIF
from .nearest_neighbors import NearestNeighborsRatio
from .outliers import RatioOutlierDetector
from .solve import Weighting, objective_of
from .spectral import SpectralRatio
from .stacked import StackedRatio
from .subspace import SubspaceLSIF
from .wasserstein import Wasserstein

__all__ = [
    "ESTIMATORS",
    "IN_LOOPS",
    "KLIEP",
    "KMM",
    "LSIF",
    "DensityRatio",
    "Discriminator",
    "GaussianRatio",
    "KDERatio",
    "LabelShiftRatio",
    "NearestNeighborsRatio",
    "RatioEstimator",
    "RatioOutlierDetector",
    "SpectralRatio",
    "StackedRatio",
    "SubspaceLSIF",
    "Wasserstein",
    "Weighting",
    "objective_of",
]

IN_LOOPS: dict[str, type[DensityRatio]] = {"kmm": KMM, "kliep": KLIEP, "lsif": LSIF, "wasserstein": Wasserstein}
"""The estimators with an `update` for training loops, by name."""

ESTIMATORS: dict[str, type[RatioEstimator]] = {
    **IN_LOOPS,
    "discriminator": Discriminator,
    "gaussian": GaussianRatio,
    "kde": KDERatio,
    "nearest_neighbors": NearestNeighborsRatio,
    "spectral": SpectralRatio,
    "stacked": StackedRatio,
    "subspace_lsif": SubspaceLSIF,
}
"""All density-ratio estimators, by name."""


def __getattr__(name: str) -> Any:
    if name == "Update":
        raise ImportError("Update is gone: DensityRatio.update returns a Weighting, with the same coef, weights and features.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
