"""Wrong numbers in the target of a regression: which targets are unlikely of their row and likely of any other."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy.stats import gaussian_kde
from scipy.stats import t as student
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict

from .given import label_array

__all__ = ["as_targets", "number_frame", "out_of_fold_numbers", "wrong_numbers"]

_STEPS = 200  # of expectation-maximization, which ends before where nothing moves
_TAILS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)  # degrees of freedom that are tried
_LEAST_SPREAD = 0.1  # of the median one: no row is taken to be certain
_KDE_ROWS = 1000
_CLEARLY = 2.0  # times ln(n): what a share and its tails have to gain in log-likelihood


def as_targets(labels: Any, kind: str) -> np.ndarray | None:
    """Numbers (n,) float64; None, where kind is "auto", for labels that are classes. Raises ValueError where kind is "numbers"."""
    try:
        values = label_array(labels).astype(np.float64)
    except (TypeError, ValueError) as error:
        if kind == "auto":
            return None
        raise ValueError(f"Labels of the kind numbers must be numbers: {error}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"labels must be finite; row {int(np.argmin(np.isfinite(values)))} is not.")
    return values if kind == "numbers" or (values != np.round(values)).any() else None


def out_of_fold_numbers(
    model: Any, rows: Any, targets: np.ndarray, groups: Any, cv: int, seed: int, n_jobs: int | None, verbose: int
) -> tuple[np.ndarray, np.ndarray]:
    """Targets (n,) and their mean absolute errors (n,) as models predict them that learned from other rows."""
    kind = KFold if groups is None else GroupKFold
    folds = list(kind(min(cv, len(targets)), shuffle=True, random_state=seed).split(targets, groups=groups))
    trees = HistGradientBoostingRegressor(loss="absolute_error", random_state=seed)
    how = {"cv": folds, "n_jobs": n_jobs, "verbose": verbose}
    predicted = cross_val_predict(trees if model is None else model, rows, targets, **how)
    errors = np.abs(targets - predicted)
    spread = cross_val_predict(trees, rows, errors, **how)
    return predicted, np.maximum(spread, max(_LEAST_SPREAD * float(np.median(errors)), np.finfo(float).tiny))


def wrong_numbers(targets: np.ndarray, predicted: np.ndarray, spread: np.ndarray, is_clean: np.ndarray) -> np.ndarray:
    """P(wrong) (n,), where a wrong number is one of any row: its density is that of all targets.

    p(y | row) = (1 - share) t(z) / spread + share g(y) with z = (y - predicted) / spread, Student's t with a scale and degrees of
    freedom, and a kernel estimate g. The share and the scale are those under which the targets are likeliest
    (expectation-maximization), the degrees of freedom the best of a few, and the spread that given or one for all rows. A share
    that the targets don't clearly show, where rows say little of them, is one row: then the scores are small and give an order.
    """
    of_any, n_rows = _density(targets), len(targets)
    fits: dict[bool, list[tuple[float, np.ndarray]]] = {True: [], False: []}
    for width in (spread, np.full_like(spread, np.median(spread))):
        z = (targets - predicted) / width
        for tail, share in product(_TAILS, (None, 1.0 / n_rows)):
            value, wrong = _mixed(z, of_any * width, is_clean, tail, share)
            fits[share is None].append((value - float(np.sum(np.log(width))), wrong))
    free, one_row = (max(fits[is_free], key=lambda fit: fit[0]) for is_free in (True, False))
    return free[1] if free[0] - one_row[0] > _CLEARLY * np.log(n_rows) else one_row[1]


def _mixed(z: np.ndarray, of_any: np.ndarray, is_clean: np.ndarray, tail: float, fixed: float | None) -> tuple[float, np.ndarray]:
    """Log-likelihood and P(wrong) (n,); of_any (n,): the density of a wrong number in units of z. fixed: the share, if given."""
    share, scale = fixed or 0.1, max(1.4826 * float(np.median(np.abs(z))), np.finfo(float).tiny)
    wrong = np.zeros(len(z))
    for _ in range(_STEPS):
        own = student.pdf(z / scale, tail) / scale
        both = share * of_any + (1.0 - share) * own
        before, wrong = wrong, np.where(is_clean, 0.0, share * of_any / np.maximum(both, np.finfo(float).tiny))
        if np.max(np.abs(wrong - before)) < 1e-6:
            break
        if fixed is None:
            share = float(np.mean(wrong[~is_clean])) if not is_clean.all() else 0.0
        pulled = (1.0 - wrong) * (tail + 1.0) / (tail + (z / scale) ** 2)
        scale = max(float(np.sqrt(np.sum(pulled * z**2) / np.sum(1.0 - wrong))), np.finfo(float).tiny)
    return float(np.sum(np.log(np.maximum(np.where(is_clean, own, both), np.finfo(float).tiny)))), wrong


def _density(targets: np.ndarray) -> np.ndarray:
    """A kernel estimate (n,) of the density of all targets, from at most 1000 of their quantiles."""
    if np.ptp(targets) == 0.0:
        raise ValueError("All targets are equal: a wrong one can't be told.")
    n_points = min(_KDE_ROWS, len(targets))
    return gaussian_kde(np.quantile(targets, (np.arange(n_points) + 0.5) / n_points))(targets)


def number_frame(pandas: Any, targets: np.ndarray, predicted: np.ndarray, wrong: np.ndarray) -> Any:
    """The frame of `find_label_issues`; the suggested label is the predicted number."""
    order, n_issues = np.argsort(-wrong, kind="stable"), round(float(wrong.sum()))
    frame = pandas.DataFrame({
        "row": order,
        "given_label": targets[order],
        "suggested_label": predicted[order],
        "score": wrong[order],
        "is_issue": np.arange(len(order)) < n_issues,
    })  # fmt: skip
    frame.attrs["n_issues"] = n_issues
    return frame
