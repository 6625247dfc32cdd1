"""Density ratios (importance weights) for tables and training loops.

`from densratio import KMM, KLIEP, LSIF, Wasserstein, stack_domains`; `densratio.training` holds the torch side.
"""

from ._validation import stack_domains
from ._version import __version__
from .estimators import KLIEP, KMM, LSIF, DensityRatio, Wasserstein

__all__ = ["KLIEP", "KMM", "LSIF", "DensityRatio", "Wasserstein", "__version__", "stack_domains"]
