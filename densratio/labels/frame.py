"""The frame that lists label issues."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["issue_frame", "pandas_module"]


def pandas_module() -> Any:
    """pandas; an ImportError that says what to install where it is missing."""
    try:
        return import_module("pandas")
    except ImportError as error:
        raise ImportError('The list of label issues is a pandas frame: pip install "densratio-toolkit[cli]".') from error


def issue_frame(given: np.ndarray, suggested: np.ndarray, score: np.ndarray) -> Any:
    """row, given_label, suggested_label, score, is_issue of all rows, the worst first; as many are issues as the scores sum to."""
    order, n_issues = np.argsort(-score, kind="stable"), round(float(score.sum()))
    frame = pandas_module().DataFrame({
        "row": order,
        "given_label": given[order],
        "suggested_label": suggested[order],
        "score": score[order],
        "is_issue": np.arange(len(order)) < n_issues,
    })  # fmt: skip
    frame.attrs["n_issues"] = n_issues
    return frame
