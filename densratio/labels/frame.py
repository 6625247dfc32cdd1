"""The frame that lists label issues."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import numpy as np

from .._callers import outer_level

__all__ = ["issue_frame", "pandas_module", "suggested_classes", "with_interval"]

_LEAST = 0.1  # score from which a row can be an issue: many small scores may sum to one, and are no reason to look at a row
_UNSURE = 0.05  # gap between the fewest and the most wrong labels, as a share of the rows, that triggers a warning


def pandas_module() -> Any:
    """pandas; without it an ImportError says what to install."""
    try:
        return import_module("pandas")
    except ImportError as error:
        raise ImportError('The list of label issues is a pandas frame: pip install "densratio-toolkit[cli]".') from error


def suggested_classes(posterior: np.ndarray, given: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The most probable class (n,) of each row by P(true class) (n, K); for issues the most probable other than the given one."""
    likeliest, others = posterior.argmax(axis=1), posterior.copy()
    others[np.arange(len(given)), given] = -1.0
    issues = _worst_first(score)[: _n_listed(score)]
    likeliest[issues] = others[issues].argmax(axis=1)
    return likeliest


def issue_frame(given: np.ndarray, suggested: np.ndarray, score: np.ndarray) -> Any:
    """row, given_label, suggested_label, score, is_issue of all rows, the worst first.

    n_issues in its attrs is the sum of the scores, rounded. The worst so many rows are issues, but none with a score below 0.1.
    """
    order = _worst_first(score)
    frame = pandas_module().DataFrame({
        "row": order,
        "given_label": given[order],
        "suggested_label": suggested[order],
        "score": score[order],
        "is_issue": np.arange(len(order)) < _n_listed(score),
    })  # fmt: skip
    frame.attrs["n_issues"] = round(float(score.sum()))
    return frame


def with_interval(frame: Any, limits: tuple[float, float], why: str, more: str) -> Any:
    """The frame with n_issues_interval in its attrs, the fewest and the most wrong labels; a warning if they are far apart.

    why: the reason that is told. more: what to do.
    """
    n_issues = frame.attrs["n_issues"]
    least, most = min(round(limits[0]), n_issues), max(round(limits[1]), n_issues)
    # A list, because pandas compares attributes with ==, which is ambiguous for arrays.
    frame.attrs["n_issues_interval"] = [least, most]
    if most > 2 * least + _UNSURE * len(frame):
        warnings.warn(
            f"Between {least} and {most} of {len(frame)} labels can be wrong: {why}, and "
            f"{int(frame['is_issue'].sum())} are listed as issues. Trust the order of the scores, not the number, or {more}",
            UserWarning, stacklevel=outer_level(),
        )  # fmt: skip
    return frame


def _worst_first(score: np.ndarray) -> np.ndarray:
    return np.argsort(-score, kind="stable")


def _n_listed(score: np.ndarray) -> int:
    return min(round(float(score.sum())), int((score >= _LEAST).sum()))
