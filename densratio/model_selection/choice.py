"""Grid search: the best parameters, and a table of all scores in scikit-learn's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

__all__ = ["Choice", "choose"]


class Choice(NamedTuple):
    """The best parameters (the first among ties), and all scores as in GridSearchCV's cv_results_."""

    best_params: dict[str, Any]
    results: dict[str, Any]


def choose(
    grid: Mapping[str, Sequence[Any]], scores: Callable[[list[dict[str, Any]]], np.ndarray], *, is_cautious: bool = False
) -> Choice:
    """Score every combination of the grid's values. scores: candidates -> (n_candidates, n_folds), higher is better.

    Candidates rank by their mean score; is_cautious: minus its standard error over the folds. A score that is not finite ranks
    last; its standard deviation is NaN. Raises ValueError if none is finite.
    """
    candidates = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    by_fold = np.asarray(scores(candidates), dtype=np.float64)
    # Scores that are not finite have no deviation.
    finite, n_folds = np.nan_to_num(by_fold, nan=0.0, posinf=0.0, neginf=0.0), by_fold.shape[1]
    # In units of a power of 2, which is exact, no sum or square of huge scores overflows.
    unit = np.ldexp(1.0, np.frexp(np.abs(finite).max(axis=1))[1] - 1)
    with np.errstate(invalid="ignore"):
        mean = unit * (by_fold / unit[:, None]).mean(axis=1)
    deviation = np.where(np.isfinite(mean), unit * (finite / unit[:, None]).std(axis=1), np.nan)
    sure = mean - deviation / (n_folds - 1) ** 0.5 if is_cautious and n_folds > 1 else mean
    ranked = np.where(np.isfinite(mean), sure, -np.inf)
    if not np.isfinite(mean).any():
        raise ValueError(
            f"None of the {len(candidates)} candidates for {', '.join(grid)} has a finite score: at none of them do "
            "the kernels at target rows reach the source rows. Check that both samples have the same columns in the same units, or "
            'pass numbers or rules, such as gamma="median", instead of "cv" and sequences.'
        )
    results: dict[str, Any] = {f"param_{name}": _column([c[name] for c in candidates]) for name in grid}
    results["params"] = candidates
    if n_folds > 1:
        results.update({f"split{k}_test_score": by_fold[:, k] for k in range(n_folds)})
    results["mean_test_score"], results["std_test_score"] = mean, deviation
    results["rank_test_score"] = rankdata(-ranked, method="min").astype(np.int32)
    return Choice(candidates[int(np.argmax(ranked))], results)


def _column(values: list[Any]) -> np.ma.MaskedArray:
    column = np.ma.MaskedArray(np.empty(len(values), dtype=object))
    column[:] = values
    return column
