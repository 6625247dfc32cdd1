"""The density ratio of a table for which none is named: a stack of few quick methods, each at home in another kind of table."""

from __future__ import annotations

from typing import Any

from sklearn.ensemble import HistGradientBoostingClassifier

from .._arrays import is_sparse
from ..estimators import KMM, Discriminator, GaussianRatio, RatioEstimator, StackedRatio

__all__ = ["automatic"]

_FEW = 100  # rows of a sample below which a choice between methods is mostly noise
_LONG = 10_000  # rows of both samples from which boosting can spare some to tell when to stop, and two folds are enough
_ROUNDS = {1: 120, 3: 40}  # of boosting short tables, by the depth of the trees


def automatic(source: Any, target: Any, seed: int) -> RatioEstimator:
    """The unfitted density ratio for rows (n_s, d) and (n_t, d).

    Kernel mean matching gives values of few columns the quotient of their frequencies. Boosted stumps add up what each column
    says, whatever its shape, and pass over those that say nothing; deeper trees see what columns say together. Gaussians suit
    tables of measurements. Sparse rows, which only the first takes, and few rows get the first alone.
    """
    kernel, sizes = KMM(random_state=seed), (source.shape[0], target.shape[0])
    if min(sizes) < _FEW or is_sparse(source):
        return kernel
    is_long = sum(sizes) > _LONG
    members = {
        "kernel": kernel,
        "columns": _boosted(1, is_long, seed),
        "trees": _boosted(3, is_long, seed),
        "gaussians": GaussianRatio(),
    }
    return StackedRatio(members, cv=2 if is_long else 5, random_state=seed)


def _boosted(depth: int, is_long: bool, seed: int) -> Discriminator:
    rounds = 1000 if is_long else _ROUNDS[depth]
    boosting = HistGradientBoostingClassifier(
        max_depth=depth, max_iter=rounds, early_stopping=is_long, l2_regularization=1.0, random_state=seed
    )
    return Discriminator(boosting, cv=1)
