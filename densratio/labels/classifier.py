"""NoisyLabelClassifier: a network that learns from partly wrong labels."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from .._arrays import is_sparse, to_host
from .._columns import check_container, check_table, is_frame, is_series, library_of, shown
from .._estimator import Estimator, unchanged_on_error
from .._progress import show_progress
from .._scale import as_counts
from .._sentinels import warn_of_sentinels
from .._validation import check_count, check_number, check_sample_weight, seed_of
from ..tables.reading import column_names
from .default_model import makes_networks
from .encoding import FrameEncoder, SparseEncoder, as_images, encoder_of
from .frame import issue_frame, suggested_classes
from .given import check_no_gaps, check_one_each, clean_rows, warn_of_labels, warn_of_spellings
from .rows import Rows, merged

__all__ = ["NoisyLabelClassifier"]


class NoisyLabelClassifier(ClassifierMixin, Estimator):
    """Train a network on rows weighted by the probability that their labels are right.

    method="auto": cross-fitted networks, which did not learn from a row, estimate the probability that its label is right, in two
    rounds; the second leaves out the rows that the first doubts. The confusion of the classes is estimated at the same time, so
    labels that are all right get nearly equal weights. The final network minimizes sum_i w_i loss_i, w_i = P(label i is right), for
    the number of epochs that was best for held-out rows in the second round. A row of which another class has a probability above
    0.95 is learned as this class, with that probability as its weight. This costs about three plain trainings.

    Parameters
    ----------
    method : "auto", or the name of a method in `densratio.training.registry.METHODS`
        A method by name uses the clean rows as its validation set, or `ChosenRows` without them.
    model : callable (n_features, or the shape of a row, n_classes) -> nn.Module, or None
        Its result maps rows (n, ...) of float32 to logits (n, n_classes). None: for tables a perceptron with two hidden layers of
        512, or a linear network with a penalty if a logistic regression predicts held-out labels as well, as for embeddings. For
        images convolutions with batch normalization, which train with five times the learning rate on images moved by a few pixels,
        and mirrored if that helps.
    max_iter : int
        Epochs of the final training; with "auto" at most, and for images without `model` a quarter of them. The learning rate
        falls to 0 along a half cosine. Networks of the first round stop when held-out given labels are predicted best.
    batch_size : int or None
        None: 128, or 64 for fewer than 5,000 rows.
    learning_rate : float, of Adam; for a linear network at least the rate at which the weights can reach 3.
    device : str, such as "cpu" or "cuda".
    random_state : int, RandomState, Generator or None
        Seed of the networks and the folds; None draws others in each fit. torch's global state is left alone.
    verbose : bool, or callable
        Whether to show the progress by stages, as `densratio.show_progress` does. A function is called after each epoch of every
        network.

    Attributes
    ----------
    classes_ : (C,). n_iter_ : int, epochs. history_ : list of float, the training loss after each.
    weights_ : (n,) weights of the rows of X as they are labeled, in their order, of mean 1 over the rows with sample_weight > 0.
    label_issues_ : frame as of `find_label_issues`, the worst row first: row, given_label, suggested_label, score, is_issue. For a
        method by name only rows of weight below 1 to which the network gives another label have a score, its doubt of the given
        label. Needs pandas.
    module_ : the network. encoder_ : what turned sparse rows, or a table with text, categories or gaps, into numbers; or None.

    Columns of tables are standardized. Equal rows with equal labels are merged into counts, so that the order of the rows and the
    form of copies do not matter. A class of fewer than 5 rows can't be doubted: its labels count as right.
    Raises ValueError for one class, infinite numbers, NaN in images, missing or continuous labels; ImportError without torch.
    """

    def __init__(
        self,
        method: str = "auto",
        model: Callable[[Any, int], Any] | None = None,
        *,
        max_iter: int = 60,
        batch_size: int | None = None,
        learning_rate: float = 1e-3,
        device: str = "cpu",
        random_state: Any = 0,
        verbose: bool | Callable[[], None] | None = False,
    ):
        self.method = method
        self.model = model
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, clean: Any = None) -> NoisyLabelClassifier:
        """Learn from rows X (n, d), sparse ones too, a frame, texts (n,), or images as for `find_label_issues`, with labels y (n,).

        With a model of your own rows may have any shape (n, c, ...).
        clean: rows known to be right, as row numbers of X or as a second (X, y); they have full weight.
        sample_weight (n,): how much each row counts. Whole numbers are copies; other weights have no unit.
        Raises ValueError for other weights than whole numbers by a method that mixes rows, such as "divide_mix".
        """
        if find_spec("torch") is None:
            raise ImportError('NoisyLabelClassifier trains networks with torch: pip install "densratio-toolkit[torch]"')
        with unchanged_on_error(self):
            self._check_params()
            rows, n_own, own_clean = self._rows(X, y, sample_weight, clean)
            distinct, place = merged(rows)
            if len(np.unique(distinct.y)) < 2:
                only = self.classes_[distinct.y[0]]
                raise ValueError(f"NoisyLabelClassifier needs rows of at least two classes; the labels hold one class, {only}.")
            posterior, weight = self._trained(distinct)
            return self._store(posterior, weight, rows.y[:n_own], place[:n_own], own_clean)

    @property
    def label_issues_(self) -> Any:
        """All rows of X, the most likely wrong labels first."""
        check_is_fitted(self, "module_")
        given, suggested, score = self._issues
        return issue_frame(self.classes_[given], self.classes_[suggested], score)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, C) of `classes_`."""
        check_is_fitted(self, "module_")
        from .training import predicted

        x = (self._numbers(X, reset=False, has_gaps=True) - self._center) / self._spread
        # What no row of the fit lacked is its mean in a row that lacks it.
        return predicted(self._plan(len(x)), self.module_, np.where(np.isnan(x), 0.0, x).astype(np.float32))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class (n,) of each row."""
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    # ------------------------------------------------------------ rows

    def _check_params(self) -> None:
        check_count("max_iter", self.max_iter)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size, 2, more=" or None")
        check_number("learning_rate", self.learning_rate, "(0, inf)")
        if not (self.model is None or makes_networks(self.model)):
            raise ValueError(
                "model must be a function (n_features or shape, n_classes) -> nn.Module, such as a class, or None; "
                f"got {shown(self.model)}."
            )
        if not (callable(self.verbose) or self.verbose is None or isinstance(self.verbose, int | np.bool_)):
            raise ValueError(f"verbose must be True, False, or a function that is called after each epoch; got {self.verbose!r}.")
        if self.method != "auto":
            from ..training.registry import key_of

            key_of(self.method)

    def _rows(self, X: Any, y: Any, sample_weight: Any, clean: Any) -> tuple[Rows, int, np.ndarray]:
        """All rows, those of a second (X, y) last; the number of rows of X; and which of these are known to be right (n,)."""
        x = self._numbers(X, reset=True)
        labels = _labels(y, len(x), "y")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        warn_of_labels(X, codes, 3)
        warn_of_spellings(self.classes_, 3)
        warn_of_sentinels({"X": X}, 3)
        weight = check_sample_weight(sample_weight, len(x))
        weight = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
        if not weight.any():
            raise ValueError("The sample weights of all rows are zero: no row of any class is left to learn from.")
        weight = as_counts(weight)
        is_clean = np.zeros(len(x), dtype=bool)
        if isinstance(clean, tuple | list) and len(clean) == 2 and np.ndim(clean[1]) > 0:
            x, codes, weight, is_clean = self._with_second(clean, x, codes, weight, is_clean)
        elif clean is not None:
            is_clean = clean_rows(clean, len(x))
        is_used = weight > 0
        self._center, self._spread = _scale(x[is_used], weight[is_used])
        x = ((x - self._center) / self._spread).astype(np.float32)
        return Rows(x, codes.astype(np.int64), weight, is_clean), len(labels), is_clean[: len(labels)]

    def _with_second(self, clean: Any, x: Any, codes: Any, weight: Any, is_clean: Any) -> tuple[Any, Any, Any, Any]:
        x_clean = self._numbers(self._in_order(clean[0]), reset=False)
        labels = _labels(clean[1], len(x_clean), "the labels of clean")
        unknown = sorted({str(label) for label in np.setdiff1d(labels, self.classes_)})
        if unknown:
            raise ValueError(
                f"clean has classes that no label in y has: {', '.join(unknown)}. Leave these rows out, or add them to X and y."
            )
        n = len(labels)
        both = np.concatenate([x, x_clean]), np.concatenate([codes, np.searchsorted(self.classes_, labels)])
        return *both, np.concatenate([weight, np.ones(n)]), np.concatenate([is_clean, np.ones(n, dtype=bool)])

    def _in_order(self, X: Any) -> Any:
        """A frame with the columns in the order of the fit, if it has the same ones; other rows unchanged."""
        names = list(getattr(self, "feature_names_in_", []))
        if not is_frame(X) or sorted(map(str, names)) != sorted(map(str, column_names(X))):
            return X
        return X.select(names) if hasattr(X, "select") else X[names]

    def _numbers(self, X: Any, *, reset: bool, has_gaps: bool = False) -> np.ndarray:
        """X as float64 (n, d) or (n, c, ...), by an encoder if it needs one. has_gaps: NaN in rows (n, d) stays."""
        if reset:
            self.encoder_ = encoder_of(X)
            self.__dict__.pop("feature_names_in_", None)
            if isinstance(self.encoder_, FrameEncoder | SparseEncoder):
                self.n_features_in_ = np.shape(X)[1]
            if isinstance(self.encoder_, FrameEncoder) and is_frame(X):
                self.feature_names_in_ = np.asarray(column_names(X), dtype=object)
        if self.encoder_ is not None:
            has_width = isinstance(self.encoder_, FrameEncoder | SparseEncoder) and not is_frame(X) and np.ndim(X) == 2
            if has_width and (width := np.shape(X)[1]) != self.n_features_in_:
                raise ValueError(
                    f"X has {width} features, but NoisyLabelClassifier is expecting {self.n_features_in_} features as input."
                )
            x = np.asarray(self.encoder_.transform(X), dtype=np.float64)
            self._shape = x.shape[1:]
            return x
        check_table(X)
        X = check_container(X.to_pandas() if is_frame(X) and library_of(X) == "pyarrow" else X)
        _check_sizes(X)
        if self.model is None and not is_frame(X) and not is_sparse(X) and np.ndim(X) in (3, 4):
            X = as_images(np.asarray(to_host(X)))
        finite = "allow-nan" if has_gaps and len(self._shape) == 1 else True
        x = np.asarray(validate_data(self, X, reset=reset, allow_nd=True, dtype=np.float64, ensure_all_finite=finite))
        if x.ndim < 2 or (x.ndim > 4 and self.model is None):
            raise ValueError(f"X must be (n, d) or images (n, c, h, w) or (n, h, w); got shape {x.shape}. Others need model=.")
        if reset:
            self._shape = x.shape[1:]
        if x.shape[1:] != self._shape:
            raise ValueError(f"Rows of X have shape {x.shape[1:]}, and the classifier was fitted on rows of {self._shape}.")
        return x

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.sparse = True
        return tags

    # ------------------------------------------------------------ the fit

    def _plan(self, n_rows: int) -> Any:
        from .training import Plan

        batch_size = self.batch_size or (64 if n_rows < 5000 else 128)
        tick = self.verbose if callable(self.verbose) else lambda: None
        return Plan(self.model, len(self.classes_), self.max_iter, self.learning_rate, batch_size, self.device, tick)

    def _trained(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """P(true class) (m, C) of each row given its label, and the weights (m,); the network is stored."""
        from .chosen_network import with_network
        from .epochs import seeded
        from .training import corrected, label_model, predicted, train, train_reweighted

        plan, seed, at = self._plan(len(rows.y)), seed_of(self.random_state), (np.arange(len(rows.y)), rows.y)
        posterior = np.eye(len(self.classes_))[rows.y]
        is_shown = bool(self.verbose) and not callable(self.verbose)
        with seeded(plan.device, seed), show_progress(is_shown):
            plan = with_network(plan, rows, seed, finds_wrong=self.method == "auto")
            if self.method == "auto":
                found, share = label_model(plan, rows, seed)
                posterior = posterior if found is None else found.posterior
                weight, learned = posterior[at], corrected(rows, posterior)
                self.module_, self.history_ = train(plan.shorter(share).at("Final training"), learned, learned.counts, seed)
            else:
                clean = rows.take(rows.is_clean) if rows.is_clean.any() else None
                self.module_, weight, self.history_ = train_reweighted(plan, rows, clean, self.method, seed)
                proba = predicted(plan, self.module_, rows.x)
                is_doubted = (proba.argmax(axis=1) != rows.y) & (weight <= weight.mean())
                posterior = np.where(is_doubted[:, None], proba, posterior)
        self.n_iter_ = len(self.history_)
        return posterior, weight

    def _store(self, posterior: Any, weight: Any, given: Any, place: Any, is_clean: Any) -> NoisyLabelClassifier:
        """Store the weights and label issues of the rows in their given order."""
        is_used = place >= 0
        weights = np.where(is_used, weight[place], 0.0)
        # A method that trains on validation rows alone gives all others weight 0.
        self.weights_ = weights / (weights[is_used].mean() or 1.0)
        may_be_wrong = is_used & ~is_clean
        score = np.where(may_be_wrong, 1.0 - posterior[place, given], 0.0).clip(0.0, 1.0)
        suggested = np.where(may_be_wrong, suggested_classes(posterior[place], given, score), given)
        self._issues = given, suggested, score
        return self


def _scale(x: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, or channel, of rows (n, c, ...) with these counts; 1 where none varies."""

    def mean(values: np.ndarray) -> np.ndarray:
        by_row = values if values.ndim == 2 else values.reshape(*values.shape[:2], -1).mean(axis=2)
        # Sorted, so that rounding does not depend on the order of the rows.
        total = np.sort(by_row * counts[:, None], axis=0).sum(axis=0) / counts.sum()
        return total.reshape(-1, *[1] * (values.ndim - 2))

    center = mean(x)
    spread = np.sqrt(mean((x - center) ** 2))
    return center, np.where(spread > 1e-12 * np.maximum(np.abs(center), 1.0), spread, 1.0)


def _labels(y: Any, n_rows: int, name: str) -> np.ndarray:
    """Labels (n,). Raises ValueError if some are missing, or if they are not classes."""
    if y is None:
        raise ValueError("NoisyLabelClassifier requires y to be passed, but the target y is None.")
    check_one_each(y, name)
    values = check_container(y, name)
    shape: tuple[int, ...] = np.shape(values) if isinstance(values, list | tuple) else getattr(values, "shape", ())
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"{name} must be (n,), one label for each row; got shape {tuple(shape)}. For one-hot classes pass y.argmax(axis=1) of "
            "an array, y.idxmax(axis=1) of a pandas frame. For several labels a row fit a classifier for each column: "
            "sklearn.multioutput.MultiOutputClassifier(NoisyLabelClassifier())."
        )
    # scikit-learn makes nullable whole numbers and booleans of pandas floats, in which the predictions would come back.
    labels = column_or_1d(np.asarray(values) if is_series(values) else values, warn=True)
    if len(labels) != n_rows:
        raise ValueError(f"{name} must have one label for each row; X has {n_rows} rows and {len(labels)} labels were given.")
    check_no_gaps(y, labels, name)
    check_classification_targets(labels)
    return labels


def _check_sizes(X: Any) -> None:
    if not isinstance(X, list | tuple):
        return
    shapes = sorted({np.shape(row) for row in X if hasattr(row, "shape")})
    if len(shapes) > 1:
        raise ValueError(f"All images must be of one size; got {', '.join(map(str, shapes[:3]))}. Resize them first.")
