"""RatioEstimator: what all estimators share, from input checks and weights of mean 1 to the choice of parameters."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import ClassifierTags, TransformerTags
from sklearn.utils.validation import check_is_fitted

from .._arrays import Array, are_alike, is_sparse, put, take_rows, to_device, to_host, weighted_mean
from .._estimator import Estimator, unchanged_on_error
from .._scale import Scale
from .._threads import threads_for
from .._validation import check_rows, seed_of, split_domains
from .off_sample import KnownRows
from .samples import Samples, counting_rows, mean_one, over_mean, vanishes
from .search import ParameterSearch, is_search, search

__all__ = ["RatioEstimator"]

_NOT_FITTED = (
    "This %(name)s instance is not fitted yet. Call 'fit' with appropriate arguments before using this estimator: "
    "fit(*stack_domains(X_source, X_target))."
)
_MOST_UNCOUNTED = 1e4  # largest weight of a row that is left out because it hardly counts: their product is still negligible


class RatioEstimator(Estimator, ABC):
    """Base of the estimators of p_target(x) / p_source(x): a subclass implements `_fit` and `_ratio`.

    `_fit` learns from `Samples`, and `_ratio` returns the ratio at any rows up to a constant factor; `fit` turns it into source
    weights of mean 1. Where the subclass has a parameter `scale`, both get rows in units of the columns' spreads. Fitted arrays
    named in `_returns` are converted back to the array library of the input. If `_on_host` is true, both methods get numpy arrays
    (also CSR if `_takes_sparse`), whatever the type of the input.

    A parameter with a grid in `_search` may also be a sequence of values, or "cv", which stands for the values of the grid: `fit`
    then chooses the best value by cross-validation. `cv` (a number of folds, a scikit-learn splitter, or an iterable of
    (train, test), of which the rows of `test` are held out) and `n_jobs` (joblib processes) control the search.
    """

    _on_host: ClassVar[bool] = True
    _takes_sparse: ClassVar[bool] = False
    _search: ClassVar[ParameterSearch] = ParameterSearch({})
    _returns: ClassVar[tuple[str, ...]] = ()
    _has_units: ClassVar[bool] = True
    """Whether, without a parameter `scale`, the squares of the columns must be numbers."""
    _merges_copies: ClassVar[bool] = True
    """Whether `_fit` gets the distinct rows, in an order that depends neither on the given order nor on copies."""

    _known: KnownRows | None = None
    """The values of the fit at its own rows, in their own units, which replace the ratio there."""

    weights_: Any
    scale_: np.ndarray
    normalization_: float
    n_features_in_: int
    cv_results_: dict[str, Any]
    best_params_: dict[str, Any]

    # ------------------------------------------------------------ the contract

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> RatioEstimator:
        """Estimate the ratio. X (n, d); y (n,) two values, the smaller is the source; sample_weight (n,) >= 0 or None.

        A row with sample_weight k is equivalent to k copies of it. Raises ValueError if the input does not define a ratio.
        """
        with unchanged_on_error(self):
            samples, like = self._samples(X, y, sample_weight, reset=True)
            counted = samples.counted()
            self._draw_seed()
            scaled = counted.mapped(self._scaled)
            distinct = scaled.merged() if self._search.of_distinct else scaled
            with threads_for(sum(distinct.sizes), self._width(distinct)):
                search(self, distinct)
                raw = self._fit(distinct if self._merges_copies else scaled)
            if self._merges_copies:
                raw = distinct.of_each_source_row(raw)
            self._store_weights(raw, samples, counted, like)
        return self

    def transform(self, X: Any) -> Any:
        """p_target(x) / p_source(x) (n,), >= 0, at the rows of X (n, d), scaled to mean 1 over the source rows of `fit`.

        Always finite: at most 1e123 (float32: 2e15), which only rows far from all source rows can reach. If it is 0 at every
        source row, which `fit` warns of, `weights_` are even instead. Without regularization KMM and Wasserstein estimate
        weights of rows only: their ratio at another row is the kernel average of the weights near it.
        """
        self._check_is_fitted()
        rows = check_rows(self, X, reset=False)
        return self._returned(self._relative(self._placed(rows)), rows)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """fit(X, y), then the ratio (n,) of all rows of X."""
        return self.fit(X, y, sample_weight).transform(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Score of the ratio on held-out rows, higher is better. X (n, d); y (n,) and sample_weight (n,) as in `fit`.

        mean r(target) - mean r(source)^2 / 2: the negative squared distance to the true ratio, up to constants. For KLIEP, the
        lower bound mean log r(target) - mean r(source) + 1 of the Kullback-Leibler divergence.
        """
        self._check_is_fitted()
        samples, _ = self._samples(X, y, sample_weight, reset=False)
        source, target = (self._relative(rows) for rows in (samples.source, samples.target))
        return float(self._score_of(source, target, samples.source_weight, samples.target_weight))

    # ------------------------------------------------------------ what a subclass implements

    @abstractmethod
    def _fit(self, samples: Samples) -> Array:
        """Learn from samples without zero weights, and return the ratio (n_s,) at the source rows, up to a constant factor."""

    @abstractmethod
    def _ratio(self, rows: Array) -> Array:
        """The ratio (n,) at rows (n, d), finite and >= 0, up to the same factor."""

    def _score_of(
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None, target_weight: Array | None
    ) -> Array:
        return weighted_mean(target_ratio, target_weight) - 0.5 * weighted_mean(source_ratio * source_ratio, source_weight)

    # ------------------------------------------------------------ parts

    def _width(self, samples: Samples) -> int:
        """Columns of the widest matrix of the fit: those of the rows, or the centers of a kernel."""
        n_columns, n_centers = int(samples.source.shape[1]), getattr(self, "n_centers", 1)
        return max(n_columns, int(n_centers) if isinstance(n_centers, Integral) else sum(samples.sizes))

    def _draw_seed(self) -> None:
        """Draw one seed from random_state, shared by all candidates of a search and by the fit."""
        self._seed = seed_of(getattr(self, "random_state", 0))

    def _drawn_seed(self) -> int:
        return self._seed if hasattr(self, "_seed") else seed_of(getattr(self, "random_state", 0))

    def _chosen(self, name: str) -> Any:
        """The value of a parameter: chosen by cross-validation, or as given."""
        value = getattr(self, name)
        return getattr(self, "best_params_", {}).get(name, value) if is_search(value) else value

    def _samples(self, X: Any, y: Any, sample_weight: Any, *, reset: bool, is_stream: bool = False) -> tuple[Samples, Array]:
        """The two samples on the device that computes, and an empty array of the type of X.

        reset: whether the rows define the columns and their scale.
        """
        rows, is_source, weight = split_domains(self, X, y, reset=reset, sample_weight=sample_weight, is_stream=is_stream)
        places = np.flatnonzero(is_source), np.flatnonzero(~is_source)
        domains = [self._placed(take_rows(rows, at)) for at in places]
        weights = [None if weight is None else put(weight[at], part) for at, part in zip(places, domains, strict=True)]
        samples = Samples(domains[0], domains[1], weights[0], weights[1], is_source, *places)
        if reset:
            self._set_scale(samples.counted())
        return samples, rows[:0]

    def _set_scale(self, samples: Samples) -> None:
        """Choose the unit of each column, and set `scale_` (d,)."""
        given = getattr(self, "scale", None)
        if given not in ("auto", None) or not (given is None or isinstance(given, str)):
            raise ValueError(f'scale must be "auto" or None; got {given!r}.')
        self._unit = None
        if hasattr(self, "scale_"):
            del self.scale_
        if given == "auto":
            self._unit = Scale.between(*samples.sides)
            self.scale_ = np.where(np.isfinite(self._unit.spread), self._unit.spread, 0.0)

    def _relative(self, placed: Array) -> Array:
        """The ratio at placed rows, of mean 1 over the source."""
        ratio = self._ratio(self._scaled(placed))
        return over_mean(ratio if self._known is None else self._known(placed, ratio), self.normalization_)

    def _scaled(self, rows: Array) -> Array:
        scale = getattr(self, "_unit", None)
        return rows if scale is None else scale(rows)

    def _unscaled(self, rows: Array) -> Array:
        return rows if self._unit is None else self._unit.back(rows)

    def _placed(self, rows: Array) -> Array:
        if self._on_host:
            return to_host(rows)
        device = getattr(self, "device", None)
        return rows if device is None or is_sparse(rows) else to_device(rows, device)

    def _returned(self, values: Array, like: Array) -> Array:
        """`values` in the library, dtype and device of the input rows."""
        return values if are_alike(values, like) else put(to_host(values), like)

    def _store_weights(self, raw: Array, samples: Samples, counted: Samples, like: Array) -> None:
        weights, mean = mean_one(raw, counted.source_weight)
        self.normalization_ = float(mean)
        if bool(vanishes(weighted_mean(raw, counted.source_weight))):
            warnings.warn(
                f"The ratio of {type(self).__name__} is 0 at every source row, so the weights are even: the samples do not overlap "
                "at this bandwidth and regularization. Use smaller values, or look at diagnose(ratio, X, y).",
                UserWarning,
                stacklevel=3,
            )
        if counted.source.shape[0] < samples.source.shape[0]:
            weights = self._spread_over_all(weights, samples)
        self.weights_ = self._returned(weights, like)
        for name in self._returns:
            setattr(self, name, self._returned(getattr(self, name), like))

    def _spread_over_all(self, weights: Array, samples: Samples) -> Array:
        """Weights (n_s,) of all source rows from those of the rows with positive weight; the others get the ratio at the row."""
        count = counting_rows(samples.source_weight)
        full = np.empty(len(count), dtype=to_host(weights).dtype)
        full[count] = to_host(weights)
        others = take_rows(samples.source, np.flatnonzero(~count))
        full[~count] = to_host(self._relative(others))
        # A row that hardly counts must not change the mean.
        hardly = ~count & (to_host(samples.source_weight) > 0.0)
        full[hardly] = np.minimum(full[hardly], max(_MOST_UNCOUNTED, full[count].max()))
        return put(full, weights)

    def _check_is_fitted(self) -> None:
        check_is_fitted(self, msg=_NOT_FITTED)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "normalization_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = self._takes_sparse
        tags.transformer_tags = TransformerTags(preserves_dtype=["float64", "float32"])
        # These tags tell scikit-learn that y has two values; estimator_type stays unset because no class is predicted.
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags
