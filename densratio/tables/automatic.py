"""The default density ratio of a table: a stack of a few quick methods, each for another kind of shift."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from .._arrays import is_sparse, take_rows
from .._scale import distinct
from ..estimators import KMM, Discriminator, GaussianRatio, RatioEstimator, StackedRatio
from ..estimators.discriminator.classifiers import Standardized
from ..estimators.discriminator.weighted_bins import WeightedBins

__all__ = ["automatic"]

_FEW = 100  # rows of a sample below which a choice between methods is mostly noise
_LONG = 10_000  # distinct rows of both samples from which boosting holds some out for early stopping, and two folds are enough
_LEAF = 20  # rows in a leaf
_ROUNDS = {1: 120, 3: 40}  # boosting rounds of short tables, by the depth of the trees


def automatic(source: Any, target: Any, seed: int, sample_weight: np.ndarray | None = None) -> RatioEstimator:
    """The unfitted density ratio for rows (n_s, d) and (n_t, d); source rows count sample_weight (n_s,) times if given.

    Kernel mean matching compares whole rows. Logistic regression and Gaussians suit categories and shifted measurements. Boosted
    stumps are additive in the columns, for shifts of any shape, and ignore columns without information; deeper trees find
    interactions. Sparse rows, which only kernel mean matching takes, and few rows get kernel mean matching alone.
    """
    kernel, sizes = KMM(random_state=seed), (_n_rows(source, sample_weight), target.shape[0])
    source = source if sample_weight is None else take_rows(source, np.flatnonzero(sample_weight > 0.0))
    if min(sizes) < _FEW or is_sparse(source):
        return kernel
    n_distinct = sum(len(distinct(rows)[0]) for rows in (source, target))
    is_long = n_distinct > _LONG
    # Equal rows are merged, and boosting counts distinct rows, whatever their weights.
    leaf = max(1, round(_LEAF * n_distinct / sum(sizes)))
    # A tight tolerance, so that a row that counts k times gives the same result as k copies.
    linear = make_pipeline(Standardized(), LogisticRegression(solver="newton-cholesky", tol=1e-6))
    members = {
        "kernel": kernel,
        "linear": Discriminator(linear, cv=1),
        "columns": _boosted(1, is_long, leaf, seed),
        "trees": _boosted(3, is_long, leaf, seed),
        "gaussians": GaussianRatio(),
    }
    return StackedRatio(members, cv=2 if is_long else 5, random_state=seed)


def _n_rows(rows: Any, weight: np.ndarray | None) -> float:
    """The number of rows, with copies if all weights are whole numbers."""
    return rows.shape[0] if weight is None or not np.array_equal(weight, np.rint(weight)) else float(weight.sum())


def _boosted(depth: int, is_long: bool, leaf: int, seed: int) -> Discriminator:
    rounds = 1000 if is_long else _ROUNDS[depth]
    boosting = HistGradientBoostingClassifier(
        max_depth=depth, max_iter=rounds, early_stopping=is_long, min_samples_leaf=leaf, l2_regularization=1.0, random_state=seed
    )
    return Discriminator(make_pipeline(WeightedBins(), boosting), cv=1)
