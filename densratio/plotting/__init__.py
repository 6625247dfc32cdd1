"""Plots, drawn with matplotlib: displays with the interface of scikit-learn's, and figures of training runs.

Each display has `from_estimator(ratio, X, y)` and `from_predictions(...)`, keeps its data as attributes, and draws them again with
`plot(ax=...)`. Without `ax` it opens a pyplot figure; if there is no screen, pass axes of a `matplotlib.figure.Figure`.
"""

from .balance import BalanceDisplay
from .calibration import DiscriminatorCalibrationDisplay
from .differences import DifferencesDisplay
from .experiment import logged_curves, weight_histograms, weight_map, weighting_functions
from .margins import MarginBins, margin_bins, margin_changes
from .performance import PerformanceDisplay
from .ratio import RatioDisplay
from .weights import WeightsDisplay

__all__ = [
    "BalanceDisplay",
    "DifferencesDisplay",
    "DiscriminatorCalibrationDisplay",
    "MarginBins",
    "PerformanceDisplay",
    "RatioDisplay",
    "WeightsDisplay",
    "logged_curves",
    "margin_bins",
    "margin_changes",
    "weight_histograms",
    "weight_map",
    "weighting_functions",
]
