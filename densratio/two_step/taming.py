"""tame_weights: make extreme weights less extreme, with a bound on the bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import exprel

from .._columns import library_of, shown
from .._names import did_you_mean
from ..diagnostics.weights import effective_sample_size, pareto_k, pareto_tail, weight_shares

__all__ = ["TAMINGS", "TamedWeights", "tame_weights", "tamed_by"]

TAMINGS = ("pareto", "truncate", "flatten", "overlap")
"""The methods of `tame_weights`."""


@dataclass(frozen=True, eq=False, repr=False)
class TamedWeights:
    """Tamed weights, and the effect on variance and bias.

    weights : (n,) of mean 1; a pandas Series with the same index if one was given.
    method, amount : the method and its strength; the amount of "pareto" is None.
    effective_rows, largest, pareto_k : (before, after): Kish's effective sample size, which measures the variance due to the
        weights; the largest weight, for a mean of 1; the shape of the tail.
    moved : share of the total weight that taming moved from some rows to others. It bounds the bias: a weighted mean of values
        from a to b changes by at most moved * (b - a).
    """

    weights: Any
    method: str
    amount: float | None
    effective_rows: tuple[float, float]
    largest: tuple[float, float]
    pareto_k: tuple[float, float]
    moved: float

    def __repr__(self) -> str:
        amount = "" if self.amount is None else f", amount={self.amount:.4g}"
        shapes = (f"{k:.2f}" if np.isfinite(k) else "n/a" for k in self.pareto_k)
        return "\n".join(
            [
                f"{len(self.weights)} weights tamed by {self.method!r}{amount}",
                "  before -> after",
                "  {:.1f} -> {:.1f} effective rows".format(*self.effective_rows),
                "  {:.4g} -> {:.4g} largest weight".format(*self.largest),
                "  {} -> {} Pareto k-hat".format(*shapes),
                f"  {100.0 * self.moved:.3g} % of the weight moved to other rows",
            ]
        )


def tame_weights(
    weights: Any, method: str = "pareto", *, amount: float | None = None, effective_rows: float | None = None
) -> TamedWeights:
    """Replace weights w of mean 1 by less extreme ones, and report the effect on bias and variance.

        "pareto"    expected order statistics of the generalized Pareto distribution that is fitted to the tail
        "truncate"  min(w, amount)                          amount > 0; by default sqrt(n)
        "flatten"   w^amount                                amount from 0 (equal) to 1 (w itself); by default 0.5
        "overlap"   w / (amount w + 1 - amount)             amount from 0 (w itself) to 1 (equal); by default 0.5

    The result is scaled to mean 1. Weights of 0 stay 0, and equal weights stay equal. "pareto" keeps most of the information in the
    tail and has no parameter; its tail is that of `pareto_k`, and before the scaling no weight exceeds the largest given one.
    "overlap" is the relative density ratio: weights for the population with the density p_source p_target /
    (amount p_target + (1 - amount) p_source), where both samples have rows. There a target row counts 1 / (amount w + 1 - amount).

    weights (n,): >= 0, of any scale.
    effective_rows: in place of amount, finds by bisection the least taming that reaches this effective sample size. Weights that
    already have it are not changed.

    Raises ValueError for an amount or effective_rows out of range, and for "pareto" with either. Sources: Vehtari, Simpson,
    Gelman, Yao & Gabry (2024), JMLR 25(72), for smoothing; Ionides (2008), J. Comput. Graph. Stat. 17, for truncation; Shimodaira
    (2000), J. Stat. Plan. Inference 90, for flattening; Li, Morgan & Zaslavsky (2018), JASA 113, for overlap weights.
    """
    if method not in TAMINGS:
        raise ValueError(f"method must be one of {list(TAMINGS)}; got {shown(method)}.{did_you_mean(method, TAMINGS)}")
    shares = weight_shares(weights)
    before = shares * len(shares)
    if method != "pareto":
        amount = _amount(method, before, amount, effective_rows)
        after = _FAMILIES[method].tame(before, amount)
    elif amount is None and effective_rows is None:
        after = _smoothed(before)
    else:
        choices = ", ".join(map(repr, _FAMILIES))
        raise ValueError(f'"pareto" has nothing to choose: leave out amount and effective_rows, or take a method of {choices}.')
    after = after / np.mean(after)
    is_series = library_of(weights) == "pandas"
    return TamedWeights(
        type(weights)(after, index=weights.index, name=weights.name) if is_series else after,
        method,
        amount,
        effective_rows=(effective_sample_size(before), effective_sample_size(after)),
        largest=(float(np.max(before)), float(np.max(after))),
        pareto_k=(pareto_k(before), pareto_k(after)),
        # Weight moved by rounding alone counts as none.
        moved=0.0 if np.allclose(after, before, rtol=1e-12, atol=0.0) else float(0.5 * np.mean(np.abs(after - before))),
    )


def tamed_by(tame: Any, weights: np.ndarray) -> TamedWeights:
    """Weights tamed by the name of a method, or by a function of weights (n,) such as a partial `tame_weights`."""
    if isinstance(tame, str):
        return tame_weights(weights, tame)
    done = tame(weights) if callable(tame) else None
    if not isinstance(done, TamedWeights):
        raise ValueError(
            f"tame must be a method of tame_weights, such as 'pareto', or a function such as "
            f"functools.partial(tame_weights, method='truncate', amount=10); got {shown(tame)}."
        )
    return done


# ---------------------------------------------------------------- one amount


class _Family(NamedTuple):
    """A method with an amount: the function, the least and the largest amount, the default for n rows, and the two amounts that
    leave weights unchanged and make them equal."""

    tame: Callable[[np.ndarray, float], np.ndarray]
    bounds: tuple[float, float]
    default: Callable[[int], float]
    ends: Callable[[np.ndarray], tuple[float, float]]


def _flattened(weights: np.ndarray, power: float) -> np.ndarray:
    return np.where(weights > 0.0, (weights / np.max(weights)) ** power, 0.0)


def _overlapping(weights: np.ndarray, share: float) -> np.ndarray:
    # At a share of 1 a weight of 0 is 0 / 0, and the limit is 0.
    return np.divide(weights, share * weights + 1.0 - share, out=np.zeros_like(weights), where=weights > 0.0)


_FAMILIES = {
    "truncate": _Family(np.minimum, (0.0, np.inf), lambda n: float(np.sqrt(n)), lambda w: (w.max(), w[w > 0.0].min())),
    "flatten": _Family(_flattened, (0.0, 1.0), lambda n: 0.5, lambda w: (1.0, 0.0)),
    "overlap": _Family(_overlapping, (0.0, 1.0), lambda n: 0.5, lambda w: (0.0, 1.0)),
}


def _amount(method: str, weights: np.ndarray, amount: float | None, effective_rows: float | None) -> float:
    """The given amount, the one that reaches `effective_rows`, or the default. Raises ValueError if it is out of range."""
    _, (low, high), default, _ = _FAMILIES[method]
    if amount is not None and effective_rows is not None:
        raise ValueError("Give amount or effective_rows, not both: effective_rows chooses the amount.")
    if effective_rows is not None:
        return _reaching(method, weights, effective_rows)
    if amount is None:
        return default(len(weights))
    is_number = isinstance(amount, Real) and not isinstance(amount, bool)
    if not (is_number and low <= amount <= high and (amount > 0.0 or method != "truncate")):
        words = "a number > 0, the largest weight where the mean is 1" if method == "truncate" else "a number from 0 to 1"
        raise ValueError(f"amount of {method!r} must be {words}; got {shown(amount)}.")
    return float(amount)


def _reaching(method: str, weights: np.ndarray, effective_rows: float) -> float:
    """The amount at which the weights have this effective sample size, which grows from `mild` to `strong`."""
    n_positive = int(np.count_nonzero(weights))
    if not (isinstance(effective_rows, Real) and 0.0 < effective_rows <= n_positive):
        raise ValueError(
            f"effective_rows must be a number > 0 and at most the number of positive weights, {n_positive}; got "
            f"{shown(effective_rows)}."
        )
    mild, strong = map(float, _FAMILIES[method].ends(weights))

    def lacking(amount: float) -> float:
        return effective_sample_size(_FAMILIES[method].tame(weights, amount)) / effective_rows - 1.0

    if lacking(mild) >= 0.0:
        return mild
    # For equal weights the two differ by rounding.
    if lacking(strong) <= 0.0:
        return strong
    return float(brentq(lacking, mild, strong, xtol=1e-15, rtol=1e-14))


# ---------------------------------------------------------------- smoothing


def _smoothed(weights: np.ndarray) -> np.ndarray:
    """The weights with the quantiles (z - 1/2) / k of the fitted tail in place of its k order statistics, equal ones averaged."""
    tail = pareto_tail(weights)
    if tail is None:
        return weights
    rows, k = tail.rows, len(tail.rows)
    exponential = -np.log1p(-(np.arange(k) + 0.5) / k)
    expected = tail.threshold + tail.scale * exponential * exprel(tail.shape * exponential)
    expected = np.minimum(expected, weights[rows[-1]])
    # Rows have no order: equal weights stay equal.
    _, group = np.unique(weights[rows], return_inverse=True)
    smoothed = weights.copy()
    smoothed[rows] = (np.bincount(group, expected) / np.bincount(group))[group]
    return smoothed
