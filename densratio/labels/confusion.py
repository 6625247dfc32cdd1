"""Wrong labels as a latent class: out-of-fold probabilities of labels, and the confusion between true and given ones."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, logit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

__all__ = ["LabelModel", "careful_posterior", "label_posterior", "less_sure"]

_ROUNDS, _STEPS, _SHARPENINGS = 7, 5, 30
_SMALLEST = 1e-9
_MISTAKEN = 0.02  # share of rows on which a model may be wrong however sure it is: no clean row decides alone
_LIKE = 0.8  # share of the wrong labels that a simpler T has to explain
_DEVIATIONS = 2.0  # standard deviations from which a rate is taken to be one of its own
_CALIBRATIONS = np.geomspace(0.01, 1.0, 30)
_RIDGE = 100.0  # times the squares of its coefficients are held against the mean loss
_FIRST_POWERS = np.geomspace(0.35, 4.0, 13)
_NEXT_POWERS = np.array([0.8, 0.9, 1.0, 1.1, 1.25])
_FACTORS = 1.3, 1.1, 1.04  # of a rate of wrong labels, in search of a likelier one
_LOWERINGS = 20
_LESS_LIKELY = 1.35  # in log-likelihood: the limits of an interval of 90 %
_SPREAD_OF_SLOPES, _FLATTEST = 0.5, -2.0  # of the logarithm of a slope of log odds: its prior deviation, and the least
_CERTAIN, _MANY_CERTAIN = 0.9, 0.5  # probability of a true class, and share of the rows of a class
_FEWER = 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.03, 0.0  # times the wrong labels of the likeliest T
_MORE = 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0


class LabelModel(NamedTuple):
    """posterior (n, K): P(true class | row, given label). transition (K, K): P(given class | true class), rows sum to 1."""

    posterior: np.ndarray
    transition: np.ndarray


class _Rows(NamedTuple):
    """Probabilities (n, K), labels (n,), which are known to be right, how often each counts; and of which labels proba tells."""

    proba: np.ndarray
    given: np.ndarray
    is_clean: np.ndarray
    counts: np.ndarray
    holds_noise: bool

    def take(self, rows: np.ndarray) -> _Rows:
        return _Rows(self.proba[rows], self.given[rows], self.is_clean[rows], self.counts[rows], self.holds_noise)

    def log_classes(self, transition: np.ndarray) -> np.ndarray:
        """log P(true class | row) (n, K)."""
        q = _sharpened(self.proba, transition) if self.holds_noise else self.proba
        return np.log(np.maximum(q, _SMALLEST))


class _Fit(NamedTuple):
    """Log-likelihood of the labels, T, the power, and the true classes q (n, K) under both."""

    value: float
    transition: np.ndarray
    power: float
    q: np.ndarray


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
    fit = _mostly_right(rows, _likelier(rows))
    return LabelModel(_joint(rows, fit), fit.transition)


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
    others = (1.0 - right) / np.maximum(1.0 - posterior[at], _SMALLEST)
    posterior *= others[:, None]
    posterior[at] = right
    least, most = np.mean([fit.limits for fit in each], axis=0)
    return LabelModel(posterior, whole.transition), (float(least), float(most))


def _careful(proba: np.ndarray, given: np.ndarray, is_clean: np.ndarray) -> _Careful:
    rows = _rows(proba, given, is_clean, np.ones(len(given)), holds_noise=True)
    likeliest = _mostly_right(rows, _likelier(rows))
    least, most = (_n_wrong(rows, _limit(rows, likeliest, scales, _LESS_LIKELY)) for scales in (_FEWER, _MORE))
    unsure = np.maximum(0.0, 1.0 - _certain(likeliest.q) / _MANY_CERTAIN)
    parts = np.maximum(unsure[:, None], unsure) / unsure.max() if unsure.any() else 1.0
    fit = _limit(rows, likeliest, _FEWER, _LESS_LIKELY * unsure.max(), parts)
    unknown = _joint(rows._replace(is_clean=np.zeros_like(is_clean)), fit)[np.arange(len(given)), given]
    return _Careful(_joint(rows, fit), unknown, fit.transition, (least, most))


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
    odds = logit(right.clip(_SMALLEST**3, 1.0 - _SMALLEST))
    mean = expit(odds[~is_clean]).mean()

    def flattened(log_slope: float) -> np.ndarray:
        sloped = np.exp(log_slope) * odds
        shift = brentq(lambda shift: expit(sloped[~is_clean] + shift).mean() - mean, -50.0, 50.0)
        return expit(sloped + shift)

    def less_likely(log_slope: float) -> float:
        likelihood = (1.0 - _MISTAKEN) * flattened(log_slope)[is_clean] + _MISTAKEN * mean
        return float(0.5 * (log_slope / _SPREAD_OF_SLOPES) ** 2 - np.log(likelihood).sum())

    return flattened(minimize_scalar(less_likely, bounds=(_FLATTEST, 0.0), method="bounded").x)


def _rows(proba: np.ndarray, given: np.ndarray, is_clean: np.ndarray, counts: np.ndarray, holds_noise: bool) -> _Rows:
    proba = np.maximum(proba, _SMALLEST)
    return _calibrated(_Rows(proba / proba.sum(axis=1, keepdims=True), given, is_clean, counts, holds_noise))


def _calibrated(rows: _Rows) -> _Rows:
    """Probabilities under which the given labels are likelier, so that the habits of a model are not taken for a confusion.

    They are the model's, between it and the shares of the classes, since models are surer than right; or those of a logistic
    regression on their logarithms where it gains more than its coefficients are worth.
    """
    n_classes, at = rows.proba.shape[1], (np.arange(len(rows.given)), rows.given)
    if not rows.holds_noise or len(np.unique(rows.given)) < n_classes:
        return rows

    def gain(proba: np.ndarray) -> float:
        return float(rows.counts @ np.log(np.maximum(proba[at], _SMALLEST)))

    log_proba, log_shares = np.log(rows.proba), np.log(np.bincount(rows.given, rows.counts) / rows.counts.sum())
    proba = max((_power(part * log_proba + (1.0 - part) * log_shares, 1.0) for part in _CALIBRATIONS), key=gain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression = LogisticRegression(C=_RIDGE / rows.counts.sum(), max_iter=100)
        corrected = regression.fit(log_proba, rows.given, sample_weight=rows.counts).predict_proba(log_proba)
    is_worth = gain(corrected) - gain(proba) > n_classes * (n_classes + 1)
    return rows._replace(proba=np.maximum(corrected if is_worth else proba, _SMALLEST))


def _likelier(rows: _Rows) -> _Fit:
    n_classes = rows.proba.shape[1]
    confusion, power = _expected(rows)
    transition, has_own, n_rates = _pooled(confusion)
    fit = _climbed(rows, _fitted(rows, transition, power * _NEXT_POWERS), has_own)
    wrong = 1.0 - np.trace(confusion) / max(confusion.sum(), _SMALLEST)
    even = _fitted(rows, _even(wrong, n_classes), power * _NEXT_POWERS)
    even = _climbed(rows, even, np.zeros(n_classes, dtype=bool))
    worth = 0.5 * np.log(max(rows.counts.sum(), 2.0)) * n_rates
    explains_less = _n_wrong(rows, even) < _LIKE * _n_wrong(rows, fit)
    return fit if fit.value - even.value > (0.0 if explains_less else worth) else even


def _mostly_right(rows: _Rows, fit: _Fit) -> _Fit:
    """The fit after rates were lowered until no label is given to more rows of another class than to those of its own."""
    for _ in range(_LOWERINGS):
        joint = _joint(rows, fit) * rows.counts[:, None]
        confusion = np.array([np.bincount(rows.given, column, joint.shape[1]) for column in joint.T])
        is_large = confusion > np.diag(confusion)
        if not is_large.any():
            break
        lowered = np.where(is_large, 0.8, 1.0) * np.where(np.eye(len(is_large), dtype=bool), 0.0, fit.transition)
        fit = _fitted(rows, _with_diagonal(lowered), fit.power * _NEXT_POWERS)
    return fit


def _joint(rows: _Rows, fit: _Fit) -> np.ndarray:
    """P(true class | row, given label) (n, K)."""
    joint = np.where(rows.is_clean[:, None], np.eye(fit.q.shape[1])[rows.given], fit.q * fit.transition[:, rows.given].T)
    return joint / joint.sum(axis=1, keepdims=True)


def _certain(q: np.ndarray) -> np.ndarray:
    """Share (K,) of nearly certain rows in each class."""
    return (q * (q > _CERTAIN)).sum(axis=0) / np.maximum(q.sum(axis=0), _SMALLEST)


def _limit(rows: _Rows, fit: _Fit, scales: tuple[float, ...], less: float, parts: np.ndarray | float = 1.0) -> _Fit:
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


def _scaled(rows: _Rows, transition: np.ndarray, scale: float, power: float, parts: np.ndarray | float) -> _Fit:
    """The fit of T with scale^parts times the wrong labels, half a row at least; parts in [0, 1], or (K, K) of them."""
    wrong = np.where(np.eye(len(transition), dtype=bool), 0.0, transition)
    least = 0.5 / (max(rows.counts.sum(), 1.0) * max(wrong.sum(axis=1).max(), _SMALLEST))
    return _fitted(rows, _with_diagonal(wrong * max(scale, least) ** parts), power * _NEXT_POWERS)


def _n_wrong(rows: _Rows, fit: _Fit) -> float:
    """How many labels are wrong of those that may be."""
    return float(rows.counts @ (1.0 - _joint(rows, fit)[np.arange(len(rows.given)), rows.given]))


def _even(wrong: float, n_classes: int) -> np.ndarray:
    """T that takes each class for each other one alike."""
    return np.where(np.eye(n_classes, dtype=bool), 1.0 - wrong, wrong / (n_classes - 1))


def _confident(rows: _Rows) -> np.ndarray:
    """Counts (K, K) of rows, each for the class that is the likeliest of those above the mean of their own rows."""
    n_classes, given = rows.proba.shape[1], rows.given
    sizes = np.bincount(given, rows.counts, n_classes)
    own = rows.counts * rows.proba[np.arange(len(given)), given]
    above = np.where(
        (rows.proba >= np.bincount(given, own, n_classes) / np.maximum(sizes, _SMALLEST)) & (sizes > 0), rows.proba, -1.0
    )
    is_counted = above.max(axis=1) > 0
    confusion = np.zeros((n_classes, n_classes))
    np.add.at(confusion, (above.argmax(axis=1)[is_counted], given[is_counted]), rows.counts[is_counted])
    return confusion


def _pooled(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """T from counts (K, K), the classes with a rate of their own (K,), and how many rates there are beside the common one.

    A class has the common rate of wrong labels unless it differs by more than chance, and takes every other class for the true one
    alike, but for those that it takes more often than chance.
    """
    n_classes = len(confusion)
    off = ~np.eye(n_classes, dtype=bool)
    size = confusion.sum(axis=1)
    common = confusion[off].sum() / max(size.sum(), _SMALLEST)
    wrong = np.where(off, confusion + common / (n_classes - 1), 0.0)  # One more row: no rate is 0.
    is_own = _differs(wrong.sum(axis=1), size * common)
    common = wrong[~is_own].sum() / max(size[~is_own].sum(), 1.0) if not is_own.all() else common
    rate = np.where(is_own, wrong.sum(axis=1), common * (size + 1.0))
    is_large = off & _differs(wrong, rate[:, None] / (n_classes - 1)) & (wrong > rate[:, None] / (n_classes - 1)) & (n_classes > 2)
    has_own = is_own | is_large.any(axis=1)
    left = np.where(has_own, np.where(is_large, 0.0, wrong).sum(axis=1), rate) / np.maximum((off & ~is_large).sum(axis=1), 1)
    transition = np.where(is_large, wrong, np.where(off, left[:, None], 0.0)) / (size + 1.0)[:, None]
    return _with_diagonal(transition), has_own, int(is_own.sum() + is_large.sum())


def _differs(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.abs(found - expected) > _DEVIATIONS * np.sqrt(expected + 1.0)


def _with_diagonal(wrong: np.ndarray) -> np.ndarray:
    """T from its entries off the diagonal; of each class, more labels are right than of any one other class."""
    most = wrong.sum(axis=1, keepdims=True) + wrong.max(axis=1, keepdims=True)
    wrong = wrong * np.minimum(1.0, 0.99 / np.maximum(most, _SMALLEST))
    return wrong + np.diag(1.0 - wrong.sum(axis=1))


def _sharpened(proba: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """q (n, K) with q T near proba: expectation-maximization in each row, which keeps q >= 0 with sum 1."""
    q = proba.copy()
    for _ in range(_SHARPENINGS):
        q *= (proba / np.maximum(q @ transition, _SMALLEST)) @ transition.T
    return q


def _power(log_q: np.ndarray, power: float) -> np.ndarray:
    raised = np.exp(power * (log_q - log_q.max(axis=1, keepdims=True)))
    return raised / raised.sum(axis=1, keepdims=True)


def _expected(rows: _Rows) -> tuple[np.ndarray, float]:
    """Expected counts (K, K) of given labels by true class, and the power, of the round after which the labels are likeliest."""
    confusion, power, found = _confident(rows), 1.0, []
    for number in range(_ROUNDS):
        transition = _pooled(confusion)[0]
        log_q = rows.log_classes(transition)
        powers = power * _NEXT_POWERS if number else _FIRST_POWERS
        fits = [(*_counted(rows, _power(log_q, p), transition), p) for p in powers]
        found.append(max(fits, key=lambda fit: fit[0]))
        _, confusion, power = found[-1]
    return max(found, key=lambda fit: fit[0])[1:]


def _counted(rows: _Rows, q: np.ndarray, transition: np.ndarray) -> tuple[float, np.ndarray]:
    """Log-likelihood of the labels and counts (K, K) after a few steps of expectation-maximization."""
    noisy, n_classes = ~rows.is_clean, q.shape[1]
    given, q_noisy, counts = rows.given[noisy], q[noisy], rows.counts[noisy]
    for _ in range(_STEPS):
        joint = q_noisy * transition[:, given].T
        joint *= (counts / joint.sum(axis=1))[:, None]
        confusion = np.array([np.bincount(given, joint[:, k], n_classes) for k in range(n_classes)])
        transition = _pooled(confusion)[0]
    return _log_likelihood(rows, q, transition), confusion


def _log_likelihood(rows: _Rows, q: np.ndarray, transition: np.ndarray) -> float:
    right = (1.0 - _MISTAKEN) * q[np.arange(len(q)), rows.given] + _MISTAKEN / q.shape[1]
    likelihood = np.where(rows.is_clean, right, (q * transition[:, rows.given].T).sum(axis=1))
    return float(rows.counts @ np.log(np.maximum(likelihood, np.finfo(float).tiny)))


def _fitted(rows: _Rows, transition: np.ndarray, powers: np.ndarray) -> _Fit:
    """The fit of T at the power under which the labels are likeliest."""
    log_q = rows.log_classes(transition)
    powers = np.clip(powers, _FIRST_POWERS[0], _FIRST_POWERS[-1])
    fits = [(_log_likelihood(rows, q, transition), p, q) for p, q in ((p, _power(log_q, p)) for p in powers)]
    value, power, q = max(fits, key=lambda fit: fit[0])
    return _Fit(value, transition, power, q)


def _climbed(rows: _Rows, fit: _Fit, has_own: np.ndarray) -> _Fit:
    """The fit after the rates of wrong labels, of each class that has its own and of all others at once, were moved one by one."""
    groups = [np.arange(len(has_own)) == k for k in np.flatnonzero(has_own)]
    groups += [~has_own] if not has_own.all() else []
    for factor in _FACTORS:
        transition = fit.transition
        for group in groups:
            # Rows of other classes don't depend on these rates.
            near = rows.take(np.flatnonzero(fit.q[:, group].max(axis=1) > 0.01))
            trials = [transition, *(_with_rate(transition, group, factor**n) for n in (-2, -1, 1, 2))]
            values = [_log_likelihood(near, _power(near.log_classes(T), fit.power), T) for T in trials]
            values[0] += 1.0  # The labels alone hardly tell the rates: a move is worth a parameter.
            transition = trials[int(np.argmax(values))]
        moved = _fitted(rows, transition, fit.power * _NEXT_POWERS)
        fit = moved if moved.value > fit.value else fit
    return fit


def _with_rate(transition: np.ndarray, group: np.ndarray, factor: float) -> np.ndarray:
    """T with that many times the wrong labels in the classes of a group (K,)."""
    factors = np.where(group, factor, 1.0)[:, None]
    return _with_diagonal(np.where(np.eye(len(group), dtype=bool), 0.0, transition) * factors)
