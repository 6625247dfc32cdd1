"""target_performance: a fitted model's metric on the target, from labeled source rows and unlabeled target rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import beta, t

from .._arrays import to_host
from .._columns import check_none_missing, shown, warn_of_order
from .._progress import show_progress, ticked
from .._sentinels import warn_of_sentinels
from .._validation import check_count, check_number, seed_of, stack_domains
from ..diagnostics.advice import advise_on_overlap
from ..diagnostics.columns import Columns, dense_rows, numeric_columns, rows_at
from ..diagnostics.diagnosis import diagnose
from ..diagnostics.remedies import remedies_for
from ..diagnostics.weights import effective_sample_size
from .row_losses import RowLosses, row_losses
from .shifted_mean import Regressed, can_refit, cross_fitted, refitted, refitted_means, shifted_mean
from .weights import check_ratio, ratio_at, row_weights

__all__ = ["TargetPerformance", "interval_of_share", "interval_within", "target_performance"]

_METHODS = {"dr": "doubly robust", "iw": "weighted"}
_FEW_ROWS = 30.0  # effective rows below which the normal approximation of an interval is rough
_LEAST_ROWS = 2.0  # rows, effective ones of the source, below which there is no spread to estimate it from
_FEW_ERRORS = 3.0  # effective rows of the rarer outcome below which their spread says too little about its share
_DIAGNOSED_ROWS = 1000


@dataclass(frozen=True, repr=False)
class TargetPerformance:
    """Estimate of a metric on the target, with its interval.

    estimate : the metric on the target.
    interval : (low, high) at level `confidence`; the metric's whole range if the data can't say.
    standard_error : of the estimate.
    effective_rows : number of equally weighted source rows that would estimate a mean as precisely.
    source_estimate : the plain metric on the source rows.
    warning : what is wrong, or None. It begins with "Can't say" if a part of the target has no source rows; the estimate is NaN if
        no source row has weight for a chunk.
    metric, method, confidence : as given. chunk : the label of the target rows. n_rows : number of source rows.
    """

    estimate: float
    interval: tuple[float, float]
    standard_error: float
    effective_rows: float
    source_estimate: float
    warning: str | None
    metric: str
    method: str
    confidence: float
    n_rows: int
    chunk: Any = None

    def times(self, factor: float) -> TargetPerformance:
        """The result in other units: the estimates, the interval and the standard error times a factor > 0."""
        low, high = self.interval
        return replace(
            self,
            estimate=self.estimate * factor,
            interval=(low * factor, high * factor),
            standard_error=self.standard_error * factor,
            source_estimate=self.source_estimate * factor,
        )

    def __repr__(self) -> str:
        where = "the target" if self.chunk is None else f"chunk {self.chunk}"
        low, high = self.interval
        lines = [
            f"{self.metric} on {where}: {self.estimate:.4g}, {100.0 * self.confidence:g} % interval {low:.4g} to {high:.4g}",
            f"({_METHODS[self.method]}; {self.n_rows} source rows, {self.source_estimate:.4g} there, count as "
            f"{self.effective_rows:.0f})",
        ]
        return "\n".join(lines if self.warning is None else [*lines, f"Warning: {self.warning}"])


@dataclass(frozen=True)
class _Plan:
    """Settings of the estimate, shared by all chunks."""

    method: str
    confidence: float
    n_bootstrap: int
    regressor: Any
    seed: int


def target_performance(
    model: Any,
    ratio: Any,
    X: Any,
    y: Any,
    X_target: Any,
    *,
    metric: Any,
    method: str = "dr",
    confidence: float = 0.95,
    chunks: Any = None,
    n_bootstrap: int = 30,
    regressor: Any = None,
    random_state: Any = 0,
    verbose: bool = False,
) -> TargetPerformance | list[TargetPerformance]:
    """Estimate a fitted model's metric on target rows without labels, with a confidence interval.

        "iw":  sum_i w_i l_i / sum_i w_i              w_i = ratio(x_i), l_i the loss of source row i
        "dr":  mean_target m(x) + sum_i w_i (l_i - m(x_i)) / sum_i w_i

    m is a regression of the loss on x, cross-fitted in five folds. The doubly robust estimate ("dr") is right if the ratio or m is
    right, and its error is the product of their errors; the importance-weighted estimate ("iw") has the whole error of the ratio.

    The standard error is the larger of two: that of the influence function, for a known ratio, and that over n_bootstrap samples of
    both X and X_target, with the ratio refitted on each with the parameters that its search chose. The second needs n_bootstrap
    fits; it is left out for n_bootstrap=0 and for a ratio that is a function. The interval is the estimate plus and minus a
    quantile of Student's t with effective_rows - 1 degrees of freedom, within the metric's range. If hardly any row is wrong, or
    hardly any is right, it also contains the exact interval of that share among effective_rows.

    Parameters
    ----------
    model : fitted estimator.
    ratio : fitted density ratio, a Pipeline that ends in one, or a function from rows (n, d) to ratios (n,)
    X : (n, d) source rows, y : (n,) their labels
        The model must not be trained on these rows. Text and dates are encoded for m and the diagnosis, not for the model.
    X_target : (m, d) target rows, with the columns of X
    metric : name or function
        A metric of sklearn.metrics that is a mean over rows ("accuracy", "zero_one_loss", "log_loss", "brier",
        "mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error", ...), a scorer's name ("neg_..." is
        negated), "roc_auc" (by its influence function), or a function (y_true, y_pred) -> values (n,).
    method : "dr" (default) or "iw"
    confidence : level of the interval, between 0 and 1
    chunks : None, number of chunks of consecutive rows, or labels (m,) of the target rows, such as their month
        With chunks the result is a list with an estimate for each chunk, in the order of the labels. The ratio is refitted for
        each chunk, so it must be an estimator. `densratio.plotting.PerformanceDisplay` draws the list.
    n_bootstrap : number of refits of the ratio, 0 for none
    regressor : scikit-learn regressor for m; by default histogram-based gradient boosting
    random_state : int or Generator, for the folds of m and the bootstrap
    verbose : whether to show the progress, as `densratio.show_progress` does

    Raises ValueError for a metric that is not a mean over rows, a model without the predictions that the metric needs, samples with
    different columns, and, without chunks, a ratio that is 0 at every source row, or for AUC at every row of a class. Sources:
    Shimodaira (2000), J. Stat. Plan. Inference 90; Robins, Rotnitzky & Zhao (1994), JASA 89.
    """
    if method not in _METHODS:
        raise ValueError(f'method must be "dr" (doubly robust) or "iw" (importance-weighted); got {method!r}.')
    check_number("confidence", confidence, "(0, 1)", ", such as 0.95")
    n_refits = check_count("n_bootstrap", n_bootstrap, 0)
    plan = _Plan(method, float(confidence), n_refits, regressor, seed_of(random_state))
    if regressor is not None and (isinstance(regressor, type) or not hasattr(regressor, "get_params")):
        raise ValueError(f"regressor must be an unfitted scikit-learn regressor, such as Ridge(), or None; got {shown(regressor)}.")
    check_ratio(ratio)
    stacked, domain = stack_domains(X, X_target)
    of_domain = [np.flatnonzero(np.asarray(to_host(domain)) == k) for k in (0, 1)]
    # Now the columns of a target frame are in the order of the source's.
    source, target = (rows_at(stacked, rows) for rows in of_domain)
    n, m = map(len, of_domain)
    if len(y) != n or n < 2:
        raise ValueError(f"X and y must have the same number of rows, at least 2; X has {n} and y has {len(y)}.")
    warn_of_order(X, y, ("X", "y"), 2)
    warn_of_sentinels({"X": X, "X_target": X_target}, 2)
    losses = row_losses(metric, model, source, y)
    # Sums of the squares of tiny or huge losses would vanish or overflow.
    unit = losses.unit(n)
    losses = losses.in_units(unit)
    if chunks is not None and not can_refit(ratio):
        raise ValueError("Every chunk has a ratio of its own, so with chunks the ratio must be an estimator, and not a function.")
    if chunks is None and can_refit(ratio):
        # No refit would take target rows that the ratio does not take, and the interval would be too short.
        _check_target(ratio, target)
    with show_progress(verbose):
        if chunks is None:
            return _estimate(plan, losses, ratio, source, target).times(unit)
        parts = _chunks(chunks, m)
        # Unless the losses depend on the weights, and so on the chunk, one regression serves all chunks.
        shared = _regressed(plan, losses, np.ones(n), _samples(source, target)) if losses.kinds is None else None
        found = (
            _of_chunk(plan, losses, ratio, source, rows_at(target, rows), label, None if shared is None else shared.at(rows))
            for label, rows in parts
        )
        return [one.times(unit) for one in ticked(found, len(parts), "Chunks")]


def _check_target(ratio: Any, target: Any) -> None:
    try:
        ratio_at(ratio, target)
    except ValueError as error:
        raise ValueError(f"{error} Here X is X_target.") from error


def _of_chunk(
    plan: _Plan, losses: RowLosses, ratio: Any, source: Any, target: Any, label: Any, regressed: Regressed | None
) -> TargetPerformance:
    own = refitted(ratio, *stack_domains(source, target), plan.seed)
    raw = ratio_at(own, source)
    # An error here would lose the estimates of the other chunks.
    if why := _why_untold(losses, raw):
        return replace(_untold(plan, losses, len(raw), why), chunk=label)
    return replace(_estimate(plan, losses, own, source, target, regressed), chunk=label)


def _chunks(chunks: Any, n_rows: int) -> list[tuple[Any, np.ndarray]]:
    """Labels of the chunks, and the rows (k,) of each."""
    if isinstance(chunks, int | np.integer) and not isinstance(chunks, bool):
        if not 1 <= chunks <= n_rows:
            raise ValueError(f"chunks must be from 1 to the number of target rows, {n_rows}; got {chunks}.")
        return list(enumerate(np.array_split(np.arange(n_rows), chunks)))
    labels = np.asarray(to_host(chunks))
    if labels.shape != (n_rows,):
        column = f": pass the column itself, X_target[{chunks!r}]" if isinstance(chunks, str) else ""
        got = f"shape {labels.shape}" if labels.ndim else f"{shown(chunks)}{column}"
        raise ValueError(f"chunks must be an int or a label for each target row, shape ({n_rows},); got {got}.")
    check_none_missing(labels, "chunks", row="target row")
    try:
        names, codes = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise ValueError("chunks mix texts and numbers: make all labels texts, [str(label) for label in chunks].") from error
    return [(name, np.flatnonzero(codes == k)) for k, name in enumerate(names.tolist())]


class _Samples(NamedTuple):
    """Source and target rows: as given, the domain of each (0 or 1), and as named numbers, NaN for missing values."""

    stacked: Any
    domain: np.ndarray
    names: tuple[str, ...]
    table: np.ndarray


def _samples(source: Any, target: Any) -> _Samples:
    stacked, domain = stack_domains(source, target)
    names, values = numeric_columns(stacked, is_lenient=True)
    return _Samples(stacked, np.asarray(to_host(domain)), names, dense_rows(values, np.arange(values.shape[0])))


def _estimate(
    plan: _Plan, losses: RowLosses, ratio: Any, source: Any, target: Any, regressed: Regressed | None = None
) -> TargetPerformance:
    samples, weights = _samples(source, target), row_weights(ratio, source)
    regressed = _regressed(plan, losses, weights, samples) if regressed is None else regressed
    mean, known_error = shifted_mean(losses.values(weights), weights, regressed)
    refits = _refits(plan, losses, ratio, samples, regressed)
    error = max(known_error, float(np.std(refits, ddof=1)) if len(refits) > 1 else 0.0)
    effective = effective_sample_size(weights)
    warning, is_blind = _warning(ratio, weights, samples, effective)
    if can_refit(ratio) and (n_lost := plan.n_bootstrap - len(refits)):
        lost = f"{n_lost} of {plan.n_bootstrap} draws of the bootstrap have no ratio, or none at a class, and are left out."
        warning = lost if warning is None else f"{warning} {lost}"
    half = error * t.ppf(0.5 + 0.5 * plan.confidence, max(effective - 1.0, 1.0))
    return TargetPerformance(
        estimate=float(np.clip(mean, *losses.bounds)),
        interval=losses.bounds if is_blind else _interval(plan.confidence, losses, weights, mean, half),
        standard_error=error,
        effective_rows=effective,
        source_estimate=float(np.mean(losses.values(np.ones(len(weights))))),
        warning=warning,
        metric=losses.name,
        method=plan.method,
        confidence=plan.confidence,
        n_rows=len(weights),
    )


def _why_untold(losses: RowLosses, weights: np.ndarray) -> str | None:
    """Why the metric has no value under weights (n,) of the source rows, or None if it has one."""
    if not weights.any():
        return "the ratio is 0 at every source row: none of them is like a target row."
    if absent := losses.without_weight(weights):
        return (
            f"{losses.name!r} compares two classes, and the ratio is 0 at every source row of class {absent[0]!r}: none of them is "
            "like a target row. metric='accuracy' and 'log_loss' need no second class."
        )
    return None


def _untold(plan: _Plan, losses: RowLosses, n_rows: int, why: str) -> TargetPerformance:
    """The result if no source row has weight: no estimate, and an interval of all values."""
    return TargetPerformance(
        estimate=float("nan"),
        interval=losses.bounds,
        standard_error=float("nan"),
        effective_rows=0.0,
        source_estimate=float(np.mean(losses.values(np.ones(n_rows)))),
        warning=f"Can't say: {why}",
        metric=losses.name,
        method=plan.method,
        confidence=plan.confidence,
        n_rows=n_rows,
    )


def _regressed(plan: _Plan, losses: RowLosses, weights: np.ndarray, samples: _Samples) -> Regressed:
    if why := _why_untold(losses, weights):
        raise ValueError(f"Can't say: {why}")
    values = losses.values(weights)
    source, target = (samples.table[samples.domain == k] for k in (0, 1))
    if plan.method == "iw":
        return Regressed(np.zeros(len(source)), np.zeros(len(target)))
    return cross_fitted(plan.regressor, values, source, target, plan.seed)


def _interval(confidence: float, losses: RowLosses, weights: np.ndarray, mean: float, half: float) -> tuple[float, float]:
    """The interval of a mean, widened by that of a share if each row is right or wrong and one of the two is rare."""
    low, high = interval_within(mean, half, losses.bounds)
    least, most = losses.bounds
    is_share = np.isfinite(losses.bounds).all() and np.isin(losses.values(weights)[weights > 0.0], losses.bounds).all()
    if not is_share:
        return low, high
    kinds = np.zeros(len(weights)) if losses.kinds is None else losses.kinds
    n_rows = min(effective_sample_size(weights[kinds == kind]) for kind in np.unique(kinds))
    share = (float(np.clip(mean, least, most)) - least) / (most - least)
    # Equal losses have no spread, and 40 rows often have no wrong one if 3 % are wrong.
    if n_rows * min(share, 1.0 - share) >= _FEW_ERRORS:
        return low, high
    ends = [least + (most - least) * end for end in interval_of_share(share, n_rows, confidence)]
    return min(low, ends[0]), max(high, ends[1])


def interval_of_share(share: float, n_rows: float, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share among n_rows, whole or not: 0 ... 1 - (alpha / 2)^(1 / n_rows) for a share of 0."""
    tail = 0.5 - 0.5 * confidence
    one, other = n_rows * share, n_rows * (1.0 - share)
    low = float(beta.ppf(tail, one, other + 1.0)) if one > 0.0 else 0.0
    return low, float(beta.ppf(1.0 - tail, one + 1.0, other)) if other > 0.0 else 1.0


def interval_within(mean: float, half: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """(low, high) around a mean, symmetric in log(mean - bound), or in the log odds between two bounds, and within them.

    A loss >= 0 has a long upper tail: an interval that is symmetric in the loss itself would be too short on that side.
    """
    low, high = bounds
    below, above = mean - low, high - mean
    is_free = np.isinf(below) and np.isinf(above)
    if is_free or half == 0.0 or not (below > 0.0 and above > 0.0):
        return float(np.clip(mean - half, low, high)), float(np.clip(mean + half, low, high))
    # The slope of log(below) - log(above); an infinite distance does not move.
    step = half * (1.0 / below + 1.0 / above)
    if np.isfinite(below) and np.isfinite(above):
        odds = np.log(below / above)
        return low + (high - low) * float(expit(odds - step)), low + (high - low) * float(expit(odds + step))
    with np.errstate(over="ignore"):
        factor = float(np.exp(step))
    return (high - above * factor, high - above / factor) if np.isinf(below) else (low + below / factor, low + below * factor)


def _refits(plan: _Plan, losses: RowLosses, ratio: Any, samples: _Samples, regressed: Regressed) -> list[float]:
    """Estimates from drawn samples with the ratio refitted on each; none for a ratio that is a function."""
    if not can_refit(ratio):
        return []
    source, target = (np.flatnonzero(samples.domain == k) for k in (0, 1))
    X = rows_at(samples.stacked, source)

    def weights_of(drawn: np.ndarray, drawn_target: np.ndarray) -> np.ndarray:
        rows = np.concatenate([source[drawn], target[drawn_target]])
        return ratio_at(refitted(ratio, rows_at(samples.stacked, rows), samples.domain[rows], plan.seed), X)

    rng = np.random.default_rng(plan.seed)
    found = refitted_means(losses, regressed, weights_of, plan.n_bootstrap, rng)
    return list(ticked(found, plan.n_bootstrap, "Refits of the ratio"))


def _warning(ratio: Any, weights: np.ndarray, samples: _Samples, effective: float) -> tuple[str | None, bool]:
    """What is wrong with the estimate, or None; and whether the data say nothing about the target."""
    filled = numeric_columns(Columns(samples.names, samples.table), has_gaps=True)
    report = diagnose(weights, filled, samples.domain, n_permutations=1, max_rows=_DIAGNOSED_ROWS)
    outside, doubts = advise_on_overlap(report, remedies_for(ratio))
    if outside is not None:
        return f"Can't say: {outside[0].lower()}{outside[1:]}", True
    if np.sum(samples.domain) < _LEAST_ROWS:
        return "Can't say: one target row does not tell how much rows of the target differ.", True
    if effective < _LEAST_ROWS:
        return f"Can't say: the {len(weights)} source rows count as {effective:.1f} on the target.", True
    if effective < _FEW_ROWS and not doubts:
        doubts = (f"The source rows count as {effective:.0f}: the interval is rough. More labeled rows near the target help.",)
    return " ".join(doubts) or None, False
