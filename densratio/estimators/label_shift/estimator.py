"""Class ratios and row weights under label shift."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from ..._arrays import to_host
from ..._columns import check_container, check_no_fractions, check_none_missing, is_frame
from ..._estimator import Estimator, unchanged_on_error
from ..._names import did_you_mean
from ..._scale import Scale
from ..._validation import check_count, check_number, check_rows, seed_of, split_domains
from ..discriminator.estimator import weight_arguments
from ..discriminator.mixed import Schema, kinds_of_mixed, reads_columns, takes_missing
from .class_ratios import METHODS, Calibration, Predictions, class_shares
from .goodness import label_shift_p_value
from .numbers import comparable

__all__ = ["LabelShiftRatio"]


class LabelShiftRatio(Estimator):
    """Label shift: p_target(x | y) = p_source(x | y), so a row's weight is that of its class, q_y = p_target(y) / p_source(y).

    A classifier is cross-fitted on the source rows; q follows from its probabilities on held-out source rows and on target rows.
    Labels of target rows are not needed.

    Parameters
    ----------
    classifier : scikit-learn classifier or None
        With predict_proba; None: logistic regression on standardized columns. One that reads the columns of a frame by name or
        type, such as a Pipeline that begins with a ColumnTransformer, gets the frame as it is; one that takes NaN gets NaN.
    method : {"mlls", "bbse", "rlls"}
        "mlls": maximum likelihood on calibrated probabilities, the most accurate if these are good, with one additional target row
        per class in the source's frequencies. "bbse": from the confusion matrix. "rlls": the same, shrunk toward no shift if the
        samples are small.
    cv : int
        Number of folds, with all classes in each.
    confidence : float in (0, 1)
        Of the intervals, by a Bayesian bootstrap of both samples.
    n_bootstrap : int
        Draws of the bootstrap, and of the test.
    random_state : int, RandomState, Generator or None
        Seed of the folds and the bootstrap; None draws others in each fit.

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

        labels: the classes of the source rows (n_source,), or of all rows (n,); those of target rows are ignored.
        sample_weight (n,) >= 0: whole numbers count copies, others are scaled to the effective number of rows. It is passed to
        every step of the classifier that takes it. Raises ValueError for a class with fewer than two source rows.
        """
        with unchanged_on_error(self):
            rows, is_source, weight = self._split(X, y, sample_weight)
            self._check_parameters()
            counts = np.ones(len(rows)) if weight is None else weight
            classes = self._classes_of(labels, is_source, counts[is_source])
            source = _Rows.of(rows[is_source], counts[is_source], classes)
            target = _Rows.of(rows[~is_source], counts[~is_source], np.zeros(len(rows) - len(classes), dtype=int))
            given = self._predictions(source, target.merged())
            self._learn(source.merged(), target.merged(), given)
            self.weights_ = (self.class_ratios_ / (self.source_shares_ @ self.class_ratios_))[classes]
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
        if self._schema is None or not is_frame(X):
            return self.adjust(self._probability(to_host(check_rows(self, X, reset=False))))
        validate_data(self, X, reset=False, skip_check_array=True)
        return self.adjust(self._probability(self._schema.rows(X)))

    def predict(self, X: Any) -> np.ndarray:
        """The most likely class (n,) on the target."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.classifier is not None and takes_missing(self.classifier)
        return tags

    # ------------------------------------------------------------ parts

    def _split(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows (n, d), of objects where the classifier reads a frame; the mask (n,) of the source; and how often each counts."""
        self._schema = Schema.of(X) if self.classifier is not None and reads_columns(self.classifier, X) else None
        if self._schema is None:
            rows, is_source, weight = split_domains(self, X, y, reset=True, sample_weight=sample_weight)
            return to_host(rows), is_source, weight
        return self._schema.split(self, X, y, sample_weight, reset=True)

    def _read(self, rows: np.ndarray) -> Any:
        """Rows (n, d) as the classifier reads them."""
        return rows if self._schema is None else self._schema.frame(rows)

    def _check_parameters(self) -> None:
        if self.method not in METHODS:
            hint = did_you_mean(self.method, METHODS)
            raise ValueError(f"method={self.method!r} is not known; use one of {sorted(METHODS)}.{hint}")
        check_number("confidence", self.confidence, "(0, 1)", ", such as 0.95")
        check_count("cv", self.cv, 2)
        check_count("n_bootstrap", self.n_bootstrap)

    def _classes_of(self, labels: Any, is_source: np.ndarray, counts: np.ndarray) -> np.ndarray:
        labels, n_source = np.asarray(to_host(check_container(labels, "labels"))), int(is_source.sum())
        if labels.shape == is_source.shape and n_source < len(is_source):
            labels = labels[is_source]
        if labels.shape != (n_source,):
            raise ValueError(
                f"labels must be ({n_source},), the classes of the source rows, or ({len(is_source)},); got shape {labels.shape}."
            )
        check_none_missing(labels, "labels", "class", "source row")
        check_no_fractions(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"labels have one class only ({self.classes_.tolist()[0]!r}): there is no shift of classes.")
        sizes = np.maximum(np.bincount(numbers, counts > 0.0), np.bincount(numbers, counts))
        if sizes.min() < 2.0:
            rare, size = self.classes_.tolist()[int(sizes.argmin())], int(sizes.min())
            raise ValueError(f"Class {rare!r} has {size} source row: cross-fitting needs at least two of each class.")
        return numbers

    def _predictions(self, source: _Rows, target: _Rows) -> Predictions:
        kinds = source.merged()
        fold = self._folds(kinds.classes)
        self.classifiers_ = [self._fitted(source, fold[source.kind] != number) for number in range(max(1, fold.max() + 1))]
        of_source = self._mean_probability(kinds.rows)
        for number, model in enumerate(self.classifiers_):
            held_out = fold == number
            if held_out.any():
                of_source[held_out] = model.predict_proba(self._read(kinds.rows[held_out]))
        self.calibration_ = Calibration.of(of_source, kinds.classes, kinds.counts) if self.method == "mlls" else None
        of_source = of_source if self.calibration_ is None else self.calibration_(of_source)
        return Predictions(of_source, kinds.classes, self._probability(target.rows), kinds.counts, target.counts)

    def _folds(self, classes: np.ndarray) -> np.ndarray:
        """The fold (n,) that holds out each distinct row with its copies; -1, in none, for the only one of its class."""
        sizes = np.bincount(classes)
        fold, several = np.full(len(classes), -1), np.flatnonzero(sizes[classes] > 1)
        if len(several):
            n_folds = min(int(self.cv), int(sizes[sizes > 1].min()))
            splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed_of(self.random_state))
            for number, (_, test) in enumerate(splitter.split(several, classes[several])):
                fold[several[test]] = number
        return fold

    def _fitted(self, source: _Rows, train: np.ndarray) -> Any:
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
        return model.fit(self._read(source.rows[train]), source.classes[train], **weight_arguments(model, source.counts[train]))

    def _mean_probability(self, rows: np.ndarray) -> np.ndarray:
        read = self._read(rows)
        return np.mean([model.predict_proba(read) for model in self.classifiers_], axis=0)

    def _probability(self, rows: np.ndarray) -> np.ndarray:
        mean = self._mean_probability(rows)
        return mean if self.calibration_ is None else self.calibration_(mean)

    def _learn(self, source: _Rows, target: _Rows, given: Predictions) -> None:
        estimate, rng = METHODS[self.method], np.random.default_rng(seed_of(self.random_state))
        self.class_ratios_ = estimate(given)
        self.source_shares_ = class_shares(given.classes, given.source_count, len(self.classes_))
        self.target_shares_ = self.source_shares_ * self.class_ratios_
        draws = [estimate(given.counted(_redrawn(given.source_count, rng), _redrawn(given.target_count, rng)))
                 for _ in range(self.n_bootstrap)]  # fmt: skip
        tail = 0.5 * (1.0 - self.confidence)
        self.intervals_ = np.quantile(draws, [tail, 1.0 - tail], axis=0).T
        numbers = comparable(source.rows, target.rows)
        scale = Scale.of((numbers[0], source.counts), (numbers[1], target.counts))
        self.p_value_ = label_shift_p_value(
            scale(numbers[0]), scale(numbers[1]), given, estimate, self.n_bootstrap, seed_of(self.random_state)
        )


class _Rows(NamedTuple):
    """Rows (n, d) of a domain that count, in an order that does not depend on how they were given.

    classes (n,): numbers, 0 for target rows. counts (n,): how often each counts. kind (n,): a number shared by copies.
    """

    rows: np.ndarray
    classes: np.ndarray
    counts: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, counts: np.ndarray, classes: np.ndarray) -> _Rows:
        keep = counts > 0.0
        rows, counts, classes = rows[keep], counts[keep], classes[keep]
        kind = kinds_of_mixed(np.column_stack([classes, rows]))
        order = np.lexsort((counts, kind))
        return cls(rows[order], classes[order], counts[order], kind[order])

    def merged(self) -> _Rows:
        """One of each kind, with the sum of the counts."""
        kind, first = np.unique(self.kind, return_index=True)
        return _Rows(self.rows[first], self.classes[first], np.bincount(self.kind, self.counts), kind)


def _redrawn(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts of a draw of the Bayesian bootstrap (Rubin, 1981), which loses no class."""
    drawn = rng.gamma(counts)
    return drawn * (counts.sum() / drawn.sum())
