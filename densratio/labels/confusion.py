"""Wrong labels as a latent class: out-of-fold probabilities of labels, and the confusion between true and given ones."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, logit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from .held_out import log_losses
from .label_rows import SMALLEST, LabelRows, label_rows, raised
from .transition import (
    MISTAKEN,
    NEXT_POWERS,
    Fit,
    fitted_confusion,
    likelier,
    log_likelihood,
    n_wrong,
    true_classes,
    with_diagonal,
)

__all__ = ["LabelModel", "careful_posterior", "label_posterior", "less_sure"]

_CALIBRATIONS = np.geomspace(0.01, 1.0, 30)
_RIDGE = 100.0  # times the squares of its coefficients are held against the mean loss
_LOWERINGS = 20
_SOME_ROWS, _SOME_NUMBERS = 10_000, 1_000_000  # rows at least, and probabilities, by which a calibration is chosen
_LESS_LIKELY = 1.35  # in log-likelihood: the limits of an interval of 90 %
_SPREAD_OF_SLOPES, _FLATTEST = 0.5, -2.0  # of the logarithm of a slope of log odds: its prior deviation, and the least
_CERTAIN, _MANY_CERTAIN = 0.9, 0.5  # probability of a true class, and share of the rows of a class
_FEWER = 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.03, 0.0  # times the wrong labels of the likeliest T
_MORE = 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0


class LabelModel(NamedTuple):
    """posterior (n, K): P(true class | row, given label). transition (K, K): P(given class | true class), rows sum to 1."""

    posterior: np.ndarray
    transition: np.ndarray


class _Careful(NamedTuple):
    """P(true class) (n, K); P(label right) (n,) as if no row were known to be; T; fewest and most wrong labels."""

    posterior: np.ndarray
    right: np.ndarray
    transition: np.ndarray
    limits: tuple[float, float]


def label_posterior(
    proba: np.ndarray,
    given: np.ndarray,
    is_clean: np.ndarray,
    counts: np.ndarray | None = None,
    *,
    holds_noise: bool = True,
) -> LabelModel:
    """True classes from probabilities proba (n, K) of rows that the model did not learn from.

    With q_k(x) = P(true class k | x) and T_kj = P(given j | true k) a model of given labels predicts sum_k q_k T_kj, after it is
    calibrated on them. For a T, q is
    taken back out of the probabilities (Richardson-Lucy steps) and raised to the power under which the given labels are likeliest.
    Products q T alone don't tell T: it is known where the true class of many rows is nearly certain. So T starts at confident
    counts (Northcutt et al. 2021) and follows by expectation-maximization, in which rates that don't differ by more than chance are
    one rate; then the rates of the classes are moved to where the labels are likelier. A T that treats all classes alike is
    taken instead unless it explains the labels worse by more than the rates of T are worth, ln(n) / 2 each, or just worse and fewer
    wrong ones. Rates are lowered until no label is given to more rows of another class than of its own.
    P(label right) is q_g T_gg / sum_k q_k T_kg, for a given label g. A clean row says its true class: its label is likely under q
    alone, and counts for no confusion.
    given (n,): class numbers. is_clean (n,): rows whose given label is known to be right. counts (n,): how often each row counts.
    holds_noise: whether proba is learned from labels as they were given, or from right ones, and is q up to a power.
    """
    rows = _rows(proba, given, is_clean, np.ones(len(given)) if counts is None else counts, holds_noise)
    fit = _mostly_right(rows, likelier(rows))
    return LabelModel(rows.all_classes(true_classes(rows, fit)), fit.transition)


def careful_posterior(dealt: np.ndarray, given: np.ndarray, is_clean: np.ndarray) -> tuple[LabelModel, tuple[float, float]]:
    """`label_posterior` with no more wrong labels than the given ones ask for; and how many are wrong at least and at most.

    Where classes overlap, the probabilities under a T are those under a smaller T too, of classes that overlap more, and the labels
    hardly tell one from the other. So where less than half of the rows of a class are nearly certain, T is moved to fewer wrong
    labels, and where none is, down to the lower limit; the rates between two classes follow the less certain of both, so that those
    between classes that are well apart stay. The limits are those of an interval of 90 % by likelihood, in which all rates move
    together. Clean rows say how sure the probabilities may be, see `less_sure`.

    dealt (r, n, K): probabilities of r deals of the rows into folds. Their mean ranks the rows. What is certain by one deal is less
    so by another, so P(label right) takes the values that its mean over the deals has, in this order.
    """
    at = np.arange(len(given)), given
    each = [_careful(proba, given, is_clean) for proba in dealt]
    whole = each[0] if len(dealt) == 1 else _careful(dealt.mean(axis=0), given, is_clean)
    right, posterior = _in_order_of(whole.right, np.mean([fit.right for fit in each], axis=0)), whole.posterior
    right = np.where(is_clean, 1.0, less_sure(right, is_clean))
    others = (1.0 - right) / np.maximum(1.0 - posterior[at], SMALLEST)
    posterior *= others[:, None]
    posterior[at] = right
    least, most = np.mean([fit.limits for fit in each], axis=0)
    return LabelModel(posterior, whole.transition), (float(least), float(most))


def _careful(proba: np.ndarray, given: np.ndarray, is_clean: np.ndarray) -> _Careful:
    rows = _rows(proba, given, is_clean, np.ones(len(given)), holds_noise=True)
    likeliest = _mostly_right(rows, likelier(rows))
    least, most = (n_wrong(rows, _limit(rows, likeliest, scales, _LESS_LIKELY)) for scales in (_FEWER, _MORE))
    unsure = np.maximum(0.0, 1.0 - _certain(rows, likeliest.q) / _MANY_CERTAIN)
    parts = np.maximum(unsure[:, None], unsure) / unsure.max() if unsure.any() else 1.0
    fit = _limit(rows, likeliest, _FEWER, _LESS_LIKELY * unsure.max(), parts)
    unknown = rows.of_given(true_classes(rows.with_none_clean(), fit))
    return _Careful(rows.all_classes(true_classes(rows, fit)), unknown, fit.transition, (least, most))


def _in_order_of(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values (n,), each where the order (n,) has the value of the same rank; equal ones share the mean of theirs."""
    _, place, counts = np.unique(order, return_inverse=True, return_counts=True)
    ranked = np.empty_like(values)
    ranked[np.argsort(order, kind="stable")] = np.sort(values)
    return (np.bincount(place, ranked) / counts)[place]


def less_sure(right: np.ndarray, is_clean: np.ndarray) -> np.ndarray:
    """P(label right) (n,) with log odds times a slope of at most 1, and as many right among the rows that are not clean.

    Clean rows are a draw of those whose label is right, so the density of a row among them goes with P(label right): the slope is
    that under which they are likeliest, and near 1 where they are few. It mends probabilities that are too sure where wrong labels
    lie on hard rows, and leaves the order of the rows as it is.
    """
    if not is_clean.any() or is_clean.all():
        return right
    odds = logit(right.clip(SMALLEST**3, 1.0 - SMALLEST))
    mean = expit(odds[~is_clean]).mean()

    def flattened(log_slope: float) -> np.ndarray:
        sloped = np.exp(log_slope) * odds
        shift = brentq(lambda shift: expit(sloped[~is_clean] + shift).mean() - mean, -50.0, 50.0)
        return expit(sloped + shift)

    def less_likely(log_slope: float) -> float:
        likelihood = (1.0 - MISTAKEN) * flattened(log_slope)[is_clean] + MISTAKEN * mean
        return float(0.5 * (log_slope / _SPREAD_OF_SLOPES) ** 2 - np.log(likelihood).sum())

    return flattened(minimize_scalar(less_likely, bounds=(_FLATTEST, 0.0), method="bounded").x)


def _rows(proba: np.ndarray, given: np.ndarray, is_clean: np.ndarray, counts: np.ndarray, holds_noise: bool) -> LabelRows:
    proba = np.maximum(proba, SMALLEST)
    proba /= proba.sum(axis=1, keepdims=True)
    if holds_noise and len(np.unique(given)) == proba.shape[1]:
        proba = _calibrated(proba, given, counts)
    return label_rows(proba, given, is_clean, counts, holds_noise)


def _calibrated(proba: np.ndarray, given: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Probabilities (n, K) under which the given labels are likelier, so that a model's habits are not taken for a confusion.

    They are the model's, between it and the shares of the classes, since models are surer than right; or those of a logistic
    regression on their logarithms where it gains more than its coefficients are worth.
    """
    n_classes = proba.shape[1]
    some = np.sort(np.random.default_rng(0).permutation(len(given))[: max(_SOME_ROWS, _SOME_NUMBERS // n_classes)])
    log_proba, log_shares = np.log(proba[some]), np.log(np.bincount(given, counts) / counts.sum())
    own, own_counts = given[some], counts[some]

    def between(part: float, log_proba: np.ndarray) -> np.ndarray:
        return raised(part * log_proba + (1.0 - part) * log_shares, 1.0)

    def gain(proba: np.ndarray) -> float:
        return -float(own_counts @ log_losses(proba, own))

    best, part = max((gain(between(part, log_proba)), part) for part in _CALIBRATIONS)
    worth = n_classes * (n_classes + 1)
    # No probabilities gain more than those of certainty.
    if -best > worth and len(np.unique(own)) == n_classes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression = LogisticRegression(C=_RIDGE / own_counts.sum(), max_iter=100).fit(log_proba, own, sample_weight=own_counts)
        if gain(regression.predict_proba(log_proba)) - best > worth:
            return np.maximum(regression.predict_proba(np.log(proba)), SMALLEST)
    return np.maximum(between(part, np.log(proba)), SMALLEST)


def _mostly_right(rows: LabelRows, fit: Fit) -> Fit:
    """The fit after rates were lowered until no label is given to more rows of another class than to those of its own.

    It stays as it is where clean rows are likelier under it by more than a rate of each class is worth: of a rare class most labels
    can be wrong.
    """
    given = fit
    for _ in range(_LOWERINGS):
        joint = true_classes(rows, fit) * rows.counts[:, None]
        confusion = rows.confusion(joint)
        is_large = confusion > np.diag(confusion)
        if not is_large.any():
            break
        lowered = np.where(is_large, 0.8, 1.0) * np.where(np.eye(len(is_large), dtype=bool), 0.0, fit.transition)
        fit = fitted_confusion(rows, with_diagonal(lowered), fit.power * NEXT_POWERS)
    clean = np.flatnonzero(rows.is_clean)
    before, after = (log_likelihood(rows.take(clean), each.q[clean], each.transition) for each in (given, fit))
    return given if before > after + rows.n_classes else fit


def _certain(rows: LabelRows, q: np.ndarray) -> np.ndarray:
    """Share (K,) of nearly certain rows in each class."""
    return rows.class_sums(q * (q > _CERTAIN)) / np.maximum(rows.class_sums(q), SMALLEST)


def _limit(rows: LabelRows, fit: Fit, scales: tuple[float, ...], less: float, parts: np.ndarray | float = 1.0) -> Fit:
    """The last fit on the way to other numbers of wrong labels that is less likely than the likeliest by no more than `less`."""
    best, last, at = fit.value, fit, 1.0
    for scale in scales:
        found = _scaled(rows, fit.transition, scale, last.power, parts)
        best = max(best, found.value)
        if found.value < best - less:
            part = (last.value - best + less) / (last.value - found.value)
            return _scaled(rows, fit.transition, at + part * (scale - at), last.power, parts)
        last, at = found, scale
    return last


def _scaled(rows: LabelRows, transition: np.ndarray, scale: float, power: float, parts: np.ndarray | float) -> Fit:
    """The fit of T with scale^parts times the wrong labels, half a row at least; parts in [0, 1], or (K, K) of them."""
    wrong = np.where(np.eye(len(transition), dtype=bool), 0.0, transition)
    least = 0.5 / (max(rows.counts.sum(), 1.0) * max(wrong.sum(axis=1).max(), SMALLEST))
    return fitted_confusion(rows, with_diagonal(wrong * max(scale, least) ** parts), power * NEXT_POWERS)
