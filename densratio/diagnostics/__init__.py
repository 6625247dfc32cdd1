"""Diagnostics of importance weights: effective sample size, balance, overlap, and whether to weight at all.

`diagnose(ratio, X, y)` gives the whole report; the other functions give single measures.
"""

from .balance import standardized_mean_difference
from .diagnosis import diagnose
from .divergence import Divergence, divergence
from .ratio_test import ratio_test
from .report import ColumnBalance, Report
from .two_sample import TwoSampleTest, mmd, two_sample_test
from .weights import effective_sample_size, pareto_k

__all__ = [
    "ColumnBalance",
    "Divergence",
    "Report",
    "TwoSampleTest",
    "diagnose",
    "divergence",
    "effective_sample_size",
    "mmd",
    "pareto_k",
    "ratio_test",
    "standardized_mean_difference",
    "two_sample_test",
]
