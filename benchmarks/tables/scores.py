"""How weights and ratios are judged against the truth."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LinearRegression

from benchmarks.runner import Row

from .problems import Problem

__all__ = ["nmse", "reference_rows", "scores"]


def nmse(ratio: np.ndarray, truth: np.ndarray) -> float:
    """(1/n) sum_i (r_i / mean(r) - t_i / mean(t))^2 for estimates r and true ratios t (n,).

    n^2 times the NMSE of Sugiyama et al. (2008), who make both sums 1, so that it doesn't shrink with n. Weights of all ones
    have the variance of the true ratio.
    """
    return float(np.mean((ratio / np.mean(ratio) - truth / np.mean(truth)) ** 2))


def scores(problem: Problem, weights: np.ndarray, fresh: np.ndarray | None) -> Row:
    """The judgement of weights (n_source,) and of ratios of the fresh source rows, which may be None."""
    if problem.source.shape[:1] != weights.shape or not _is_usable(weights):
        return {"status": "failed", "reason": f"weights are no finite numbers (n_source,) of mean > 0: shape {weights.shape}"}
    row: Row = {
        "NMSE": nmse(weights, problem.ratio_source),
        "rank correlation": rank_correlation(weights, problem.ratio_source),
        "target MSE": target_error(problem, weights),
        "negative weights": int(np.sum(weights < 0)),
    }
    if fresh is not None and len(fresh):
        row["fresh NMSE"] = nmse(fresh, problem.ratio_fresh) if _is_usable(fresh) else None
        row["fresh mean"] = float(np.mean(fresh))
    return row


def reference_rows(problem: Problem) -> dict[str, Row]:
    """The judgement of even weights and of the true ratio."""
    weights = {"no weights": (np.ones(len(problem.source)), np.ones(len(problem.fresh)))}
    weights["true ratio"] = problem.ratio_source, problem.ratio_fresh
    return {name: {"status": "ok", **scores(problem, *pair)} for name, pair in weights.items()}


def rank_correlation(weights: np.ndarray, truth: np.ndarray) -> float | None:
    """Spearman's correlation: -1 where the weights are upside down; None where one is constant."""
    ranks = rankdata(weights), rankdata(truth)
    if min(np.ptp(r) for r in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def target_error(problem: Problem, weights: np.ndarray) -> float:
    """Mean squared error on fresh target rows of the line fitted to the weighted source rows; negative weights count 0."""
    model = LinearRegression().fit(problem.source, problem.labels_source, sample_weight=np.clip(weights, 0.0, None))
    return float(np.mean((model.predict(problem.fresh_target) - problem.labels_fresh_target) ** 2))


def _is_usable(ratio: np.ndarray) -> bool:
    return bool(np.isfinite(ratio).all()) and float(np.mean(ratio)) > 0.0
