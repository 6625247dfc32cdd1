"""Class ratios and row weights under label shift."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from ..._arrays import to_host
from ..._columns import check_container, is_missing
from ..._estimator import Estimator, unchanged_on_error
from ..._scale import Scale
from ..._validation import check_rows, seed_of, split_domains
from .class_ratios import METHODS, Calibration, Predictions, class_shares
from .goodness import label_shift_p_value

__all__ = ["LabelShiftRatio"]


class LabelShiftRatio(Estimator):
    """Label shift: p_target(x | y) = p_source(x | y), so a row's weight is that of its class, q_y = p_target(y) / p_source(y).

    A classifier is cross-fitted on the source rows; its probabilities on source rows that it did not see and on target rows
    determine q. No labels of target rows are needed.

    Parameters
    ----------
    classifier : scikit-learn classifier or None
        With predict_proba; None: logistic regression on standardized columns.
    method : {"mlls", "bbse", "rlls"}
        "mlls": maximum likelihood on calibrated probabilities, the most accurate where they are good. "bbse": from the confusion
        matrix. "rlls": the same, drawn towards no shift where the samples are small.
    cv : int
        Number of folds, with all classes in each.
    confidence : float in (0, 1)
        Of the intervals, by a bootstrap of both samples.
    n_bootstrap : int
        Draws of the bootstrap, and of the test.
    random_state : int, RandomState, Generator or None

    Attributes
    ----------
    classes_ : (K,) classes of the source rows.
    class_ratios_, intervals_ : (K,) q, and (K, 2) its confidence intervals.
    source_shares_, target_shares_ : (K,) class frequencies; those of the target are estimated.
    weights_ : (n_source,) weights of the source rows in their order, mean 1.
    p_value_ : of the hypothesis that p(x | y) did not change. If it is small, the shift is no label shift, or not only that.
    classifiers_, calibration_ : the classifier of each fold, and the calibration of their probabilities ("mlls").
    n_features_in_, feature_names_in_ : columns seen in fit.

    Source: Saerens, Latinne & Decaestecker (2002), Lipton, Wang & Smola (2018), Azizzadenesheli et al. (2019), Alexandari, Kundaje
    & Shrikumar (2020).
    """

    def __init__(
        self,
        classifier: Any = None,
        *,
        method: str = "mlls",
        cv: int = 5,
        confidence: float = 0.95,
        n_bootstrap: int = 200,
        random_state: Any = 0,
    ):
        self.classifier = classifier
        self.method = method
        self.cv = cv
        self.confidence = confidence
        self.n_bootstrap = n_bootstrap
        self.random_state = random_state

    def fit(self, X: Any, y: Any, *, labels: Any, sample_weight: Any = None) -> LabelShiftRatio:
        """Estimate the class ratios. X (n, d) and y (n,) as `stack_domains` makes them.

        labels: the classes of the source rows (n_source,), or of all rows (n,), of which those of target rows are not looked at.
        sample_weight (n,) >= 0. Raises ValueError for a class with fewer source rows than two.
        """
        with unchanged_on_error(self):
            rows, is_source, weight = split_domains(self, X, y, reset=True, sample_weight=sample_weight)
            rows = to_host(rows)
            self._check_parameters()
            classes = self._classes_of(labels, is_source)
            counts = np.ones(len(rows)) if weight is None else weight / weight.max()
            parts = _Parts.of(rows[is_source], rows[~is_source], classes, counts[is_source], counts[~is_source])
            given = self._predictions(parts)
            self._learn(parts, given)
        return self

    def adjust(self, probability: Any) -> np.ndarray:
        """Class probabilities (n, K) of a model of the source, in the order of `classes_`, corrected for the target's classes."""
        check_is_fitted(self, "class_ratios_")
        probability = np.asarray(to_host(probability), dtype=np.float64)
        if probability.ndim != 2 or probability.shape[1] != len(self.classes_):
            raise ValueError(
                f"probability must be (n, {len(self.classes_)}), one column for each of classes_; got shape {probability.shape}."
            )
        moved = probability * self.class_ratios_
        total = moved.sum(axis=1, keepdims=True)
        return np.where(total > 0.0, moved / np.where(total > 0.0, total, 1.0), 1.0 / len(self.classes_))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities (n, K) on the target: the mean of the cross-fitted classifiers, calibrated and adjusted."""
        check_is_fitted(self, "class_ratios_")
        return self.adjust(self._probability(to_host(check_rows(self, X, reset=False))))

    def predict(self, X: Any) -> np.ndarray:
        """The most likely class (n,) on the target."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    # ------------------------------------------------------------ parts

    def _check_parameters(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} is not known; use one of {sorted(METHODS)}.")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must be between 0 and 1, such as 0.95; got {self.confidence!r}.")
        for name, least in (("cv", 2), ("n_bootstrap", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be an int >= {least}; got {value!r}.")

    def _classes_of(self, labels: Any, is_source: np.ndarray) -> np.ndarray:
        labels, n_source = np.asarray(to_host(check_container(labels, "labels"))), int(is_source.sum())
        if labels.shape == is_source.shape and n_source < len(is_source):
            labels = labels[is_source]
        if labels.shape != (n_source,):
            raise ValueError(
                f"labels must be ({n_source},), the classes of the source rows, or ({len(is_source)},); got shape {labels.shape}."
            )
        missing = [row for row, label in enumerate(labels.tolist()) if is_missing(label)]
        if missing:
            raise ValueError(
                f"labels must hold a class for each source row; {len(missing)} have none, the first is source row {missing[0]}. "
                "Leave these rows out."
            )
        self.classes_, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if len(self.classes_) < 2:
            raise ValueError(f"labels have one class only ({self.classes_.tolist()[0]!r}): there is no shift of classes.")
        if sizes.min() < 2:
            rare = self.classes_.tolist()[int(sizes.argmin())]
            raise ValueError(f"Class {rare!r} has {sizes.min()} source row: cross-fitting needs at least two of each class.")
        return numbers

    def _predictions(self, parts: _Parts) -> Predictions:
        folds = min(int(self.cv), int(np.bincount(parts.classes).min()))
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed_of(self.random_state))
        of_source = np.empty((len(parts.source), len(self.classes_)))
        self.classifiers_ = []
        for train, test in splitter.split(parts.source, parts.classes):
            model = self._fitted(parts, train)
            self.classifiers_.append(model)
            of_source[test] = model.predict_proba(parts.source[test])
        self.calibration_ = Calibration.of(of_source, parts.classes, parts.source_count) if self.method == "mlls" else None
        of_source = of_source if self.calibration_ is None else self.calibration_(of_source)
        of_target = self._probability(parts.target)
        return Predictions(of_source, parts.classes, of_target, parts.source_count, parts.target_count)

    def _fitted(self, parts: _Parts, train: np.ndarray) -> Any:
        model = (
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            if self.classifier is None
            else clone(self.classifier)
        )
        if not hasattr(model, "predict_proba"):
            raise ValueError(
                f"{type(model).__name__} has no predict_proba, which label shift needs: give a classifier that has it, or "
                "CalibratedClassifierCV(classifier)."
            )
        count = parts.source_count[train]
        names = {} if np.all(count == count[0]) else {_weight_name(model): count}
        return model.fit(parts.source[train], parts.classes[train], **names)

    def _probability(self, rows: np.ndarray) -> np.ndarray:
        mean = np.mean([model.predict_proba(rows) for model in self.classifiers_], axis=0)
        return mean if self.calibration_ is None else self.calibration_(mean)

    def _learn(self, parts: _Parts, given: Predictions) -> None:
        estimate, rng = METHODS[self.method], np.random.default_rng(seed_of(self.random_state))
        self.class_ratios_ = estimate(given)
        self.source_shares_ = class_shares(given.classes, given.source_count, len(self.classes_))
        self.target_shares_ = self.source_shares_ * self.class_ratios_
        weights = self.class_ratios_[given.classes]
        self.weights_ = (weights / np.average(weights, weights=given.source_count))[parts.place]
        draws = [estimate(given.counted(_redrawn(given.source_count, rng), _redrawn(given.target_count, rng)))
                 for _ in range(self.n_bootstrap)]  # fmt: skip
        tail = 0.5 * (1.0 - self.confidence)
        self.intervals_ = np.quantile(draws, [tail, 1.0 - tail], axis=0).T
        scale = Scale.of((parts.source, None), (parts.target, None))
        self.p_value_ = label_shift_p_value(
            scale(parts.source), scale(parts.target), given, estimate, self.n_bootstrap, seed_of(self.random_state)
        )


class _Parts(NamedTuple):
    """Rows, classes and counts, sorted, so that folds and draws do not depend on the order in which the rows were given.

    place (n_source,): where each given source row stands.
    """

    source: np.ndarray
    target: np.ndarray
    classes: np.ndarray
    source_count: np.ndarray
    target_count: np.ndarray
    place: np.ndarray

    @classmethod
    def of(
        cls, source: np.ndarray, target: np.ndarray, classes: np.ndarray, source_count: np.ndarray, target_count: np.ndarray
    ) -> _Parts:
        first = np.lexsort((source_count, *source.T, classes))
        then = np.lexsort((target_count, *target.T))
        return cls(source[first], target[then], classes[first], source_count[first], target_count[then], np.argsort(first))


def _redrawn(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts of a bootstrap draw of as many rows."""
    return counts * rng.multinomial(len(counts), np.full(len(counts), 1.0 / len(counts)))


def _weight_name(model: Any) -> str:
    return f"{model.steps[-1][0]}__sample_weight" if hasattr(model, "steps") else "sample_weight"
