"""Label noise that depends on the input: by the posteriors of each row, or along random directions of its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._validation import check_count, check_number, shown
from .checks import check_kind, generator, numbers
from .label_noise import NoisyLabels, class_numbers, label_noise

__all__ = ["PMD_TYPES", "feature_dependent_noise", "flip_probabilities", "instance_dependent_noise", "out_of_fold_posteriors"]

PMD_TYPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "I": lambda margin: (1.0 - margin**2) / 2.0,
    "II": lambda margin: 1.0 - margin**3,
    "III": lambda margin: 1.0 - (margin**3 + margin**2 + margin) / 3.0,
}
"""Unscaled flip probability as a function of the margin D in [0, 1] between the two largest posteriors."""


def feature_dependent_noise(
    labels: Any,
    posteriors: Any,
    kind: str,
    rate: float,
    *,
    then: tuple[str, float] | None = None,
    mapping: dict[int, int] | None = None,
    random_state: int | np.random.Generator = 0,
) -> NoisyLabels:
    """Polynomial margin diminishing (PMD) noise: flips labels with the probabilities of `flip_probabilities`.

    A label flips to the most likely class other than itself: the most likely class u becomes the second most likely, s; any
    other label becomes u. A row's flip probability thus does not depend on its label, and `rate` is the expected share of
    flipped rows. The paper draws s or u regardless of the given label: for that, pass posteriors.argmax(axis=1) as labels.

    labels (n,) integers 0..K-1; posteriors (n, K), rows P(class | x). then: a kind and rate of `label_noise`, such as
    ("symmetric", 0.3), applied to the noisy labels (hybrid noise), with its `mapping`; `rate` is that of the first noise only.
    is_flipped compares with the given labels. transition: row k is the mean, over the rows of class k, of P(noisy label | row);
    a class without rows has 1 on the diagonal; the matrix of `then` multiplies it from the right.
    Raises ValueError for an unknown kind, posteriors that are not distributions, or a rate that cannot be reached.
    Source: Zhang, Zheng, Wu, Goswami & Chen (2021), Learning with feature-dependent label noise: a progressive approach.
    """
    posteriors = _distributions(posteriors)
    labels, n_classes = class_numbers(labels, posteriors.shape[1])
    if len(labels) != len(posteriors):
        raise ValueError(f"posteriors must have one row for each label; got {len(posteriors)} rows for {len(labels)} labels.")
    probability = flip_probabilities(posteriors, kind, rate)
    # The most likely class other than the label.
    rest = posteriors.copy()
    rest[np.arange(len(labels)), labels] = -1.0
    others = rest.argmax(axis=1)
    rng = generator(random_state)
    noisy = np.where(rng.random(len(labels)) < probability, others, labels).astype(labels.dtype)
    transition = _mean_transition(labels, others, probability, n_classes)
    if then is not None:
        if not isinstance(then, tuple | list) or len(then) != 2:
            raise ValueError(f'then must be a kind and a rate of `label_noise`, such as ("symmetric", 0.3); got {shown(then)}.')
        noisy, _, second = label_noise(noisy, *then, n_classes=n_classes, mapping=mapping, random_state=rng)
        transition = transition @ second
    return NoisyLabels(noisy, noisy != labels, transition)


def flip_probabilities(posteriors: Any, kind: str, rate: float) -> np.ndarray:
    """min(1, c f(D)) (n,) with mean `rate`: D = eta_u - eta_s, the margin between the two largest posteriors of a row.

    posteriors (n, K). f by kind: I (1 - D^2) / 2; II 1 - D^3; III 1 - (D^3 + D^2 + D) / 3. The scale c is exact.
    If a sharp classifier leaves few uncertain rows, those are clamped at 1 and the three types become similar: soften it.
    Raises ValueError if too many rows have D = 1, which never flip, for this rate.
    """
    check_kind("PMD noise of kind", kind, PMD_TYPES)
    check_number("rate", rate, "[0, 1]")
    top = np.partition(_distributions(posteriors), -2, axis=1)
    chances = PMD_TYPES[kind](np.minimum(top[:, -1] - top[:, -2], 1.0))
    return np.minimum(_scale_to_mean(chances, rate) * chances, 1.0)


def instance_dependent_noise(
    labels: Any,
    inputs: Any,
    rate: float,
    *,
    spread: float = 0.1,
    n_classes: int | None = None,
    random_state: int | np.random.Generator = 0,
) -> NoisyLabels:
    """Flip row i with its own probability q_i, to class j != y_i with probability softmax_j(x_i' W_y), W drawn for each class.

    q_i is normal with mean `rate` and deviation `spread`, truncated to [0, 1]; the entries of W (d, K) are standard normal.
    The further the inputs are from 0, the more often similar rows flip to the same class.

    labels (n,) integers 0..K-1; inputs (n, ...), flattened to rows. transition: row k is the mean, over the rows of class k, of
    P(noisy label | row); a class without rows has 1 on the diagonal.
    Raises ValueError for a rate outside [0, 1], a spread that is not > 0, or inputs that are not one finite row for each label.
    Source: Xia et al. (2020), Part-dependent label noise: towards instance-dependent label noise.
    """
    from scipy.stats import truncnorm

    labels, n_classes = class_numbers(labels, n_classes)
    rows = numbers("inputs", inputs)
    if rows.ndim < 2 or len(rows) != len(labels) or not np.isfinite(rows).all():
        raise ValueError(f"inputs must be one row of finite numbers for each of the {len(labels)} labels; got {rows.shape}.")
    rate, spread = check_number("rate", rate, "[0, 1]"), check_number("spread", spread, "(0, inf)")
    check_count("n_classes", n_classes, 2)
    rng = generator(random_state)
    q = truncnorm.rvs(-rate / spread, (1.0 - rate) / spread, rate, spread, len(labels), random_state=rng)
    chances = _along_directions(rows.reshape(len(rows), -1), labels, q, n_classes, rng)
    below = np.cumsum(chances, axis=1)
    noisy = (below > rng.random((len(labels), 1)) * below[:, -1:]).argmax(axis=1).astype(labels.dtype)
    transition = np.eye(n_classes)
    for c in np.unique(labels):
        transition[c] = chances[labels == c].mean(axis=0)
    return NoisyLabels(noisy, noisy != labels, transition)


def out_of_fold_posteriors(
    X: Any,
    y: Any,
    classifier: Any = None,
    *,
    n_folds: int = 5,
    n_classes: int | None = None,
    random_state: int | np.random.Generator = 0,
) -> np.ndarray:
    """P(class | x) (n, K) of each row, from a classifier fitted on the other folds.

    X (n, ...), flattened to rows if it has more than two axes; y (n,) integers 0..K-1; a class without rows has probability
    0. classifier: any scikit-learn classifier with predict_proba; None for logistic regression on standardized columns.
    random_state seeds the folds only: a randomized classifier needs its own.
    Raises ValueError for a class with fewer rows than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y, n_classes = class_numbers(y, n_classes)
    check_count("n_folds", n_folds, 2)
    counts = np.bincount(y, minlength=n_classes)
    if len(y) == 0 or counts[counts > 0].min() < n_folds:
        small = np.flatnonzero((counts > 0) & (counts < n_folds)).tolist()
        raise ValueError(f"Every class needs a row in each of the {n_folds} folds; classes {small} have fewer. Lower n_folds.")
    X = X.reshape(len(X), -1) if getattr(X, "ndim", 2) > 2 else X
    if classifier is None:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    seed = int(generator(random_state).integers(2**31))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    posteriors = np.zeros((len(y), n_classes))
    posteriors[:, counts > 0] = cross_val_predict(classifier, X, y, cv=folds, method="predict_proba")
    return posteriors


def _distributions(posteriors: Any) -> np.ndarray:
    posteriors = numbers("posteriors", posteriors)
    if posteriors.ndim != 2 or len(posteriors) == 0 or posteriors.shape[1] < 2:
        raise ValueError(f"posteriors must be (n, K) with n >= 1 and K >= 2; got shape {posteriors.shape}.")
    # NaN fails this condition; the tolerance allows for a softmax in single precision.
    wrong = ~((posteriors.min(axis=1) >= 0.0) & (np.abs(posteriors.sum(axis=1) - 1.0) <= 1e-4))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Rows of posteriors must be >= 0 and sum to 1; row {row} has the smallest entry {posteriors[row].min()} and the sum "
            f"{posteriors[row].sum()}. Take the softmax of logits."
        )
    return posteriors


def _along_directions(rows: np.ndarray, labels: np.ndarray, q: np.ndarray, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """P(noisy label | row) (n, K): 1 - q at the label, and q times a softmax over the other classes."""
    from scipy.special import softmax

    chances = np.zeros((len(rows), n_classes))
    for c in range(n_classes):
        directions, own = rng.standard_normal((rows.shape[1], n_classes)), labels == c
        logits = rows[own] @ directions
        logits[:, c] = -np.inf
        chances[own] = q[own, None] * softmax(logits, axis=1)
        chances[own, c] = 1.0 - q[own]
    return chances


def _scale_to_mean(chances: np.ndarray, rate: float) -> float:
    """c >= 0 with mean_i min(1, c chances_i) = rate; chances (n,) >= 0."""
    n, positive = len(chances), np.sort(chances[chances > 0])[::-1]
    if rate > len(positive) / n + 1e-12:
        raise ValueError(
            f"A rate of {rate} cannot be reached: only {len(positive)} of {n} rows have a margin below 1, and the others never "
            "flip. Lower the rate, or soften the posteriors."
        )
    # The mean is linear in c between the breakpoints 1 / chances, at each of which one more row is clamped.
    rest = np.cumsum(positive[::-1])[::-1]
    means = (np.arange(len(positive)) + rest / positive) / n
    return float(np.interp(rate, np.append(0.0, means), np.append(0.0, 1.0 / positive)))


def _mean_transition(labels: np.ndarray, others: np.ndarray, probability: np.ndarray, n_classes: int) -> np.ndarray:
    counts = np.bincount(labels, minlength=n_classes)
    moved = np.zeros((n_classes, n_classes))
    np.add.at(moved, (labels, others), probability)
    moved /= np.maximum(counts, 1)[:, None]
    return moved + np.diag(1.0 - moved.sum(axis=1))
