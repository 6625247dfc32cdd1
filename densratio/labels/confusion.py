"""The confusion between true and given labels, from out-of-fold probabilities of given labels: the true class is latent."""

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
    anchored_fits,
    by_chance,
    fitted_confusion,
    likelier,
    log_likelihood,
    n_wrong,
    true_classes,
    with_diagonal,
)

__all__ = ["LabelModel", "careful_posterior", "label_posterior", "less_sure"]

_CALIBRATIONS = np.geomspace(0.01, 1.0, 30)
_RIDGE = 100.0  # penalty on the squared coefficients, relative to the mean loss
_LOWERINGS = 20
_SOME_ROWS, _SOME_NUMBERS = 10_000, 1_000_000  # least rows, and numbers of their probabilities, on which a calibration is chosen
_LESS_LIKELY = 1.35  # in log-likelihood: the limits of an interval of 90 %
_SPREAD_OF_SLOPES, _FLATTEST = 0.5, -2.0  # prior deviation of the log slope of log odds, and its least value
_CERTAIN, _MANY_CERTAIN = 0.9, 0.5  # probability of a true class, and share of the rows of a class
_FEWER = 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.03, 0.0  # multiples of the wrong labels of the most likely T
_MORE = 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0


class LabelModel(NamedTuple):
    """posterior (n, K): P(true class | row, given label). transition (K, K): P(given class | true class), rows sum to 1."""

    posterior: np.ndarray
    transition: np.ndarray


class _Careful(NamedTuple):
    """P(true class) (n, K); P(label right) (n,) as if no row were known to be right; T; the fewest and the most wrong labels."""

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
    """True classes, from probabilities proba (n, K) of a model that did not learn from these rows.

    With q_k(x) = P(true class k | x) and T_kj = P(given j | true k), a calibrated model of given labels predicts sum_k q_k T_kj.
    For each T, q is recovered from the probabilities by Richardson-Lucy steps, and raised to the power that makes the given labels
    most likely. The products q T alone do not determine T; rows whose true class is nearly certain do. So T starts at confident
    counts (Northcutt et al. 2021) and follows by expectation-maximization, in which rates that differ by no more than chance are
    one rate; then the rates of the classes move to where the labels are more likely. A T that treats all classes alike replaces it,
    unless that T explains the labels worse by more than the rates of T are worth, ln(n) / 2 each, or explains fewer wrong labels
    and is worse at all; and so does the T of the rows that are surest of each class, if it is better by more than a rate for each
    class is worth. Rates are lowered until no label is given to more rows of another class than of its own.
    P(label right) is q_g T_gg / sum_k q_k T_kg, for a given label g. A clean row reveals its true class: its label is likely under
    q alone, and counts for no confusion.
    given (n,): class numbers. is_clean (n,): rows whose given label is known to be right. counts (n,): how often each row counts.
    holds_noise: True if proba was learned from labels as given; False if it was learned from right ones, and is q up to a power.
    """
    rows = _rows(proba, given, is_clean, np.ones(len(given)) if counts is None else counts, holds_noise)
    fit = _mostly_right(rows, likelier(rows, anchored_fits(rows)))
    return LabelModel(rows.all_classes(true_classes(rows, fit)), fit.transition)


def careful_posterior(dealt: np.ndarray, given: np.ndarray, is_clean: np.ndarray) -> tuple[LabelModel, tuple[float, float]]:
    """`label_posterior` with no more wrong labels than the given ones require; and the fewest and the most wrong labels.

    If classes overlap, a T and a smaller T with more overlap predict the same probabilities, and the labels hardly distinguish
    them. So if less than half of the rows of a class are nearly certain, T moves to fewer wrong labels, and if none is, down to the
    lower limit. The rates between two classes follow the less certain one, so that rates between well separated classes stay. The
    limits are those of a 90 % likelihood interval, in which all rates move together, and the upper one is at least the number of
    wrong labels by rates in the relation of the surest rows, as far as these are about as likely. Clean rows show how sure the
    probabilities may be, see `less_sure`.

    dealt (r, n, K): probabilities from r deals of the rows into folds. Their mean ranks the rows. One deal is sure of rows of which
    another is less sure, so P(label right) takes, in this order, the values of its mean over the deals.
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
    anchored = anchored_fits(rows)
    likeliest = _mostly_right(rows, likelier(rows, anchored))
    least, most = (n_wrong(rows, _limit(rows, likeliest, scales, _LESS_LIKELY)) for scales in (_FEWER, _MORE))
    # All rates together go astray if their relations are off: then those of the surest rows reach further.
    plausible = likeliest.value - by_chance(rows.n_classes)
    most = max([most, *(n_wrong(rows, each) for each in anchored if each.value > plausible)])
    unsure = np.maximum(0.0, 1.0 - _certain(rows, likeliest.q) / _MANY_CERTAIN)
    parts = np.maximum(unsure[:, None], unsure) / unsure.max() if unsure.any() else 1.0
    fit = _limit(rows, likeliest, _FEWER, _LESS_LIKELY * unsure.max(), parts)
    unknown = rows.of_given(true_classes(rows.with_none_clean(), fit))
    return _Careful(rows.all_classes(true_classes(rows, fit)), unknown, fit.transition, (least, most))


def _in_order_of(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values (n,) rearranged to the ranks of `order` (n,); ties share their mean."""
    _, place, counts = np.unique(order, return_inverse=True, return_counts=True)
    ranked = np.empty_like(values)
    ranked[np.argsort(order, kind="stable")] = np.sort(values)
    return (np.bincount(place, ranked) / counts)[place]


def less_sure(right: np.ndarray, is_clean: np.ndarray) -> np.ndarray:
    """P(label right) (n,) whose log odds have a slope of at most 1, with the same sum over the rows that are not clean.

    Clean rows are a sample of the rows with a right label, so the density of a row among them is proportional to P(label right).
    The slope is the one that makes them most likely, and is near 1 if they are few. This corrects probabilities that are too sure,
    when wrong labels are on hard rows, and keeps the order of the rows.
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
    """Probabilities (n, K) under which the given labels are more likely, so that a model's bias is not taken for a confusion.

    Candidates lie between the model's probabilities and the class frequencies, since models are overconfident; and the
    probabilities of a logistic regression on the model's log probabilities, if it gains more than its coefficients are worth.
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
    # No probabilities gain more than certainty does.
    if -best > worth and len(np.unique(own)) == n_classes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression = LogisticRegression(C=_RIDGE / own_counts.sum(), max_iter=100).fit(log_proba, own, sample_weight=own_counts)
        if gain(regression.predict_proba(log_proba)) - best > worth:
            return np.maximum(regression.predict_proba(np.log(proba)), SMALLEST)
    return np.maximum(between(part, np.log(proba)), SMALLEST)


def _mostly_right(rows: LabelRows, fit: Fit) -> Fit:
    """The fit after lowering rates until no label is given to more rows of another class than to those of its own.

    The fit stays as it is if this makes clean rows less likely by more than one rate per class is worth: most labels of a rare
    class can be wrong.
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
    """The last fit, on the way to other numbers of wrong labels, that is at most `less` less likely than the best."""
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
    """The fit of T with scale^parts times the wrong labels, at least half a row; parts in [0, 1], or (K, K) of them."""
    wrong = np.where(np.eye(len(transition), dtype=bool), 0.0, transition)
    least = 0.5 / (max(rows.counts.sum(), 1.0) * max(wrong.sum(axis=1).max(), SMALLEST))
    return fitted_confusion(rows, with_diagonal(wrong * max(scale, least) ** parts), power * NEXT_POWERS)
