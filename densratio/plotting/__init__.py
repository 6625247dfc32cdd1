"""Plots, drawn with matplotlib: displays with the interface of scikit-learn's, and two figures of a label-noise experiment.

Each display has `from_estimator(ratio, X, y)` and `from_predictions(...)`, keeps what it draws as attributes, and draws it again
with `plot(ax=...)`. Without `ax` it opens a pyplot figure; pass axes of a `matplotlib.figure.Figure` where there is no screen.
"""

from .balance import BalanceDisplay
from .calibration import DiscriminatorCalibrationDisplay
from .differences import DifferencesDisplay
from .experiment import weight_histograms, weighting_functions
from .performance import PerformanceDisplay
from .ratio import RatioDisplay
from .weights import WeightsDisplay

__all__ = [
    "BalanceDisplay",
    "DifferencesDisplay",
    "DiscriminatorCalibrationDisplay",
    "PerformanceDisplay",
    "RatioDisplay",
    "WeightsDisplay",
    "weight_histograms",
    "weighting_functions",
]
