"""The divergences. A new one is a file of its own and one line of OBJECTIVES, which also drives the tests."""

from .base import Objective
from .kliep import KullbackLeibler
from .kmm import MaximumMeanDiscrepancy
from .lsif import SquaredDistance
from .statistics import StatisticObjective, Statistics
from .wasserstein import Wasserstein1

__all__ = [
    "OBJECTIVES",
    "KullbackLeibler",
    "MaximumMeanDiscrepancy",
    "Objective",
    "SquaredDistance",
    "StatisticObjective",
    "Statistics",
    "Wasserstein1",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "kmm": MaximumMeanDiscrepancy,
    "kliep": KullbackLeibler,
    "lsif": SquaredDistance,
    "wasserstein": Wasserstein1,
}
