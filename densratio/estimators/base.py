"""What every density ratio does, whatever its method: checked input, weights of mean 1, unseen rows, chosen parameters."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import ClassifierTags, TransformerTags

from .._arrays import Array, device_of, is_tensor, put, take_rows, to_host, weighted_mean
from .._validation import check_rows, seed_of, split_domains
from ..model_selection import Fold, k_fold_scores
from .samples import Samples, mean_one
from .search import folds_by, is_search, search

__all__ = ["RatioEstimator"]


class RatioEstimator(BaseEstimator, ABC):
    """Base of the density ratios p_target(x) / p_source(x): one method is `_fit` and `_ratio`, and this class does the rest.

    A subclass learns from `Samples` in `_fit` and gives the ratio of any rows up to a constant in `_ratio`; `fit` makes
    the weights of the source rows, of mean 1, from it. Fitted arrays named in `_returns` go back to the person's library.
    Where `_on_host` is true both see numpy arrays (CSR too where `_takes_sparse`), whatever array the person gave.

    A parameter named in `_choosable` may also be "cv" or a sequence of values: `fit` then takes the best one under
    cross-validation. The parameters of that search are `cv` and `n_jobs`, where the subclass has them: the number of folds, a
    scikit-learn splitter or an iterable of (train, test), of which the rows of `test` are held out; and joblib processes.
    Without a splitter it looks at `_choice_rows` rows of each domain at most, a seeded draw: more would not choose better.
    """

    _on_host: ClassVar[bool] = True
    _takes_sparse: ClassVar[bool] = False
    _choosable: ClassVar[tuple[str, ...]] = ()
    _returns: ClassVar[tuple[str, ...]] = ()
    _choice_rows: ClassVar[int] = 10_000

    weights_: Any
    normalization_: float
    n_features_in_: int
    cv_results_: dict[str, Any]
    best_params_: dict[str, Any]

    # ------------------------------------------------------------ the contract

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> RatioEstimator:
        """Estimate the ratio. X (n, d); y (n,) two values, the smaller is the source; sample_weight (n,) >= 0 or None.

        A row with sample_weight k counts as k copies of it would. Raises ValueError for input that has no ratio, saying why.
        """
        samples, like = self._samples(X, y, sample_weight, reset=True)
        counted = samples.counted()
        self._draw_seed()
        search(self, counted)
        raw = self._fit(counted)
        self._store_weights(raw, samples, counted, like)
        return self

    def transform(self, X: Any) -> Any:
        """p_target(x) / p_source(x) (n,), >= 0, for the rows of X (n, d); mean 1 over the rows that `fit` saw as source.

        Wasserstein, and KMM without regularization, weigh rows and not points: their ratio at x is the kernel average of the
        weights near x.
        """
        self._check_is_fitted()
        rows = check_rows(self, X, reset=False)
        ratio = self._ratio(self._placed(rows)) / self.normalization_
        return self._returned(ratio, rows)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """fit(X, y), then the ratio (n,) of all rows of X."""
        return self.fit(X, y, sample_weight).transform(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Agreement of the ratio with held-out rows, higher is better. X (n, d); y (n,) and sample_weight (n,) as in `fit`.

        mean r(target) - mean r(source)^2 / 2: the squared distance to the true ratio, up to its sign and a constant. For KLIEP
        the lower bound mean log r(target) - mean r(source) + 1 of the Kullback-Leibler divergence.
        """
        self._check_is_fitted()
        samples, _ = self._samples(X, y, sample_weight, reset=False)
        source, target = (self._ratio(rows) / self.normalization_ for rows in (samples.source, samples.target))
        return float(self._agreement(source, target, samples.source_weight, samples.target_weight))

    # ------------------------------------------------------------ what a method fills in

    @abstractmethod
    def _fit(self, samples: Samples) -> Array:
        """Learn from samples whose rows all count, and give the ratio (n_s,) of the source rows, up to a constant factor."""

    @abstractmethod
    def _ratio(self, rows: Array) -> Array:
        """The ratio (n,) of rows (n, d), finite and >= 0, up to the same factor."""

    def _agreement(
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None, target_weight: Array | None
    ) -> Array:
        return weighted_mean(target_ratio, target_weight) - 0.5 * weighted_mean(source_ratio * source_ratio, source_weight)

    def _grid(self, name: str, samples: Samples) -> Sequence[Any]:
        """The values that "cv" stands for, of a parameter in `_choosable`; a method without a grid takes sequences alone."""
        raise ValueError(f'{name}="cv" stands for no values in {type(self).__name__}: give a sequence of values.')

    def _scores(self, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
        """Scores (n_candidates, n_folds), higher is better; by default of clones on k folds of both domains."""
        X, y, weight = samples.stacked()
        return k_fold_scores(self, candidates, X, y, weight, folds=self._folds(samples), n_jobs=getattr(self, "n_jobs", None))

    def _folds(self, samples: Samples) -> list[Fold]:
        """What cross-validation holds out of each domain."""
        return folds_by(getattr(self, "cv", None), samples)

    # ------------------------------------------------------------ parts

    def _draw_seed(self) -> None:
        """One draw from random_state serves every candidate of a search and the fit."""
        self._seed = seed_of(getattr(self, "random_state", 0))

    def _drawn_seed(self) -> int:
        return self._seed if hasattr(self, "_seed") else seed_of(getattr(self, "random_state", 0))

    def _chosen(self, name: str) -> Any:
        """The value of a parameter: the one that cross-validation chose, or the one given."""
        value = getattr(self, name)
        return getattr(self, "best_params_", {}).get(name, value) if is_search(value) else value

    def _samples(self, X: Any, y: Any, sample_weight: Any, *, reset: bool) -> tuple[Samples, Array]:
        """The two domains, placed where the method computes; and an empty array of the kind that X came in."""
        rows, is_source, weight = split_domains(self, X, y, reset=reset, sample_weight=sample_weight)
        places = np.flatnonzero(is_source), np.flatnonzero(~is_source)
        domains = [self._placed(take_rows(rows, at)) for at in places]
        weights = [None if weight is None else put(weight[at], part) for at, part in zip(places, domains, strict=True)]
        return Samples(domains[0], domains[1], weights[0], weights[1], is_source, *places), rows[:0]

    def _placed(self, rows: Array) -> Array:
        return to_host(rows) if self._on_host else rows

    def _returned(self, values: Array, like: Array) -> Array:
        """`values` in the library, dtype and device of the rows that the person gave."""
        if is_tensor(like) == is_tensor(values) and values.dtype == like.dtype and device_of(values) == device_of(like):
            return values
        return put(to_host(values), like)

    def _store_weights(self, raw: Array, samples: Samples, counted: Samples, like: Array) -> None:
        weights, mean = mean_one(raw, counted.source_weight)
        self.normalization_ = float(mean)
        if not float(weighted_mean(raw, counted.source_weight)) > 0.0:
            warnings.warn(
                f"The ratio of {type(self).__name__} is 0 at every source row, so the weights are even: the samples do not overlap "
                "at this bandwidth and regularization. Take smaller ones, or look at diagnose(ratio, X, y).",
                UserWarning,
                stacklevel=3,
            )
        if counted.source.shape[0] < samples.source.shape[0]:
            weights = self._spread_over_all(weights, samples)
        self.weights_ = self._returned(weights, like)
        for name in self._returns:
            setattr(self, name, self._returned(getattr(self, name), like))

    def _spread_over_all(self, weights: Array, samples: Samples) -> Array:
        """Weights (n_s,) of all source rows, given those of the rows that count; the others get the ratio there."""
        counts = to_host(samples.source_weight) > 0.0
        full = np.empty(len(counts), dtype=to_host(weights).dtype)
        full[counts] = to_host(weights)
        full[~counts] = to_host(self._ratio(take_rows(samples.source, np.flatnonzero(~counts)))) / self.normalization_
        return put(full, weights)

    def _check_is_fitted(self) -> None:
        if not hasattr(self, "normalization_"):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before using "
                "this estimator: fit(*stack_domains(X_source, X_target))."
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "normalization_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = self._takes_sparse
        tags.transformer_tags = TransformerTags(preserves_dtype=["float64", "float32"])
        # y is a two-valued label, and this is scikit-learn's way to say so; estimator_type stays unset: it predicts no class.
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags
