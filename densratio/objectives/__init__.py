"""The divergences. To add one, write a file and add a line to OBJECTIVES, which also drives the tests."""

from .base import Objective, Problem
from .kliep import KullbackLeibler
from .kmm import MaximumMeanDiscrepancy
from .lsif import SquaredDistance
from .wasserstein import Wasserstein1

__all__ = [
    "OBJECTIVES",
    "KullbackLeibler",
    "MaximumMeanDiscrepancy",
    "Objective",
    "Problem",
    "SquaredDistance",
    "Wasserstein1",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "kmm": MaximumMeanDiscrepancy,
    "kliep": KullbackLeibler,
    "lsif": SquaredDistance,
    "wasserstein": Wasserstein1,
}
