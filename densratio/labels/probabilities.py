"""Label issues from out-of-fold probabilities alone."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from .._callers import outer_level
from .._columns import check_container, is_frame, library_of, numbers_of
from ..tables.reading import column_names
from .checked import Checked, checked_rows, recalibrated
from .confusion import LabelModel, careful_posterior
from .frame import issue_frame, pandas_module, suggested_classes, with_interval
from .given import class_codes, clean_rows, warn_of_spellings
from .tokens import are_sequences, token_issues

__all__ = ["class_issues", "label_issues_from_probabilities"]

_ROUNDED = 1e-6  # below 0, from which a number is no probability that was rounded
_ORDERING = 1e-6  # largest change of a score that keeps 1 - P(label right) of certain rows from rounding to 1


def label_issues_from_probabilities(
    labels: Any, proba: Any, *, classes: Any = None, clean: Any = None, checked: Any = None, groups: None = None
) -> Any:
    """List rows by how likely their label is wrong, from probabilities of a model that did not learn from them.

    The model predicts given labels, so its probabilities contain the noise: the confusion between true and given classes and the
    true class of each row are estimated together (by expectation-maximization, see `find_label_issues`).

    labels (n,): given labels. proba (n, K): out-of-fold probabilities, column k for classes[k], or a frame whose columns are
    named after the classes; or (r, n, K), from r deals of the rows into folds.
    classes (K,): None for the sorted distinct labels. clean: row numbers of labels known to be right.
    checked: rows drawn at random and their right labels, as in `find_label_issues`.
    groups: must be None; rows of a group must be held out together when the probabilities are made.
    Labels of tokens are a list of sequences, with a list of their probabilities (tokens, K), both without padding; clean then names
    sequences. All tokens share one confusion.
    Returns the frame of `find_label_issues`; for tokens row is the sequence, and a column token the place in it. Raises ValueError
    for missing labels, one class, or probabilities that don't fit.
    """
    pandas_module()
    if groups is not None:
        raise ValueError(
            "groups can't be minded after the probabilities were made. Hold out whole groups: cross_val_predict(model, X, labels, "
            'groups=groups, cv=StratifiedGroupKFold(5), method="predict_proba"), or find_label_issues(X, labels, groups=groups).'
        )
    if are_sequences(labels):
        if checked is not None:
            raise ValueError("checked is for one label a row, and these are sequences: pass the tokens of all as one list.")
        return token_issues(labels, proba, clean, partial(label_issues_from_probabilities, classes=classes))
    names, given = class_codes(labels, classes)
    warn_of_spellings(names, 2)
    proba = numbers_of(_in_order(proba, names), "proba", "probabilities (n, K)")
    dealt = proba if proba.ndim == 3 else proba[None]
    if dealt.shape[1:] != (len(given), len(names)) or not len(dealt):
        raise ValueError(
            f"proba must be ({len(given)}, {len(names)}), a row for each label and a column for each class, or several of these; "
            f"got shape {proba.shape}.{_remedy(proba, len(given), len(names))}"
        )
    sums_to_one = np.abs(dealt.sum(axis=2) - 1.0) < 1e-3
    is_bad = ~(np.isfinite(dealt).all(axis=2) & (dealt >= -_ROUNDED).all(axis=2) & sums_to_one).all(axis=0)
    if is_bad.any():
        raise ValueError(
            f"proba must hold numbers >= 0 that sum to 1 in each row; {int(is_bad.sum())} rows do not, the first is row "
            f"{int(np.argmax(is_bad))}. Pass what predict_proba of cross_val_predict gives."
        )
    _warn_of_columns(names, given, dealt)
    return class_issues(names, given, dealt, clean_rows(clean, len(given)), checked_rows(checked, names[given]))


def _remedy(proba: np.ndarray, n_rows: int, n_classes: int) -> str:
    """What to type in place of probabilities that have another shape than (n, K)."""
    if proba.ndim == 1 and len(proba) == n_rows and n_classes == 2:
        return " One column p of the second class: numpy.column_stack([1 - p, p])."
    is_wide = proba.ndim in (2, 3) and proba.shape[-2] == n_rows and proba.shape[-1] > n_classes
    return " Where labels lack a class of the model, pass classes=model.classes_." if is_wide else ""


def _warn_of_columns(names: np.ndarray, given: np.ndarray, dealt: np.ndarray) -> None:
    """Warn if most labels would be the likeliest class in another order of the columns, and few are in this one."""
    agreement = np.zeros((len(names), len(names)))
    np.add.at(agreement, (dealt.mean(axis=0).argmax(axis=1), given), 1.0)
    columns, classes = linear_sum_assignment(-agreement)
    own, best = np.trace(agreement), agreement[columns, classes].sum()
    if 2.0 * best > len(given) and 2.0 * own < best:
        warnings.warn(
            f"The likeliest class is the given label in {own:.0f} of {len(given)} rows, and would be in {best:.0f} if the columns "
            f"of proba stood for the classes {names[classes].tolist()[:20]}, not {names.tolist()[:20]}: if they do, pass them as "
            "classes=.",
            UserWarning,
            stacklevel=outer_level(),
        )


def _in_order(proba: Any, names: np.ndarray) -> Any:
    """proba; of a frame the columns in the order of the classes (K,), if they are called as these are, or are numbered.

    Raises ValueError if columns have other names.
    """
    if is_frame(proba) and library_of(proba) == "pyarrow":
        proba = proba.to_pandas()
    if not is_frame(check_container(proba, "proba")):
        return proba
    columns = {str(name): name for name in column_names(proba)}
    if sorted(columns) == sorted(map(str, names)):
        return np.column_stack([np.asarray(proba[columns[str(name)]]) for name in names])
    if not all(name == number or name == f"column_{number}" for number, name in enumerate(columns.values())):
        raise ValueError(
            f"proba has the columns {list(columns)[:20]}, and the classes are {names.tolist()[:20]}: name the columns after the "
            "classes, or pass an array with a column for each, in this order."
        )
    return proba


def class_issues(
    names: np.ndarray, given: np.ndarray, dealt: np.ndarray, is_clean: np.ndarray, checked: Checked | None, n_rows: Any = None
) -> Any:
    """The frame of the first n_rows rows, from probabilities (r, n, K)."""
    model, limits = _of_known_classes(dealt, given, is_clean)
    rows, at = np.arange(len(given))[:n_rows], (np.arange(len(given)), given)
    score = np.where(is_clean, 0.0, wrong_scores(model.posterior[at]))[rows]
    if checked is not None:
        score, limits = recalibrated(score, is_clean[rows], checked)
    suggested = names[suggested_classes(model.posterior[rows], given[rows], score)]
    if checked is not None:
        # A class outside the given labels may need a longer string type.
        suggested = suggested.astype(np.result_type(suggested, checked.labels))
        suggested[checked.rows] = checked.labels
    frame = issue_frame(names[given[rows]], suggested, score)
    disagrees = (dealt.mean(axis=0).argmax(axis=1) != given) & ~is_clean
    # Lists, because pandas compares attributes with ==, which is ambiguous for arrays.
    frame.attrs.update(classes=names.tolist(), transition=model.transition.tolist(), n_disagreements=int(disagrees[rows].sum()))
    more = "look at rows drawn at random and pass their right labels: checked=(rows, right_labels)."
    more = more if checked is None else f"look at more rows than the {len(checked.rows)} looked at, drawn at random too."
    return with_interval(frame, limits, "the rows do not separate the classes well enough", more)


def _of_known_classes(dealt: np.ndarray, given: np.ndarray, is_clean: np.ndarray) -> tuple[LabelModel, tuple[float, float]]:
    """`careful_posterior` without the classes that no row has as its label and less than half a row in the probabilities."""
    n_classes = dealt.shape[2]
    is_known = (np.bincount(given, minlength=n_classes) > 0) | (dealt.mean(axis=0).sum(axis=0) >= 0.5)
    if is_known.all():
        return careful_posterior(dealt, given, is_clean)
    found, limits = careful_posterior(dealt[:, :, is_known], np.cumsum(is_known)[given] - 1, is_clean)
    posterior, transition = np.zeros((len(given), n_classes)), np.eye(n_classes)
    posterior[:, is_known], transition[np.ix_(is_known, is_known)] = found.posterior, found.transition
    return LabelModel(posterior, transition), limits


def wrong_scores(right: np.ndarray) -> np.ndarray:
    """1 - P(label right) (n,), within 1e-6, in an order that rounding preserves down to probabilities of 1e-100."""
    right = right.clip(0.0, 1.0)
    return (1.0 - _ORDERING) * (1.0 - right) + _ORDERING * (1.0 - right**0.1)
