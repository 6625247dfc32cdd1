"""Rows drawn at random and checked by a person: they show how many labels are wrong, and how sure the scores may be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from .._arrays import to_host
from .._columns import is_frame
from ..tables.reading import column_names
from .given import label_array

__all__ = ["Checked", "checked_rows", "recalibrated"]

_FLOOR = 0.002  # error rate even of certain scores, so that no checked row decides alone
_SPREADS = np.array([1.5, 0.5])  # prior deviations of the shift and of the log slope of log odds
_DEVIATIONS = 1.645  # standard deviations on each side of a 90 % interval


class Checked(NamedTuple):
    """Row numbers (m,), the right label (m,) of each, and whether the given label is another one (m,)."""

    rows: np.ndarray
    labels: np.ndarray
    is_wrong: np.ndarray


def checked_rows(checked: Any, given: np.ndarray) -> Checked | None:
    """Checked rows from a pair (row numbers or a mask, right labels), or from a dict or Series of labels by row number.

    given (n,): the given labels. A right label may be a class that no given label has. Raises ValueError for other shapes, row
    numbers out of range, repeated rows, and labels of another type.
    """
    if checked is None:
        return None
    n_rows = len(given)
    if is_frame(checked):
        names = column_names(checked)
        raise ValueError(
            f"checked is a table: pass two of its columns {names[:10]}, (checked[row numbers], checked[right labels])."
        )
    if hasattr(checked, "items"):
        pairs = list(checked.items())
        checked = [row for row, _ in pairs], [label for _, label in pairs]
    if not (isinstance(checked, tuple) and len(checked) == 2):
        raise ValueError(
            "checked must be (row numbers or a mask, right labels) of rows that were drawn at random and checked, or a dict of "
            f"labels by row number; got {type(checked).__name__}."
        )
    rows, labels = np.asarray(to_host(checked[0])), label_array(checked[1], "checked labels")
    if rows.dtype == bool and rows.shape == (n_rows,):
        rows = np.flatnonzero(rows)
    is_number = rows.ndim == 1 and rows.size and rows.dtype.kind in "iu"
    strange = rows[(rows < 0) | (rows >= n_rows)] if is_number else rows.ravel()
    if strange.size or not is_number:
        raise ValueError(f"checked rows must be row numbers from 0 to {n_rows - 1}, or a mask of all; got {strange[:5].tolist()}.")
    if len(labels) != len(rows):
        raise ValueError(f"checked has {len(rows)} rows and {len(labels)} labels: pass one label for each row.")
    if len(np.unique(rows)) < len(rows):
        twice = next(row for number, row in enumerate(rows.tolist()) if row in rows[:number])
        raise ValueError(f"checked has row {twice} twice: leave each row in once.")
    if not np.isin(labels, given).any():
        known = np.unique(given)[:20].tolist()
        raise ValueError(f"checked has the labels {labels[:5].tolist()}, and labels have none of them: they are {known}.")
    return Checked(rows.astype(int), labels, labels != given[rows])


def recalibrated(score: np.ndarray, is_known: np.ndarray, checked: Checked) -> tuple[np.ndarray, tuple[float, float]]:
    """Scores (n,) that agree with the checked rows, 0 or 1 for these; and the fewest and the most wrong labels.

    The log odds of the scores get a slope and a shift, the most probable ones given the checked rows: a logistic regression, whose
    scores sum to the number of wrong labels if the rows were drawn at random. The order of the scores stays. The interval has a
    level of 90 %, from the curvature at the most probable values. is_known (n,): rows known to be right, which keep their score.
    """
    odds = logit(_FLOOR + (1.0 - 2.0 * _FLOOR) * score)
    tells = ~is_known[checked.rows]
    x, wrong = odds[checked.rows[tells]], checked.is_wrong[tells]

    def less_probable(at: np.ndarray) -> tuple[float, np.ndarray]:
        sloped = np.exp(at[1]) * x
        excess = expit(at[0] + sloped) - wrong
        value = np.logaddexp(0.0, at[0] + sloped).sum() - ((at[0] + sloped) * wrong).sum() + 0.5 * ((at / _SPREADS) ** 2).sum()
        return float(value), np.array([excess.sum(), excess @ sloped]) + at / _SPREADS**2

    shift, log_slope = minimize(less_probable, np.zeros(2), jac=True, method="BFGS").x
    found = np.where(is_known, score, expit(shift + np.exp(log_slope) * odds))
    found[checked.rows] = checked.is_wrong
    is_free = ~is_known
    is_free[checked.rows] = False
    n_found, n_more = float(checked.is_wrong.sum()), float(found[is_free].sum())
    if n_more == 0.0:
        return found, (n_found, n_found)
    slope = np.exp(log_slope)
    own, steep = expit(shift + slope * x), found[is_free] * (1.0 - found[is_free])
    gradient = np.array([steep.sum(), steep @ (slope * odds[is_free])])
    moves = np.stack([np.ones_like(x), slope * x])
    curvature = (own * (1.0 - own) * moves) @ moves.T + np.diag(1.0 / _SPREADS**2)
    curvature[1, 1] += (own - wrong) @ moves[1]
    spread = np.sqrt(gradient @ np.linalg.inv(curvature) @ gradient + steep.sum()) / n_more
    factor = np.exp(min(_DEVIATIONS * spread, 50.0))
    least, most = n_more / factor, n_more * factor
    return found, (n_found + least, n_found + min(most, float(is_free.sum())))
