"""Density ratios (importance weights) for tables and training loops.

`from densratio import KMM, KLIEP, LSIF, stack_domains` and the other methods; `ImportanceWeighted` trains with a ratio, `diagnose`
tells whether to. `densratio.datasets` has shifts with known ratios, `densratio.training` the torch side.
"""

from ._validation import stack_domains
from ._version import __version__
from .diagnostics import diagnose
from .estimators import (
    KLIEP,
    KMM,
    LSIF,
    DensityRatio,
    Discriminator,
    GaussianRatio,
    KDERatio,
    NearestNeighborsRatio,
    SpectralRatio,
    SubspaceLSIF,
    Wasserstein,
)
from .two_step import ImportanceWeighted, importance_weighted_score, make_iw_scorer

__all__ = [
    "KLIEP",
    "KMM",
    "LSIF",
    "DensityRatio",
    "Discriminator",
    "GaussianRatio",
    "ImportanceWeighted",
    "KDERatio",
    "NearestNeighborsRatio",
    "SpectralRatio",
    "SubspaceLSIF",
    "Wasserstein",
    "__version__",
    "diagnose",
    "importance_weighted_score",
    "make_iw_scorer",
    "stack_domains",
]
