"""The least-squares combination of several ratios, from their values at rows that they did not see."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, ClassVar, NamedTuple

import numpy as np
from joblib import delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from ..._arrays import Array, is_sparse, to_host
from ..._progress import run_all, show_progress
from ..._validation import seed_of
from ...objectives.base import is_number
from ...objectives.lsif import LeastSquares, SquaredDistance
from ...objectives.moments import Moments
from ...solvers import ActiveSet
from ..base import RatioEstimator
from ..samples import Samples, row_counts
from .members import members_for

__all__ = ["StackedRatio"]

_LEAST_PULL = 1e-6  # keeps the coefficients of equal members apart from rounding
_LARGEST = 100.0  # factor from 1, up or down, in likelihoods: a single target row at which a member is 0 would decide


class StackedRatio(RatioEstimator):
    """A combination of ratios with coefficients >= 0, chosen by least squares on rows that the members did not see.

        ratio(x) = sum_k c_k r_k(x),   c minimizes  c'Hc / 2 - h'c + pull / 2 sum_k H_kk (c_k - e_k)^2  over  c >= 0,
        H = mean over the source of r r',  h = mean over the target of r,   r = out-of-fold ratios of the members,
        e = 1 for the likeliest member and 0 for the others.

    Up to a constant this is the squared distance to the true ratio, so the stack is, up to sampling error, no worse than its best
    member, and the coefficients say which methods the data chose.

    Parameters
    ----------
    estimators : "auto", a list of estimators or of (name, estimator), or a dict
        The members, unfitted density ratios. "auto": those of densratio that suit the size of the table, from ten for a few
        thousand rows to four for a million.
    pull : float >= 0
        Strength that draws the coefficients to 1 for the likeliest member and to 0 for the others: with few rows the best
        combination is uncertain. The likeliest has the largest mean log r(target) - log mean r(source) on rows that it did not
        see, where a ratio counts at least 0.01 and at most 100: in the squared distance a few large ratios decide. Members less
        likely than a constant get 0.
    cv : int, scikit-learn splitter or iterable of (train, test)
        Folds, as in `DensityRatio`; every member is fitted on each, and once more on all rows if its coefficient is not 0.
        If a domain has a single distinct row, nothing can be held out, and the coefficients are even.
    random_state : int, RandomState, Generator or None
        Seed of the members of "auto".
    n_jobs : int or None
        joblib processes, one for each member and fold.
    verbose : bool
        Whether to show the progress, as `densratio.show_progress` does.

    Attributes
    ----------
    coefficients_ : dict, the coefficient of each member by name; 0 for members that are left out.
    scores_ : dict, mean r(target) - mean r(source)^2 / 2 of each member and of the "stack" on rows that they did not see.
    estimators_ : dict, the fitted members with a coefficient > 0.
    weights_, normalization_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    Source: van der Laan, Polley & Hubbard (2007), Super learner, for the principle.
    """

    _merges_copies: ClassVar[bool] = False
    _searches_distinct: ClassVar[bool] = False

    def __init__(
        self,
        estimators: Any = "auto",
        *,
        pull: float = 0.05,
        cv: Any = 5,
        random_state: Any = 0,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.estimators = estimators
        self.pull = pull
        self.cv = cv
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # ------------------------------------------------------------ parts

    def _fit(self, samples: Samples) -> Array:
        if not (is_number(self.pull) and 0.0 <= self.pull < float("inf")):
            raise ValueError(f"pull must be a finite number >= 0; got {self.pull!r}.")
        distinct = samples.merged()
        members = self._members(distinct)
        with show_progress(self.verbose):
            return self._combine(members, distinct, samples)

    def _combine(self, members: Mapping[str, RatioEstimator], distinct: Samples, samples: Samples) -> Array:
        if min(distinct.sizes) == 1:
            coef, scores = np.full(len(members), 1.0 / len(members)), np.full(len(members) + 1, np.nan)
        else:
            coef, scores = _combined(self._out_of_fold(members, distinct), max(self.pull, _LEAST_PULL))
        names = list(members)
        self.coefficients_ = dict(zip(names, coef.tolist(), strict=True))
        self.scores_ = dict(zip([*names, "stack"], scores.tolist(), strict=True))
        table = samples.stacked()
        chosen = [name for name in names if self.coefficients_[name] > 0.0]
        tasks = (delayed(_fitted)(members[name], table) for name in chosen)
        fitted = run_all(tasks, len(chosen), "Members of the stack", self.n_jobs)
        self.estimators_ = dict(zip(chosen, fitted, strict=True))
        return self._sum_of(member.weights_ for member in self.estimators_.values())

    def _ratio(self, rows: Array) -> Array:
        return self._sum_of(member.transform(rows) for member in self.estimators_.values())

    def _sum_of(self, ratios: Iterable[Array]) -> np.ndarray:
        """The combination (n,) of the ratios of the members kept, in float64: a coefficient may exceed single precision."""
        coef = (self.coefficients_[name] for name in self.estimators_)
        return sum(c * to_host(ratio).astype(np.float64) for c, ratio in zip(coef, ratios, strict=True))

    def _members(self, samples: Samples) -> dict[str, RatioEstimator]:
        given = self.estimators
        if isinstance(given, str):
            if given != "auto":
                raise ValueError(f'estimators must be "auto" or density ratios; got {given!r}.')
            rows = samples.source
            return members_for(*samples.sizes, rows.shape[1], is_sparse=is_sparse(rows), seed=seed_of(self.random_state))
        pairs = list(given.items()) if isinstance(given, Mapping) else _named(given)
        for name, member in pairs:
            if isinstance(member, type) or not all(hasattr(member, method) for method in ("fit", "transform", "get_params")):
                raise ValueError(f"Member {name!r} must be an unfitted density ratio, such as KMM(); got {member!r}.")
        if not pairs:
            raise ValueError('estimators is empty: give at least one density ratio, or "auto".')
        return dict(pairs)

    def _out_of_fold(self, members: Mapping[str, RatioEstimator], distinct: Samples) -> list[_Held]:
        parts = [distinct.split(fold) for fold in self._folds(distinct)]
        tasks = [(member, kept, held_out) for kept, held_out in parts for member in members.values()]
        columns = run_all((delayed(_values)(*task) for task in tasks), len(tasks), "Members and folds of the stack", self.n_jobs)
        held = []
        for number, (_, held_out) in enumerate(parts):
            of_fold = columns[number * len(members) : (number + 1) * len(members)]
            source, target = (np.stack(side, axis=1) for side in zip(*of_fold, strict=True))
            held.append(_Held(source, target, *row_counts(held_out)))
        return held

    @property
    def _takes_sparse(self) -> bool:  # type: ignore[override]
        if isinstance(self.estimators, str):
            return True
        members = self.estimators.values() if isinstance(self.estimators, Mapping) else [m for _, m in _named(self.estimators)]
        return all(getattr(member, "_takes_sparse", False) for member in members)


class _Held(NamedTuple):
    """Ratios of the K members at the held-out rows of a fold, (n, K) and (m, K), and how often the rows count."""

    source: np.ndarray
    target: np.ndarray
    source_count: np.ndarray
    target_count: np.ndarray

    def sums(self) -> _Sums:
        logs = self.target_count @ np.log(np.clip(self.target, 1.0 / _LARGEST, _LARGEST))
        return _Sums(Moments.of(self.source, self.source_count), Moments.of(self.target, self.target_count), logs)


class _Sums(NamedTuple):
    """What the coefficients depend on: the moments of the members' ratios, and the sums of their logarithms over target rows."""

    source: Moments
    target: Moments
    logs: np.ndarray

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(self.source.plus(other.source), self.target.plus(other.target), self.logs + other.logs)

    @property
    def likelihoods(self) -> np.ndarray:
        """mean log r(target) - log mean r(source) (K,), 0 for a constant. A mean below 1, that of every ratio, is no merit."""
        return self.logs / self.target.count - np.log(np.maximum(self.source.mean, 1.0))

    def taking(self, members: np.ndarray) -> _Sums:
        """The sums of some members."""
        square = np.ix_(members, members)
        source, target = (Moments(part.count, part.total[members], part.outer[square]) for part in (self.source, self.target))
        return _Sums(source, target, self.logs[members])

    def scores(self, coef: np.ndarray) -> np.ndarray:
        """Scores of combinations with the coefficients (K,) or (K, k)."""
        return self.target.mean @ coef - 0.5 * np.sum(coef * (self.source.second @ coef), axis=0)


def _combined(held: Sequence[_Held], pull: float) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients (K,), and the held-out scores of the members and of the stack (K + 1,).

    The stack is scored fold by fold with the coefficients of the other folds.
    """
    folds = [part.sums() for part in held]
    whole = reduce(_Sums.plus, folds)
    others = (_coef(reduce(_Sums.plus, folds[:k] + folds[k + 1 :]), pull) for k in range(len(folds)))
    stack = np.mean([fold.scores(coef) for coef, fold in zip(others, folds, strict=True)])
    return _coef(whole, pull), np.append(whole.scores(np.eye(len(whole.logs))), stack)


def _coef(sums: _Sums, pull: float) -> np.ndarray:
    """The minimizer of c'Hc / 2 - h'c + pull / 2 sum_k H_kk (c_k - e_k)^2 over c >= 0, e the likeliest member alone.

    Members less likely than a constant get 0: their squared distance may rest on a few rows without bound.
    """
    likelihoods = sums.likelihoods
    alone = np.eye(len(likelihoods))[np.argmax(likelihoods)]
    kept = np.flatnonzero((likelihoods > 0.0) | (alone > 0.0))
    coef = np.zeros(len(likelihoods))
    coef[kept] = _least_squares(sums.taking(kept), pull, alone[kept])
    return coef if coef.any() else alone


def _least_squares(sums: _Sums, pull: float, alone: np.ndarray) -> np.ndarray:
    # In units of the members' root mean squares, the solver sees small ones beside large ones.
    size = np.sqrt(np.diag(sums.source.second))
    size[size == 0.0] = 1.0
    problem = LeastSquares.of(SquaredDistance(regularization=pull), *(_divided(part, size) for part in (sums.source, sums.target)))
    return ActiveSet().solve(replace(problem, linear=problem.linear + pull * alone * size)).coef / size


def _divided(moments: Moments, size: np.ndarray) -> Moments:
    return Moments(moments.count, moments.total / size, moments.outer / np.outer(size, size))


def _values(member: RatioEstimator, kept: Samples, held_out: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The ratio of a member fitted to the kept rows, at the held-out source and target rows."""
    fitted = _fitted(member, kept.stacked())
    source, target = (np.asarray(to_host(fitted.transform(rows)), dtype=np.float64) for rows in (held_out.source, held_out.target))
    return source, target


def _fitted(member: RatioEstimator, table: tuple[Any, ...]) -> RatioEstimator:
    with warnings.catch_warnings():
        # A member that stopped early, or has no overlap in a fold, gets the coefficient that it deserves.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        return clone(member).fit(*table)


def _named(estimators: Any) -> list[tuple[str, Any]]:
    pairs = [item if isinstance(item, tuple) else (type(item).__name__.lower(), item) for item in estimators]
    names = [name for name, _ in pairs]
    return [
        (f"{name}_{names[:i].count(name) + 1}" if names.count(name) > 1 else name, member) for i, (name, member) in enumerate(pairs)
    ]
