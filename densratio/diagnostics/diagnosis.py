"""diagnose: weights, balance, overlap and a two-sample test in one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._arrays import to_host
from .._columns import check_container, is_series, shown
from .._sentinels import warn_of_sentinels
from .advice import advise
from .balance import mean_differences, outside_range, outside_share
from .columns import dense_rows, numeric_columns, rows_where, source_mask
from .remedies import describe, remedies_for
from .report import ColumnBalance, Report
from .two_sample import (
    draw_rows,
    kernel_matrix,
    permutation_p_value,
    permuted_statistics,
    quadratic_form,
    signed_labels,
    standardized,
)
from .weights import effective_sample_size, largest_share, pareto_k, top_share, weight_shares, weights_are_equal

__all__ = ["balance_of", "diagnose", "weights_at"]

_CHANCE = 0.95  # quantile of the permuted statistics


def diagnose(
    ratio: Any,
    X: Any,
    y: Any,
    *,
    weights: Any = None,
    gamma: float | str = "median",
    n_permutations: int = 999,
    max_rows: int = 2000,
    random_state: Any = 0,
) -> Report:
    """Report on weighting these rows by `ratio`: effective sample size, balance, overlap, and warnings.

    ratio: a fitted estimator or Pipeline, whose weights are `ratio.transform` of the source rows; a function of the source
    rows; or weights (n_source,) in the order of the source rows. They are scaled to mean 1. Advice in the warnings names those
    parameters of an estimator that were not yet chosen by cross-validation.
    weights (n_source,): weights to use in place of the transform of an estimator `ratio`, such as `ratio.weights_` on the rows of
    the fit.
    X (n, d), y (n,): as in `fit`, the smaller value of y is the source. Arrays, tensors, sparse matrices and pandas or polars
    frames; text columns of a frame are compared level by level, and a column with NaN also by its share of missing values. Use rows
    that were held out of the fit, if you can: they judge a ratio best.

    The MMD, its test and the distances to the nearest source row use columns in units of their pooled spread, which is robust to
    outliers, clipped at 4 units; and at most max_rows rows in total, drawn with random_state. They take max_rows^2 numbers of
    memory. Weights and balance use all rows.
    gamma: as in `two_sample_test`, for the scaled columns.

    Raises ValueError for inputs that `fit` would not accept, for weights that are negative, not finite or all 0, and for a
    number of weights other than the number of source rows.
    """
    columns = numeric_columns(X, has_gaps=True)
    is_source = source_mask(y, columns.values.shape[0])
    warn_of_sentinels({"X": X}, 2, is_source=is_source)
    weights = weights_at(ratio if weights is None else weights, X, is_source)
    source, target = (rows_where(columns.values, mask) for mask in (is_source, ~is_source))
    distances = _distances(source, target, weights, gamma, n_permutations, max_rows, np.random.default_rng(random_state))
    report = Report(
        n_source=source.shape[0],
        n_target=target.shape[0],
        effective_sample_size=effective_sample_size(weights),
        largest_weight=float(np.max(weights)),
        largest_share=largest_share(weights),
        top_share=top_share(weights),
        pareto_k=pareto_k(weights),
        n_permutations=int(n_permutations),
        balance=balance_of(columns.names, source, target, weights),
        is_uniform=weights_are_equal(weights, tolerance=1e-6),
        ratio=describe(ratio),
        **distances,
    )
    return replace(report, warnings=advise(report, remedies_for(ratio)))


def weights_at(ratio: Any, X: Any, is_source: np.ndarray) -> np.ndarray:
    """Weights (n_source,), mean 1, of the source rows of X from a fitted ratio, a function or an array of weights."""
    given = ratio
    if isinstance(ratio, type):
        raise _not_a_ratio(ratio)
    # A pandas Series has a transform method, too.
    if is_series(ratio):
        given = ratio
    elif hasattr(ratio, "transform"):
        given = ratio.transform(rows_where(X, is_source))
    elif callable(ratio):
        given = ratio(rows_where(X, is_source))
    given = check_container(given, "weights")
    try:
        weights = np.asarray(to_host(given), dtype=np.float64)
    except (TypeError, ValueError):
        raise _not_a_ratio(ratio) from None
    n_source = int(np.sum(is_source))
    if weights.shape != (n_source,):
        raise ValueError(
            f"Weights must be ({n_source},), one for each source row in the order of the source rows; got shape {weights.shape}."
        )
    return weight_shares(weights) * n_source


def _not_a_ratio(ratio: Any) -> ValueError:
    if hasattr(ratio, "ratio") and hasattr(ratio, "weights"):
        return ValueError(
            "ratio is what importance_weights returned, whose `diagnosis` is this report for its own tables: pass result.ratio."
        )
    return ValueError(
        "ratio must be a fitted density ratio such as KMM().fit(X, y), a function of the source rows, or their weights "
        f"(n_source,); got {shown(ratio)}."
    )


def balance_of(names: Sequence[str], source: Any, target: Any, weights: np.ndarray) -> tuple[ColumnBalance, ...]:
    """The balance of each column of two numeric tables."""
    measures = mean_differences(source, target), mean_differences(source, target, weights), outside_range(source, target)
    return tuple(ColumnBalance(name, *map(float, row)) for name, *row in zip(names, *measures, strict=True))


def _distances(
    source: Any, target: Any, weights: np.ndarray, gamma: Any, n_permutations: int, max_rows: int, rng: np.random.Generator
) -> dict[str, Any]:
    rows = draw_rows(source.shape[0], target.shape[0], max_rows, rng)
    n_source, n_target = len(rows[0]), len(rows[1])
    pooled = standardized(dense_rows(source, rows[0]), dense_rows(target, rows[1]))
    kernel, labels, drawn = kernel_matrix(pooled, gamma, rng), signed_labels(n_source, n_target), weights[rows[0]]
    before, permuted = quadratic_form(kernel, labels), permuted_statistics(kernel, labels, n_permutations, rng)
    # A subsample may miss all rows with positive weight.
    after = quadratic_form(kernel, signed_labels(n_source, n_target, drawn)) if np.max(drawn) > 0.0 else float("nan")
    return {
        "mmd_before": before,
        "mmd_after": after,
        "mmd_chance": float(np.quantile(permuted, _CHANCE)),
        "p_value": permutation_p_value(before, permuted),
        "outside_share": outside_share(pooled[:n_source], pooled[n_source:]),
        "n_rows_tested": n_source + n_target,
    }
