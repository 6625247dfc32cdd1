"""DaskRatio, the estimator that fits LSIF and KLIEP on Dask collections."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask import delayed
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from .._estimator import Estimator
from .._validation import check_count
from ..estimators import DensityRatio
from ..estimators.distributed import check_sample, objective_and_features, portable, sample_of, score_of
from ..features import Features
from .blockwise import transform
from .partitions import Partitions
from .solve import Passes, fit_by_sums
from .survey import Survey, survey

__all__ = ["DaskRatio"]


class DaskRatio(Estimator):
    """LSIF or KLIEP on Dask arrays and dataframes: one pass draws a sample, one adds up the problem, which is solved in memory.

    The result equals that of `ratio.fit` in memory on all rows with the same centers and bandwidth, up to rounding. Centers and
    bandwidth come from a uniform sample of each domain; if the sample holds all rows, they too equal those of a fit in memory.
    A fit takes two passes on the current Dask scheduler: call X.persist() first if reading X is slow. A third pass computes the
    mean if the ratio is clipped at 0 (uLSIF). The likelihood of KLIEP is not a function of sums: target features (m, k) of up to
    4 million entries are gathered in memory, and with more, each of about ten Newton steps is a pass. A worker holds one
    partition per thread, its features in blocks, and k^2 sums.

    Parameters
    ----------
    ratio : LSIF, KLIEP, or a DensityRatio whose objective has problems made of sums (`is_sum`)
        A clone is fitted. "cv" and sequences for gamma and regularization are chosen on the sample. n_centers=None requires a
        target no larger than the sample.
    n_sample : int
        Rows drawn from each domain for centers, bandwidth and cross-validation; at least four times n_centers are drawn.
    random_state : int >= 0
        Seed of the draw, which is reproducible for the same partitions.

    Attributes
    ----------
    ratio_ : the fitted estimator, without weights_. It no longer needs Dask: it can be pickled, transforms rows in memory, and
        supports partial_fit.
    weights_ : lazy Dask array (n_source,), the weights of the source rows in their order, mean 1; chunk sizes are known.
    coef_, centers_, gamma_, normalization_, best_params_, ... : those of ratio_, see `DensityRatio`.
    """

    def __init__(self, ratio: Any, *, n_sample: int = 10_000, random_state: int = 0):
        self.ratio = ratio
        self.n_sample = n_sample
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> DaskRatio:
        """Estimate the ratio. X (n, d): Dask array or dataframe. y (n,) two values, the smaller is the source, and
        sample_weight (n,) >= 0 or None: Dask arrays or series, partitioned like X.

        Raises ValueError for input that is not Dask, partitions that do not match, NaN (with the column name), an empty domain,
        and estimators whose problem is not made of sums over rows.
        """
        ratio, features = _summable(self.ratio)
        check_count("random_state of DaskRatio", self.random_state, 0)
        # distinct_rows looks for copies among four times as many rows as it returns.
        n_sample = max(check_count("n_sample of DaskRatio", self.n_sample), 4 * (features.n_centers or 0))
        partitions = Partitions.of(ratio, X, y, sample_weight)
        found = survey(partitions, n_sample, self.random_state)
        sampled = sample_of(ratio, *found.sample(partitions.columns))
        _check_centers(features, found, n_sample)
        mean = fit_by_sums(ratio, Passes(partitions, ratio, sampled.assembly, found.labels), sampled)
        # If the ratio is 0 on the source, the weights are even, as in a fit in memory.
        ratio.normalization_ = mean if mean > 0.0 else 1.0
        weights = _lazy_weights(ratio, partitions, found)
        self._take(ratio, weights if mean > 0.0 else da.ones_like(weights))
        return self

    def transform(self, X: Any) -> Any:
        """p_target(x) / p_source(x) (n,) at the rows of X (n, d): lazy for a Dask collection, computed for rows in memory."""
        check_is_fitted(self, "ratio_")
        return transform(self.ratio_, X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Score of the ratio on held-out rows, higher is better, as `DensityRatio.score`; arguments as in `fit`.

        The ratios are gathered in memory, one number per row.
        """
        check_is_fitted(self, "ratio_")
        partitions = Partitions.of(clone(self.ratio_), X, y, sample_weight)
        found = survey(partitions, 1, 0)
        check_sample(self.ratio_, *found.sample(partitions.columns))
        sides = [side for side in (self.transform(X), y, sample_weight) if side is not None]
        values, labels, *weight = (np.asarray(side) for side in dask.compute(*sides))
        domains = [labels == label for label in found.labels]
        weights = [weight[0][is_member] if weight else None for is_member in domains]
        return score_of(self.ratio_, *(values[is_member] for is_member in domains), *weights)

    def _take(self, ratio: DensityRatio, weights: da.Array) -> None:
        for stale in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, stale)
        for name, value in vars(ratio).items():
            if name.endswith("_") and not name.startswith("_"):
                setattr(self, name, value)
        self.ratio_, self.weights_ = ratio, weights


def _summable(ratio: Any) -> tuple[DensityRatio, Features]:
    """An unfitted clone of a ratio whose problem is made of sums over rows, and its features. Raises ValueError for others."""
    objective = None
    if isinstance(ratio, DensityRatio):
        objective, features = objective_and_features(ratio)
    if objective is None or not objective.is_sum:
        kind = type(ratio).__name__
        raise ValueError(
            f"DaskRatio fits LSIF() and KLIEP(), which need only sums over rows; {kind} needs all rows at once. Fit {kind} on a "
            "sample in memory, then evaluate it on a Dask collection with densratio.dask.transform(ratio, X)."
        )
    if not (ratio.cv is None or isinstance(ratio.cv, Integral) or hasattr(ratio.cv, "split")):
        raise ValueError(
            "cv names rows of X, but cross-validation on Dask collections uses a sample of them: give a number of folds or a "
            "scikit-learn splitter."
        )
    return clone(ratio), features


def _check_centers(features: Features, found: Survey, n_sample: int) -> None:
    n_target = found.n_rows(found.labels[1])
    if features.n_centers is None and not features.is_map and n_target > n_sample:
        raise ValueError(
            f"n_centers=None makes every target row a kernel center, and the target has {n_target} rows, more than "
            f"n_sample={n_sample}: give a number, e.g. n_centers=500."
        )


def _lazy_weights(ratio: DensityRatio, partitions: Partitions, found: Survey) -> da.Array:
    label, once = found.labels[0], delayed(portable(ratio), traverse=False)
    parts = [
        da.from_delayed(
            delayed(_weights)(once, *partitions.blocks[number][:2], label, partitions.dtype), (n_rows,), partitions.dtype
        )
        for number, n_rows in sorted(found.sizes[label].items())
    ]
    return da.concatenate(parts)


def _weights(ratio: DensityRatio, x: Any, y: Any, label: Any, dtype: np.dtype) -> np.ndarray:
    is_source = np.asarray(y) == label
    return np.asarray(ratio.transform(x[is_source]), dtype=dtype)
