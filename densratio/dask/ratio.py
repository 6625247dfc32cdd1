"""DaskRatio, the estimator that fits LSIF and KLIEP on Dask collections."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask import delayed
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from ..estimators import DensityRatio
from ..estimators.elsewhere import agreement, check_sample, plain_parts, portable, sample_of
from ..features import Features
from .blockwise import transform
from .partitions import Partitions
from .solve import Passes, fit_by_sums
from .survey import Survey, SurveyPlan, survey

__all__ = ["DaskRatio"]


class DaskRatio(BaseEstimator):
    """LSIF or KLIEP on Dask arrays and dataframes: one pass samples, one sums statistics, and the solve is in memory.

    The answer is that of `ratio.fit` in memory on all rows with the same centers and bandwidth, to rounding. These come from a
    uniform sample of each domain; where no domain has more rows than that, they are those of the fit in memory too, and so is
    all else. Passes run on the current Dask scheduler, two a fit: X.persist() first where reading it is slow. A third gives
    the mean where a ratio is clipped at 0 (uLSIF). KLIEP's likelihood is no function of sums: the target's features (m, k)
    come together where they have at most 4 million entries, and elsewhere each of about ten Newton steps is a pass of its own.
    A worker holds one partition a thread, its features in blocks, and k^2 sums.

    Parameters
    ----------
    ratio : LSIF, KLIEP, or a DensityRatio whose objective has statistics
        Left as it is; a clone is fitted. gamma="cv" and sequences (of regularization too) choose on the sample. n_centers=None
        needs a target that is no larger than the sample.
    n_sample : int
        Rows drawn of each domain for the centers, the bandwidth and cross-validation, and at least four times n_centers.
    random_state : int >= 0
        Seed of that draw. With the same partitions it gives the same rows.

    Attributes
    ----------
    ratio_ : the fitted estimator, without weights_: it needs Dask no more, pickles, transforms rows in memory, and goes on
        with partial_fit.
    weights_ : lazy Dask array (n_source,), the weights of the source rows in their order, mean 1; chunk sizes are known.
    coef_, centers_, gamma_, normalization_, best_params_, ... : those of ratio_, see `DensityRatio`.
    """

    def __init__(self, ratio: Any, *, n_sample: int = 10_000, random_state: int = 0):
        self.ratio = ratio
        self.n_sample = n_sample
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> DaskRatio:
        """Estimate the ratio. X (n, d): Dask array or dataframe. y (n,) two values, the smaller is the source, and
        sample_weight (n,) >= 0 or None: Dask arrays or series, split as X is.

        Raises ValueError for what is not Dask, partitions that do not match, NaN (with the column's name), an empty domain,
        and estimators without statistics.
        """
        ratio, features = _summable(self.ratio)
        plan = self._plan(features)
        partitions = Partitions.of(ratio, X, y, sample_weight)
        found = survey(partitions, plan)
        sampled = sample_of(ratio, *found.sample(partitions.columns))
        _check_centers(features, found, plan)
        mean = fit_by_sums(ratio, Passes(partitions, ratio, sampled.assembly, found.labels), sampled)
        # A ratio that vanishes on the source says nothing of its rows: they count alike, as in memory.
        ratio.normalization_ = mean if mean > 0.0 else 1.0
        weights = _lazy_weights(ratio, partitions, found)
        self._take(ratio, weights if mean > 0.0 else da.ones_like(weights))
        return self

    def transform(self, X: Any) -> Any:
        """p_target(x) / p_source(x) (n,) of the rows of X (n, d): lazy for a Dask collection, at once for rows in memory."""
        check_is_fitted(self, "ratio_")
        return transform(self.ratio_, X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Agreement of the ratio with held-out rows, higher is better, as `DensityRatio.score`; arguments as in `fit`.

        The ratios come together in memory: one number for each row.
        """
        check_is_fitted(self, "ratio_")
        partitions = Partitions.of(clone(self.ratio_), X, y, sample_weight)
        found = survey(partitions, SurveyPlan(1, 0))
        check_sample(self.ratio_, *found.sample(partitions.columns))
        sides = [side for side in (self.transform(X), y, sample_weight) if side is not None]
        values, labels, *weight = (np.asarray(side) for side in dask.compute(*sides))
        domains = [labels == label for label in found.labels]
        weights = [weight[0][is_member] if weight else None for is_member in domains]
        return agreement(self.ratio_, *(values[is_member] for is_member in domains), *weights)

    def _plan(self, features: Features) -> SurveyPlan:
        for name, least in (("n_sample", 1), ("random_state", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} of DaskRatio must be an int >= {least}; got {value!r}.")
        # distinct_rows seeks copies among four times as many rows as it returns.
        return SurveyPlan(max(self.n_sample, 4 * (features.n_centers or 0)), self.random_state)

    def _take(self, ratio: DensityRatio, weights: da.Array) -> None:
        for stale in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, stale)
        for name, value in vars(ratio).items():
            if name.endswith("_") and not name.startswith("_"):
                setattr(self, name, value)
        self.ratio_, self.weights_ = ratio, weights


def _summable(ratio: Any) -> tuple[DensityRatio, Features]:
    """An unfitted clone of a ratio whose fit is one of sums over rows, and its features. ValueError for any other."""
    objective = None
    if isinstance(ratio, DensityRatio):
        objective, features = plain_parts(ratio)
    if objective is None or not objective.is_sum:
        kind = type(ratio).__name__
        raise ValueError(
            f"DaskRatio fits LSIF() and KLIEP(), whose fit is one of sums over rows; {kind} needs all rows at once. Fit {kind} "
            "on a sample in memory, then densratio.dask.transform(ratio, X) gives its ratio at the rows of a Dask collection."
        )
    if not (ratio.cv is None or isinstance(ratio.cv, Integral) or hasattr(ratio.cv, "split")):
        raise ValueError(
            "cv names rows of X, and cross-validation on Dask collections sees a sample of them: give a number of folds or a "
            "scikit-learn splitter."
        )
    return clone(ratio), features


def _check_centers(features: Features, found: Survey, plan: SurveyPlan) -> None:
    n_target = found.n_rows(found.labels[1])
    if features.n_centers is None and not features.is_map and n_target > plan.n_sample:
        raise ValueError(
            f"n_centers=None makes every target row a kernel center, and the target has {n_target} rows, more than "
            f"n_sample={plan.n_sample}: give a number, e.g. n_centers=500."
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
