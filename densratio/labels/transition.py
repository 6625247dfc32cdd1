"""The confusion T_kj = P(given label j | true class k) that makes given labels most likely, by expectation-maximization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from .label_rows import SMALLEST, LabelRows

__all__ = [
    "MISTAKEN",
    "NEXT_POWERS",
    "Fit",
    "anchored_fits",
    "by_chance",
    "fitted_confusion",
    "likelier",
    "log_likelihood",
    "n_wrong",
    "true_classes",
    "with_diagonal",
]

_ROUNDS, _MANY_ROUNDS, _STEPS = 7, 40, 5
_LEAST_GAIN = 1.0  # least gain in log-likelihood over that many rounds
_SOME_ROWS, _SOME_ROWS_A_CLASS = 5000, 200
_TOGETHER = 1_000_000  # numbers of all powers of q, or of all their T, that are held at once: small tables take long by calls
_SUREST, _FEWEST_SURE = 0.2, 5  # share, and fewest, of the rows of a class
MISTAKEN = 0.02  # error rate even of certain predictions, so that no clean row decides alone
_LIKE = 0.8  # share of the wrong labels that a simpler T must explain
_DEVIATIONS = 2.0  # standard deviations from which a class has its own rate
_FIRST_POWERS = np.geomspace(0.35, 4.0, 13)
NEXT_POWERS = np.array([0.8, 0.9, 1.0, 1.1, 1.25])
_FACTORS = 1.3, 1.1, 1.04  # factors tried on a rate of wrong labels
_LARGEST = 8  # rates of a class that differ from its others
_ANCHORED = 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5  # multiples of the wrong labels of the surest rows


class Fit(NamedTuple):
    """Log-likelihood of the labels, T, the power, and the true classes q under both, in the columns of the rows."""

    value: float
    transition: np.ndarray
    power: float
    q: np.ndarray


class _Round(NamedTuple):
    """Log-likelihood of the labels, expected counts (K, K) of given labels by true class, and the power."""

    value: float
    counts: np.ndarray
    power: float


def likelier(rows: LabelRows, anchored: list[Fit]) -> Fit:
    """The most likely T found: with own rates for classes that differ by more than chance, or one that treats all alike.

    anchored: `anchored_fits`, of which the most likely one replaces these if it is better by what a rate for each class is worth.
    """
    n_classes = rows.n_classes
    confusion, power = _expected(rows)
    transition, has_own, n_rates = _pooled(confusion)
    fit = _climbed(rows, fitted_confusion(rows, transition, power * NEXT_POWERS), has_own)
    wrong = 1.0 - np.trace(confusion) / max(confusion.sum(), SMALLEST)
    even = fitted_confusion(rows, _even(wrong, n_classes), power * NEXT_POWERS)
    even = _climbed(rows, even, np.zeros(n_classes, dtype=bool))
    worth = 0.5 * np.log(max(rows.counts.sum(), 2.0)) * n_rates
    explains_less = n_wrong(rows, even) < _LIKE * n_wrong(rows, fit)
    fit = fit if fit.value - even.value > (0.0 if explains_less else worth) else even
    surest = max(anchored, key=lambda each: each.value)
    # The rows of a class tell its rate.
    worth = 0.5 * n_classes * np.log(max(rows.counts.sum() / n_classes, 2.0))
    return surest if surest.value > fit.value + worth else fit


def anchored_fits(rows: LabelRows) -> list[Fit]:
    """Fits of the mean probabilities of the rows that are surest of each class, with fewer and more wrong labels.

    Where classes overlap little, the probabilities of such rows are a row of T.
    """
    sure, off = _surest(rows), ~np.eye(rows.n_classes, dtype=bool)
    wrong = np.where(off, sure / np.maximum(sure.sum(axis=1, keepdims=True), SMALLEST), 0.0)
    # Few single rates: a product with each takes as long as one with all that are even.
    is_large = wrong >= np.sort(wrong, axis=1)[:, -_LARGEST:][:, :1]
    even = np.where(is_large, 0.0, wrong).sum(axis=1) / np.maximum((off & ~is_large).sum(axis=1), 1)
    wrong = np.where(is_large | ~off, wrong, even[:, None])
    power = fitted_confusion(rows, with_diagonal(wrong), _FIRST_POWERS).power
    return [fitted_confusion(rows, with_diagonal(scale * wrong), power * NEXT_POWERS) for scale in _ANCHORED]


def by_chance(n_classes: int) -> float:
    """The gain in log-likelihood that a rate for each class has by chance in one of a hundred fits."""
    return 0.5 * float(chi2.ppf(0.99, n_classes))


def true_classes(rows: LabelRows, fit: Fit) -> np.ndarray:
    """P(true class | row, given label), in the columns of the rows."""
    joint = fit.q * rows.likelihood(fit.transition)
    clean = np.flatnonzero(rows.is_clean)
    joint[clean] = 0.0
    joint[clean, rows.place[clean]] = 1.0
    return joint / joint.sum(axis=1, keepdims=True)


def n_wrong(rows: LabelRows, fit: Fit) -> float:
    """Expected number of wrong labels."""
    return float(rows.counts @ (1.0 - rows.of_given(true_classes(rows, fit))))


def fitted_confusion(rows: LabelRows, transition: np.ndarray, powers: np.ndarray) -> Fit:
    """The fit of T at the power that makes the labels most likely."""
    log_q = rows.log_classes(transition)
    powers = np.clip(powers, _FIRST_POWERS[0], _FIRST_POWERS[-1])
    fits = [(log_likelihood(rows, q, transition), p, q) for p, q in ((p, rows.raised(log_q, p)) for p in powers)]
    value, power, q = max(fits, key=lambda fit: fit[0])
    return Fit(value, transition, power, q)


def with_diagonal(wrong: np.ndarray) -> np.ndarray:
    """T (..., K, K) from its off-diagonal entries; for each class more labels are right than belong to any single other class."""
    most = wrong.sum(axis=-1, keepdims=True) + wrong.max(axis=-1, keepdims=True)
    wrong = wrong * np.minimum(1.0, 0.99 / np.maximum(most, SMALLEST))
    return wrong + np.eye(wrong.shape[-1]) * (1.0 - wrong.sum(axis=-1, keepdims=True))


def _expected(rows: LabelRows) -> tuple[np.ndarray, float]:
    """Expected counts (K, K) of given labels by true class, and the power, of the round after which the labels are likeliest.

    Confident counts can lead to a T that is the likeliest nearby only, where many rows of two classes share a label. So some rows
    take many rounds from two places, and all go on from the other one where it ends far likelier, by more than a rate of each class
    is worth.
    """
    n_classes = rows.n_classes
    n_some = max(_SOME_ROWS, _SOME_ROWS_A_CLASS * n_classes)
    is_all = len(rows.given) <= n_some
    some = rows if is_all else rows.take(np.random.default_rng(0).permutation(len(rows.given))[:n_some])
    near, other = (_rounds(some, begin(some), 1.0, _FIRST_POWERS, _MANY_ROUNDS) for begin in (_confident, _surest))
    most_likely = _likeliest(other)
    if most_likely.value > _likeliest(near).value + n_classes:
        counts = most_likely.counts * (rows.counts.sum() / some.counts.sum())
        return _likeliest(_rounds(rows, counts, most_likely.power, NEXT_POWERS, _ROUNDS))[1:]
    begun = near[:_ROUNDS] if is_all else _rounds(rows, _confident(rows), 1.0, _FIRST_POWERS, _ROUNDS)
    return _likeliest(begun)[1:]


def _likeliest(rounds: Iterable[_Round]) -> _Round:
    return max(rounds, key=lambda each: each.value)


def _rounds(rows: LabelRows, counts: np.ndarray, power: float, factors: np.ndarray, most: int) -> list[_Round]:
    """At most `most` rounds, and at least _ROUNDS, from counts (K, K); they end when several of them gain little."""
    found: list[_Round] = []
    for _ in range(most):
        transition = _pooled(counts)[0]
        log_q = rows.log_classes(transition)
        n_together = max(1, _TOGETHER // max(log_q.size, counts.size))
        parts = np.split(power * factors, range(n_together, len(factors), n_together))
        found.append(_likeliest(fit for powers in parts for fit in _counted(rows, log_q, powers, transition)))
        if len(found) > _ROUNDS and found[-1].value < found[-1 - _ROUNDS].value + _LEAST_GAIN:
            break
        factors, (_, counts, power) = NEXT_POWERS, found[-1]
    return found


def _confident(rows: LabelRows) -> np.ndarray:
    """Counts (K, K) of rows: each counts for its most probable class among those above the mean of their own rows."""
    n_classes, given = rows.n_classes, rows.given
    sizes = np.bincount(given, rows.counts, n_classes)
    means = np.bincount(given, rows.counts * rows.of_given(rows.proba), n_classes) / np.maximum(sizes, SMALLEST)
    classes = rows.likeliest(np.where(sizes > 0, means, np.inf))
    is_counted = classes >= 0
    confusion = np.zeros((n_classes, n_classes))
    np.add.at(confusion, (classes[is_counted], given[is_counted]), rows.counts[is_counted])
    return confusion


def _surest(rows: LabelRows) -> np.ndarray:
    """Counts (K, K): the probabilities of the rows most surely in each class, a fifth as many as have its label."""
    n_classes = rows.n_classes
    n_surest = np.maximum(_FEWEST_SURE, _SUREST * np.bincount(rows.given, minlength=n_classes)).astype(int)
    return rows.surest(n_surest)


def _counted(rows: LabelRows, log_q: np.ndarray, powers: np.ndarray, transition: np.ndarray) -> list[_Round]:
    """A round with each of the powers (p,) of q: a few steps of expectation-maximization from T, in which q stays."""
    noisy = np.flatnonzero(~rows.is_clean)
    unsure = rows.take(noisy) if len(noisy) < len(log_q) else rows
    raised = [rows.raised(log_q, power) for power in powers]
    q_unsure = [q[noisy] for q in raised] if unsure is not rows else raised
    transitions = np.repeat(transition[None], len(powers), axis=0)
    for _ in range(_STEPS):
        confusions = np.array([_joint_counts(unsure, q, own) for q, own in zip(q_unsure, transitions, strict=True)])
        transitions = _pooled(confusions)[0]
    values = [log_likelihood(rows, q, own) for q, own in zip(raised, transitions, strict=True)]
    return [_Round(*each) for each in zip(values, confusions, powers, strict=True)]


def _joint_counts(rows: LabelRows, q: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Expected counts (K, K) of given labels by true class under q and T."""
    joint = q * rows.likelihood(transition)
    joint *= (rows.counts / joint.sum(axis=1))[:, None]
    return rows.confusion(joint)


def _pooled(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T from counts (..., K, K), the classes with a rate of their own (..., K), and the number of rates besides the common one.

    A class has the common rate of wrong labels unless it differs by more than chance. Its wrong labels are spread evenly over the
    other classes, except those that occur more often than chance.
    """
    n_classes = confusion.shape[-1]
    off = ~np.eye(n_classes, dtype=bool)
    size = confusion.sum(axis=-1)
    common = np.where(off, confusion, 0.0).sum(axis=(-2, -1)) / np.maximum(size.sum(axis=-1), SMALLEST)
    wrong = np.where(off, confusion + common[..., None, None] / (n_classes - 1), 0.0)  # One more row: no rate is 0.
    found = wrong.sum(axis=-1)
    expected = size * common[..., None]
    is_own = np.abs(found - expected) > _by_chance(expected)
    of_others = np.where(is_own, 0.0, found).sum(axis=-1) / np.maximum(np.where(is_own, 0.0, size).sum(axis=-1), 1.0)
    common = np.where(is_own.all(axis=-1), common, of_others)
    rate = np.where(is_own, found, common[..., None] * (size + 1.0))
    even = rate[..., None] / (n_classes - 1)
    is_large = off & (wrong - even > _by_chance(even)) & (n_classes > 2)
    has_own = is_own | is_large.any(axis=-1)
    left = np.where(has_own, np.where(is_large, 0.0, wrong).sum(axis=-1), rate) / np.maximum((off & ~is_large).sum(axis=-1), 1)
    transition = np.where(is_large, wrong, np.where(off, left[..., None], 0.0)) / (size + 1.0)[..., None]
    return with_diagonal(transition), has_own, is_own.sum(axis=-1) + is_large.sum(axis=(-2, -1))


def _by_chance(expected: np.ndarray) -> np.ndarray:
    """How far a number of labels is off its expected value by chance."""
    return _DEVIATIONS * np.sqrt(expected + 1.0)


def log_likelihood(rows: LabelRows, q: np.ndarray, transition: np.ndarray) -> float:
    """Log-likelihood of the given labels under q T, with q the true classes; of clean rows under q alone."""
    right = (1.0 - MISTAKEN) * rows.of_given(q) + MISTAKEN / rows.n_classes
    likelihood = np.where(rows.is_clean, right, np.einsum("ij,ij->i", q, rows.likelihood(transition)))
    return float(rows.counts @ np.log(np.maximum(likelihood, np.finfo(float).tiny)))


def _climbed(rows: LabelRows, fit: Fit, has_own: np.ndarray) -> Fit:
    """The fit after moving the rates of wrong labels one by one: those of each class with its own, and of all others at once."""
    groups = [np.arange(len(has_own)) == k for k in np.flatnonzero(has_own)]
    groups += [~has_own] if not has_own.all() else []
    for factor in _FACTORS:
        transition = fit.transition
        for group in groups:
            # Rows of other classes don't depend on these rates.
            near = rows.take(rows.of_group(fit.q, group, 0.01))
            transition = _moved(near, fit.power, transition, group, factor)
        moved = fitted_confusion(rows, transition, fit.power * NEXT_POWERS)
        fit = moved if moved.value > fit.value else fit
    return fit


def _moved(near: LabelRows, power: float, transition: np.ndarray, group: np.ndarray, factor: float) -> np.ndarray:
    """The most likely of T and of T with the rates of a group times or divided by the factor or its square."""

    def value(transition: np.ndarray) -> float:
        return log_likelihood(near, near.raised(near.log_classes(transition), power), transition)

    begin = value(transition)
    for sign in (-1, 1):
        trial = _with_rate(transition, group, factor**sign)
        once = value(trial)
        if once > begin:
            further = _with_rate(transition, group, factor ** (2 * sign))
            found, trial = max((once, trial), (value(further), further), key=lambda each: each[0])
            # The labels alone hardly determine the rates: a move must gain as much as a parameter.
            return trial if found > begin + 1.0 else transition
    return transition


def _with_rate(transition: np.ndarray, group: np.ndarray, factor: float) -> np.ndarray:
    """T with `factor` times the wrong labels in the classes of a group (K,)."""
    factors = np.where(group, factor, 1.0)[:, None]
    return with_diagonal(np.where(np.eye(len(group), dtype=bool), 0.0, transition) * factors)


def _even(wrong: float, n_classes: int) -> np.ndarray:
    """T with `wrong` labels spread evenly over the other classes."""
    return np.where(np.eye(n_classes, dtype=bool), 1.0 - wrong, wrong / (n_classes - 1))
