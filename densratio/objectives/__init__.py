"""The divergences. To add one, write a file and add a line to OBJECTIVES, which also drives the tests."""

from typing import Any

from .base import Objective, Problem, SumProblem
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
    "SumProblem",
    "Wasserstein1",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "kmm": MaximumMeanDiscrepancy,
    "kliep": KullbackLeibler,
    "lsif": SquaredDistance,
    "wasserstein": Wasserstein1,
}


def __getattr__(name: str) -> Any:
    if name in ("StatisticObjective", "Statistics"):
        raise ImportError(
            f"{name} is gone: an objective with is_sum = True makes a SumProblem, which holds the sums and adds up by `plus`."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
