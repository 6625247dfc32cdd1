"""Probabilistic classification: the ratio as the odds of a classifier that separates the domains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from inspect import Parameter, signature
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import numpy as np
import sklearn
from joblib import delayed
from scipy.special import expit
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import validate_data

from ..._arrays import Array, is_sparse, take_rows
from ..._columns import is_frame, with_a_value
from ..._progress import run_all
from ..._validation import check_count
from ..base import RatioEstimator
from ..samples import Samples
from ..search import ParameterSearch, folds_by
from .calibration import CALIBRATIONS, Calibration
from .classifiers import default_classifiers
from .cross_fitting import Table, dealt, named_folds, table_of
from .mixed import Schema, reads_columns, reads_types, takes_missing

__all__ = ["Discriminator", "weight_arguments"]

# With one standard error a linear model that hardly fits is kept, and far rows, of which likelihood says little, get huge ratios.
_DOUBT = 0.5


def _classifiers(ratio: Discriminator, samples: Samples) -> list[Pipeline]:
    return default_classifiers(samples.source.shape[1], is_sparse=is_sparse(samples.source))


def _scores(ratio: Discriminator, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
    """Held-out log-likelihoods (n_candidates, 1), minus half a standard error of the gain over the best earlier candidate."""
    table = table_of(samples)
    held_out = ratio._held_out(table, samples)
    if held_out.shape[1] == 1:
        return np.zeros((len(candidates), 1))
    fits = [ratio._cross_fit(candidate["classifier"], table, held_out) for candidate in candidates]
    ratio._searched = _Searched(samples, held_out, list(zip((one["classifier"] for one in candidates), fits, strict=True)))
    likelihoods = np.stack([ratio._likelihood(models, scores, table, held_out.shape[1]) for models, scores in fits])
    share, size = table.counts / table.counts.sum(), table.counts.sum()
    best, scores = 0, [float(likelihoods[0] @ share)]
    for number, likelihood in enumerate(likelihoods[1:], start=1):
        gain = likelihood - likelihoods[best]
        mean = float(gain @ share)
        error = (max(float(gain**2 @ share) - mean**2, 0.0) / size) ** 0.5
        scores.append(scores[best] + mean - _DOUBT * error)
        if scores[number] > scores[best]:
            best = number
    return np.array(scores)[:, None]


class _Searched(NamedTuple):
    """The folds (n, k) that a search held out of samples, and for each classifier what `_cross_fit` gives."""

    samples: Samples
    held_out: np.ndarray
    fits: list[tuple[Any, tuple[list[Any], np.ndarray]]]

    def is_of(self, samples: Samples, held_out: np.ndarray) -> bool:
        """Whether these are the first folds (n, m) of the samples."""
        return self.samples is samples and np.array_equal(self.held_out, held_out[:, : self.held_out.shape[1]])


class Discriminator(RatioEstimator):
    """Probabilistic classification: cross-fitted, calibrated odds of a classifier of the domains, times n_source / n_target.

        r(x) = (n_source / n_target) p(target | x) / p(source | x)

    Bayes' rule turns the probability of the target into a ratio. The classifier of each fold is fitted to the other folds, and
    the weights of source rows come from classifiers that did not see them: a forest separates its training rows without error.
    Copies of a row are held out together. A calibration of the held-out log odds then corrects a classifier that is
    overconfident, underconfident, or fitted with class weights. At an unseen row, the log odds of the classifiers of all folds
    are averaged and calibrated in the same way.
    With n rows in total, probabilities are clipped to [1 / (n + 2), 1 - 1 / (n + 2)] before and after calibration (Laplace's
    rule of succession), so weights are finite even for a tree that returns 0 or 1.

    Parameters
    ----------
    classifier : scikit-learn classifier, "cv", or a sequence of classifiers
        A classifier with predict_proba or decision_function, or a Pipeline; it is cloned before fitting. It gets missing values,
        and frames with their text and categories, if its tags (or those of its first step) take them. A sequence: the one with
        the highest held-out log-likelihood, where each must beat the best before it by half a standard error: put the simplest
        first. "cv": linear, quadratic and kernel logistic regression of standardized columns, those with heavy tails by their
        normal scores; only linear for CSR rows.
    cv : int, splitter or iterable of (train, test)
        Folds. An int: number of random folds, at most the number of distinct rows of the smaller domain; a row with at least
        `cv` copies is spread over all folds. Otherwise as in scikit-learn: the rows of `test` are held out, and every row must be
        held out at least once. 1, or a domain with a single distinct row: nothing is held out, one classifier (the first of a
        sequence) is fitted to all rows, its odds are not calibrated, and n_folds_ is 1. This suits classifiers that hardly
        overfit, such as a few boosted stumps.
    n_repeats : int
        How often the rows are dealt into the folds of an int `cv`, each time anew; the log odds are averaged. Folds differ by
        chance, and so do the weights of rows in different folds.
    calibration : "sigmoid", "isotonic" or None
        Calibration of the pooled held-out log odds. "sigmoid": a linear map, with two parameters. "isotonic": any nondecreasing
        map; it needs thousands of rows, and weights take few values. None: uncalibrated odds, which need predict_proba.
    n_jobs : number of joblib processes for the folds.
    random_state : int, RandomState, Generator or None
        Seed of the folds; None draws others in each fit. A classifier has its own random_state.

    sample_weight is passed to every step of the classifier that accepts it (metadata routing is ignored). Whole numbers count as
    copies; others are scaled in each domain to the effective sample size.

    Attributes
    ----------
    classifiers_ : the fitted classifiers, one per fold of each repeat; label 1 is the target.
    calibration_ : the fitted calibration of log odds (see `densratio.estimators.discriminator.calibration`), or None.
    probabilities_ : (n,) held-out, calibrated p(target | x) of the rows of X in their order; NaN for rows of weight 0.
    n_folds_ : number of folds used, in all repeats together.
    weights_, normalization_, best_params_, cv_results_, n_features_in_, feature_names_in_ : as in `DensityRatio`.
    A normalization_ near 1 means that the odds are consistent with the sizes of the samples.

    Raises ValueError for an unknown calibration, for folds that leave a domain empty or never hold out some row, and for weights
    if the classifier does not accept sample_weight.
    Source: Bickel, Brueckner & Scheffer (2009), Discriminative learning under covariate shift; Chernozhukov et al. (2018) for
    cross-fitting.
    """

    _merges_copies: ClassVar[bool] = False
    _search: ClassVar[ParameterSearch] = ParameterSearch({"classifier": _classifiers}, _scores, of_distinct=False)
    _returns: ClassVar[tuple[str, ...]] = ("probabilities_",)

    _schema: Schema | None
    _searched: _Searched

    def __init__(
        self,
        classifier: Any = "cv",
        *,
        cv: Any = 5,
        n_repeats: int = 2,
        calibration: str | None = "sigmoid",
        n_jobs: int | None = None,
        random_state: Any = 0,
    ):
        self.classifier = classifier
        self.cv = cv
        self.n_repeats = n_repeats
        self.calibration = calibration
        self.n_jobs = n_jobs
        self.random_state = random_state

    def transform(self, X: Any) -> Any:
        """p_target(x) / p_source(x) (n,), >= 0, at the rows of X (n, d), scaled to mean 1 over the source rows of `fit`."""
        schema = getattr(self, "_schema", None)
        if schema is None or not is_frame(X):
            return super().transform(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        return self._ratio(schema.rows(X)) / self.normalization_

    def _samples(self, X: Any, y: Any, sample_weight: Any, *, reset: bool, is_stream: bool = False) -> tuple[Samples, Array]:
        given = self._given()
        if reset:
            self._schema = Schema.of(X) if given and all(reads_columns(one, X) for one in given) else None
        if self._schema is None or not is_frame(X):
            return super()._samples(X, y, sample_weight, reset=reset, is_stream=is_stream)
        rows, is_source, weight = self._schema.split(self, X, y, sample_weight, reset=reset)
        places = np.flatnonzero(is_source), np.flatnonzero(~is_source)
        weights = [None if weight is None else weight[at] for at in places]
        return Samples(rows[places[0]], rows[places[1]], weights[0], weights[1], is_source, *places), np.empty(0)

    def _fit(self, samples: Samples) -> Array:
        table = table_of(samples)
        held_out = self._held_out(table, samples, self.n_repeats)
        models, scores = self._cross_fit_chosen(samples, table, held_out)
        self.classifiers_, self.n_folds_ = models, held_out.shape[1]
        self.calibration_, log_odds = self._calibrated(models[0], table, scores, held_out.shape[1])
        n_source, n_target = (float(table.counts[table.y == domain].sum()) for domain in (0, 1))
        self._bound, self._size_ratio = _bound(table), n_source / n_target
        self.probabilities_ = np.full(len(samples.is_source), np.nan)
        self.probabilities_[np.concatenate([samples.source_index, samples.target_index])] = expit(log_odds)
        return self._size_ratio * np.exp(log_odds[table.y == 0])

    def _ratio(self, rows: Array) -> Array:
        rows = _input(rows, self._schema)
        log_odds = np.mean([_log_odds(model, rows, self._bound) for model in self.classifiers_], axis=0)
        if self.calibration_ is not None:
            log_odds = np.clip(self.calibration_(log_odds), -self._bound, self._bound)
        return self._size_ratio * np.exp(log_odds)

    def _held_out(self, table: Table, samples: Samples, n_repeats: int = 1) -> np.ndarray:
        if self.calibration is not None and self.calibration not in CALIBRATIONS:
            raise ValueError(f"calibration={self.calibration!r} is not known; use one of {sorted(CALIBRATIONS)} or None.")
        if not isinstance(self.cv, Integral):
            searched = self.__dict__.get("_searched")
            if searched is not None and searched.samples is samples:
                return searched.held_out  # A generator gives its folds once, and a splitter may draw others.
            return named_folds(folds_by(self.cv, samples), *samples.sizes)
        n_folds = check_count("cv", self.cv, more=", a splitter or an iterable of (train, test)")
        check_count("n_repeats", n_repeats)
        seed = self._drawn_seed()
        first = dealt(table, n_folds, seed)
        if first.shape[1] == 1:
            return first
        return np.hstack([first, *(dealt(table, n_folds, [seed, repeat]) for repeat in range(1, n_repeats))])

    def _cross_fit(self, classifier: Any, table: Table, held_out: np.ndarray) -> tuple[list[Any], np.ndarray]:
        """The classifier of each fold, and the mean log odds (n,) of each row by classifiers that did not see it."""
        # With one fold nothing is held out: the classifier scores its training rows.
        kept = np.ones_like(held_out) if held_out.shape[1] == 1 else 1.0 - held_out
        bound = _bound(table)
        n_folds = held_out.shape[1]
        tasks = (delayed(_fit_fold)(classifier, table, self._schema, kept[:, k], held_out[:, k], bound) for k in range(n_folds))
        folds = run_all(tasks, n_folds, "Folds of Discriminator", self.n_jobs)
        scores = np.sum([values for _, values in folds], axis=0) / held_out.sum(axis=1)
        return [model for model, _ in folds], table.mean_of_copies(scores)

    def _cross_fit_chosen(self, samples: Samples, table: Table, held_out: np.ndarray) -> tuple[list[Any], np.ndarray]:
        """`_cross_fit` of the chosen classifier, whose first folds the search has fitted already if it had all rows."""
        classifier, searched = self._chosen("classifier"), self.__dict__.pop("_searched", None)
        if searched is None or not searched.is_of(samples, held_out):
            return self._cross_fit(classifier, table, held_out)
        models, scores = next(fit for own, fit in searched.fits if own is classifier)
        if len(models) == held_out.shape[1]:
            return models, scores
        more, others = self._cross_fit(classifier, table, held_out[:, len(models) :])
        share = held_out[:, : len(models)].sum(axis=1) / held_out.sum(axis=1)
        return models + more, share * scores + (1.0 - share) * others

    def _calibrated(self, model: Any, table: Table, scores: np.ndarray, n_folds: int) -> tuple[Calibration | None, np.ndarray]:
        """The calibration, and the calibrated log odds (n,) of rows with held-out log odds `scores` (n,)."""
        gives_probabilities = hasattr(model, "predict_proba")
        if self.calibration is None and not gives_probabilities:
            raise ValueError(
                f"{type(model).__name__} has no predict_proba, so its scores must be calibrated to be log odds: give "
                'calibration="sigmoid" or "isotonic".'
            )
        # On its training rows a classifier is overconfident, and calibration on them would make it more so.
        if self.calibration is None or (n_folds == 1 and gives_probabilities):
            return None, scores
        calibration = CALIBRATIONS[self.calibration]().fit(scores, table.y, table.counts)
        return calibration, np.clip(calibration(scores), -_bound(table), _bound(table))

    def _likelihood(self, models: list[Any], scores: np.ndarray, table: Table, n_folds: int) -> np.ndarray:
        """Held-out log-likelihood (n,) of the label of each row."""
        log_odds = self._calibrated(models[0], table, scores, n_folds)[1]
        return -np.logaddexp(0.0, np.where(table.y == 1, -log_odds, log_odds))

    @property
    def _takes_sparse(self) -> bool:  # type: ignore[override]
        return all(hasattr(one, "__sklearn_tags__") and get_tags(one).input_tags.sparse for one in self._given())

    @property
    def _has_units(self) -> bool:  # type: ignore[override]
        return bool(self._given())

    def _given(self) -> Sequence[Any]:
        """The classifiers that are given, none for "cv"."""
        if isinstance(self.classifier, str):
            return []
        return self.classifier if isinstance(self.classifier, list | tuple) else [self.classifier]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        given = self._given()
        tags.input_tags.allow_nan = bool(given) and all(map(takes_missing, given))
        return tags


def _bound(table: Table) -> float:
    """Log odds of the probability 1 - 1 / (n + 2), n the number of rows."""
    return float(np.log(table.counts.sum() + 1.0))


def _input(rows: Any, schema: Schema | None) -> Any:
    """Rows (n, d) as the classifier reads them."""
    return rows.astype(np.float64) if schema is None else schema.frame(rows)


def _fit_fold(
    classifier: Any, table: Table, schema: Schema | None, kept: np.ndarray, held_out: np.ndarray, bound: float
) -> tuple[Any, np.ndarray]:
    """A clone fitted to the share `kept` (n,) of each row, and the share `held_out` (n,) of each row times its log odds."""
    weight = table.counts * kept
    rows = np.flatnonzero(weight > 0.0)
    learned = with_a_value(_input(take_rows(table.X, rows), schema), of_objects=schema is not None and reads_types(classifier))
    model = _fitted(classifier, learned, table.y[rows], weight[rows])
    scores, scored = np.zeros(len(kept)), np.flatnonzero(held_out > 0.0)
    scores[scored] = held_out[scored] * _log_odds(model, _input(take_rows(table.X, scored), schema), bound)
    return model, scores


def _fitted(classifier: Any, X: Any, y: np.ndarray, weight: np.ndarray) -> Any:
    """A fitted clone of the classifier; weights (n,) are passed to every step that accepts them, unless all are 1."""
    if isinstance(classifier, str) or not hasattr(classifier, "fit"):
        raise ValueError(f'classifier must be a scikit-learn classifier, "cv" or a sequence of classifiers; got {classifier!r}.')
    model = clone(classifier)
    # With metadata routing a Pipeline does not accept parameters named by step.
    with sklearn.config_context(enable_metadata_routing=False), warnings.catch_warnings():
        # scikit-learn then switches to another solver, which warns by itself if it does not converge.
        warnings.filterwarnings("ignore", message="Line search of Newton solver")
        return model.fit(X, y, **weight_arguments(model, weight))


def weight_arguments(model: Any, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Arguments of model.fit that pass the weights (n,) to it, or to all steps of a Pipeline that take them; none if all are 1."""
    return {} if np.all(weight == 1.0) else dict.fromkeys(_weight_names(model, is_last=True), weight)


def _weight_names(model: Any, *, is_last: bool) -> list[str]:
    """Names of the sample_weight parameters of model.fit, for all steps of a Pipeline. ValueError if the last step has none."""
    if isinstance(model, Pipeline):
        steps = [(name, step) for name, step in model.steps if step is not None and step != "passthrough"]
        return [
            f"{name}__{inner}"
            for name, step in steps
            for inner in _weight_names(step, is_last=is_last and name == model.steps[-1][0])
        ]
    parameters = signature(model.fit).parameters.values()
    if any(parameter.name == "sample_weight" for parameter in parameters):
        return ["sample_weight"]
    hands_on = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)
    if is_last and hands_on and hasattr(model, "estimator"):
        return _weight_names(model.estimator, is_last=True)
    if is_last:
        raise ValueError(
            f"{type(model).__name__} takes no sample_weight in fit, and some rows do not count once. Give a classifier that "
            "takes it, or leave sample_weight out and repeat or resample the rows instead."
        )
    return []


def _log_odds(model: Any, X: Any, bound: float) -> np.ndarray:
    """Log odds (n,) of label 1, clipped to +-bound, or the decision function if there is no predict_proba."""
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.decision_function(X), dtype=np.float64)
    probability = np.asarray(model.predict_proba(X), dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(probability[:, 1]) - np.log(probability[:, 0]), -bound, bound)
