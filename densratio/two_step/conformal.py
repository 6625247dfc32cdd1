"""WeightedConformal: prediction intervals and sets that are valid on the target, by conformal prediction with a density ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit
from sklearn.utils import Tags, check_consistent_length, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from .._arrays import to_host
from .._blocks import row_slices
from .._columns import check_container, numbers_of, shape_of
from .._estimator import unchanged_on_error
from .._validation import check_number, seed_of
from ..diagnostics.columns import rows_at
from .weighted_quantile import needed, row_quantiles, score_quantiles, weight_below
from .weights import as_rows, check_ratio, ratio_at, row_weights
from .with_ratio import WithRatio, first_of

__all__ = ["WeightedConformal"]


def _for(is_of_classes: bool) -> Callable[[Any], bool]:
    def check(self: WeightedConformal) -> bool:
        if is_classifier(first_of(self.estimator)) != is_of_classes:
            needs, has = ("a classifier", "predict_interval") if is_of_classes else ("a regressor", "predict_set")
            raise AttributeError(f"This needs {needs} as estimator; for {self.estimator!r} use {has}.")
        return True

    return check


class WeightedConformal(WithRatio):
    """Intervals or sets that contain the label of a target row with probability `confidence`, for any model.

        q(x) = quantile at `confidence` of (sum_i w_i delta_{s_i} + w(x) delta_inf) / (sum_i w_i + w(x))

    s_i are the scores of source rows that the model was not fitted on, and w is the ratio at these rows and at the new row x. The
    set of x contains the labels with a score of at most q(x). With a known ratio, "split" covers at least `confidence` of the
    target rows on average; with equal weights q is the plain split conformal quantile, the ceil((n + 1) confidence)-th smallest
    score. If w(x) is more than 1 - confidence of the sum, nothing bounds the score at x: the interval is infinite and the set full,
    which is the honest answer for a row with no source rows like it. `n_unbounded_` counts such rows.
    Source: Tibshirani, Barber, Candes & Ramdas (2019), Conformal prediction under covariate shift, NeurIPS.

        X_all, domain = stack_domains(X_train, X_target)
        model = WeightedConformal(Ridge(), KLIEP().fit(X_all, domain)).fit(X_train, y_train)
        model.predict_interval(X_target)

    Parameters
    ----------
    estimator : regressor or classifier with predict_proba, or a pair of quantile regressors (lower, upper)
        It is cloned. Wrap it in ImportanceWeighted to fit it for the target as well; the coverage does not need that.
    ratio : fitted density ratio, a Pipeline that ends in one, or a function from rows (n, d) to ratios (n,)
        Shared by clones, never fitted.
    confidence : share of the target rows to cover, between 0 and 1
    method : "split" or "cross"
        "split" fits on one part of the rows and scores the rest. "cross" fits once for each of `cv` folds, on the rows outside the
        fold, and scores all rows: it uses more rows for both, guarantees only 2 confidence - 1, and covers about `confidence` in
        practice. Source of "cross": Barber, Candes, Ramdas & Tibshirani (2021), Annals of Statistics 49 (CV+).
    conformity_score : "auto" or a name
        Regression: "absolute", |y - prediction|; for a pair "quantile", max(lower - y, y - upper), so that the width follows the
        pair (Romano, Patterson & Candes 2019). Classification: "lac", 1 - probability of the class; or "aps", the sum of the
        probabilities from the largest down to that of the class, less a random share of the latter (Romano, Sesia & Candes 2020):
        larger sets that adapt more to the row. random_state draws the share for each position in X. "auto" is "absolute",
        "quantile" or "lac".
    calibration_size : share of the rows that "split" scores
    cv : number of folds of "cross"
    random_state : int, Generator, RandomState, or None for a new seed in each fit; for the split or the folds, and for "aps"

    Attributes
    ----------
    estimators_ : list of fitted estimators, or of fitted pairs: one for "split", `cv` for "cross".
    scores_ : (n,) scores of the calibration rows. weights_ : (n,) their weights, mean 1.
    fold_ : (n,) index in estimators_ of the one that did not see the row. seed_ : seed of all draws.
    unit_ : mean of the ratio over the calibration rows.
    classes_ : class labels of a classifier, in the order of the columns of predict_set.
    n_unbounded_ : number of rows with an infinite interval or a full set, because of a too large w(x), in the last call of
        predict_interval or predict_set.

    Raises
    ------
    ValueError
        In fit: a parameter with another value, y of several columns, a ratio that is not fitted or 0 at every calibration row, a
        classifier without predict_proba.
    """

    def __init__(
        self,
        estimator: Any,
        ratio: Any,
        *,
        confidence: float = 0.9,
        method: str = "split",
        conformity_score: str = "auto",
        calibration_size: float = 0.3,
        cv: int = 5,
        random_state: Any = 0,
    ):
        self.estimator = estimator
        self.ratio = ratio
        self.confidence = confidence
        self.method = method
        self.conformity_score = conformity_score
        self.calibration_size = calibration_size
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> WeightedConformal:
        """Fit clones of `estimator` on parts of the source rows X (n, d), y (n,), and score the rows that each left out."""
        with unchanged_on_error(self):
            self._check()
            self._calibrate(*self._table(X, y))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (n,): the mean over the fitted estimators, for a pair of its midpoints; the most probable class."""
        check_is_fitted(self, "estimators_")
        if is_classifier(first_of(self.estimator)):
            mean = np.mean([self._probabilities(fitted, X) for fitted in self.estimators_], axis=0)
            return self.classes_[np.argmax(mean, axis=1)]
        return np.mean([np.mean(_bounds(fitted, X), axis=0) for fitted in self.estimators_], axis=0)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy or R^2 of `predict` on X (n, d), y (n,), as in the estimator's own score; this is not the coverage."""
        metric = accuracy_score if is_classifier(first_of(self.estimator)) else r2_score
        return float(metric(y, self.predict(X), sample_weight=sample_weight))

    @available_if(_for(False))
    def predict_interval(self, X: Any) -> np.ndarray:
        """Lower and upper end (n, 2) of the interval of each row of X (n, d); infinite if the weight of the row is too large."""
        need = self._needed(X)
        ends = [_bounds(fitted, X) for fitted in self.estimators_]
        if len(ends) == 1:
            reach = score_quantiles(self.scores_, self.weights_, need)
            lower, upper = ends[0][0] - reach, ends[0][1] + reach
        else:
            lower, upper = -self._reach(-np.stack([e[0] for e in ends]), need), self._reach(np.stack([e[1] for e in ends]), need)
        return np.column_stack([lower, upper])

    @available_if(_for(True))
    def predict_set(self, X: Any) -> np.ndarray:
        """Whether each class is in the set (n, K) of each row of X (n, d), in the order of classes_; a set may be empty."""
        need, below = self._needed(X), np.zeros(1)
        draws = np.random.default_rng([self.seed_, 1]).random(len(need))
        for k, fitted in enumerate(self.estimators_):
            own = self.fold_ == k
            below = below + weight_below(self.scores_[own], self.weights_[own], self._class_scores(fitted, X, draws))
        return np.asarray(below < need[:, None])

    def _fitted_inside(self) -> Any:
        check_is_fitted(self, "estimators_")
        return self.estimators_[0]

    def _check(self) -> None:
        check_ratio(self.ratio)
        check_number("confidence", self.confidence, "(0, 1)", ", such as 0.95")
        if self.method not in ("split", "cross"):
            raise ValueError(f'method must be "split" or "cross"; got {self.method!r}.')
        is_pair = isinstance(self.estimator, list | tuple)
        if is_pair and len(self.estimator) != 2:
            raise ValueError(f"estimator must be one estimator or a pair (lower, upper); got {len(self.estimator)} of them.")
        allowed = ["quantile"] if is_pair else ["lac", "aps"] if is_classifier(self.estimator) else ["absolute"]
        if self.conformity_score not in ("auto", *allowed):
            raise ValueError(
                f"For this estimator conformity_score must be 'auto' or one of {allowed}; got {self.conformity_score!r}."
            )
        if "lac" in allowed and not hasattr(self.estimator, "predict_proba"):
            raise ValueError(
                f"{type(self.estimator).__name__} has no predict_proba, so its classes have no scores: pass "
                f"CalibratedClassifierCV({type(self.estimator).__name__}())."
            )

    def _calibrate(self, X: Any, y: np.ndarray) -> None:
        estimators, held_out, scores = [], [], []
        self.seed_ = seed_of(self.random_state)
        draws = np.random.default_rng([self.seed_, 0]).random(len(y))
        if is_classifier(first_of(self.estimator)):
            check_classification_targets(y)
            self.classes_ = np.unique(y)
        for kept, rows in self._splits(y):
            fitted = self._fitted(rows_at(X, kept), y[kept])
            estimators.append(fitted)
            held_out.append(rows)
            scores.append(self._scores(fitted, rows_at(X, rows), y[rows], draws[rows]))
        calibration = rows_at(X, np.concatenate(held_out))
        self.weights_ = row_weights(self.ratio, calibration)
        # Weights of new rows are in the same unit.
        self.unit_ = float(np.mean(ratio_at(self.ratio, calibration)))
        self.estimators_, self.scores_ = estimators, np.concatenate(scores)
        self.fold_ = np.repeat(np.arange(len(held_out)), [len(rows) for rows in held_out])

    def _table(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        y = to_host(check_container(y, "y"))
        if len(shape := shape_of(y)) == 2 and shape[1] > 1:
            raise ValueError(
                f"y has {shape[1]} columns, and an interval or a set is that of one label. Fit one model for each column:\n"
                "    from sklearn.base import clone\n"
                "    models = [clone(model).fit(X, column) for column in np.asarray(y).T]\n"
                f"With confidence={1.0 - (1.0 - self.confidence) / shape[1]:.6g}, all of them hold together for a share of "
                f"{self.confidence:g} of the rows."
            )
        X, y = as_rows(X), column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        if not is_classifier(first_of(self.estimator)):
            y = numbers_of(y, "y", "(n,) numbers for a regressor")
        return X, y

    def _splits(self, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        # Every part needs every class, which is impossible for a class with one row.
        is_dealt = is_classifier(first_of(self.estimator)) and np.min(np.unique(y, return_counts=True)[1]) > 1
        if self.method == "cross":
            folds = (StratifiedKFold if is_dealt else KFold)(self.cv, shuffle=True, random_state=self.seed_)
        else:
            draw = StratifiedShuffleSplit if is_dealt else ShuffleSplit
            folds = draw(1, test_size=self.calibration_size, random_state=self.seed_)
        return list(folds.split(np.zeros((len(y), 1)), y))

    def _fitted(self, X: Any, y: Any) -> Any:
        if isinstance(self.estimator, list | tuple):
            return [clone(part).fit(X, y) for part in self.estimator]
        return clone(self.estimator).fit(X, y)

    def _scores(self, fitted: Any, X: Any, y: np.ndarray, draws: np.ndarray) -> np.ndarray:
        if not is_classifier(first_of(self.estimator)):
            lower, upper = _bounds(fitted, X)
            return np.maximum(lower - y, y - upper)
        return self._class_scores(fitted, X, draws)[np.arange(len(y)), np.searchsorted(self.classes_, y)]

    def _class_scores(self, fitted: Any, X: Any, draws: np.ndarray) -> np.ndarray:
        p = self._probabilities(fitted, X)
        if self.conformity_score != "aps":
            return 1.0 - p
        order = np.argsort(-p, axis=1, kind="stable")
        sums = np.empty_like(p)
        np.put_along_axis(sums, order, np.cumsum(np.take_along_axis(p, order, axis=1), axis=1), axis=1)
        # Without the random share, every row whose class is the last would have the same score, 1.
        return sums - draws[:, None] * p

    def _probabilities(self, fitted: Any, X: Any) -> np.ndarray:
        """Probabilities (n, K) of all classes; 0 for classes without a row in the estimator's part."""
        given = np.asarray(to_host(fitted.predict_proba(X)), dtype=np.float64)
        p = np.zeros((len(given), len(self.classes_)))
        p[:, np.searchsorted(self.classes_, fitted.classes_)] = given
        return p

    def _needed(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "estimators_")
        new = ratio_at(self.ratio, X) / self.unit_
        need = needed(self.weights_, new, self.confidence)
        self.n_unbounded_ = int(np.sum(need > np.sum(self.weights_)))
        return need

    def _reach(self, ends: np.ndarray, need: np.ndarray) -> np.ndarray:
        """Upper ends (n,) from those of all folds (cv, n): quantiles of each calibration row's score plus its fold's end."""
        blocks = row_slices(ends.shape[1], len(self.scores_))
        parts = [row_quantiles(ends[self.fold_, rows].T + self.scores_, self.weights_, need[rows]) for rows in blocks]
        return np.concatenate(parts)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        return tags


def _bounds(fitted: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper prediction (n,) of a pair; for one regressor its prediction twice."""
    pair = fitted if isinstance(fitted, list) else [fitted, fitted]
    lower, upper = (np.asarray(to_host(part.predict(X)), dtype=np.float64).reshape(-1) for part in pair)
    return lower, upper
