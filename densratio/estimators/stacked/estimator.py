"""A combination of several ratios by maximum likelihood, from their values at rows that they did not see."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from joblib import delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from ..._arrays import Array, is_sparse, to_host
from ..._progress import run_all, show_progress
from ..._validation import check_number, seed_of
from ..base import RatioEstimator
from ..gaussian import GaussianRatio
from ..samples import Samples, row_counts
from ..search import ParameterSearch, folds_by
from .combination import Held, combined
from .members import members_for

__all__ = ["StackedRatio"]

_ROWS_PER_PARAMETER = 20  # rows of each domain per parameter, from which a model of a fixed form is well determined


class StackedRatio(RatioEstimator):
    """A combination of ratios with coefficients >= 0, chosen by maximum likelihood on rows that the members did not see.

        ratio(x) = pull r_l(x) / b_l + (1 - pull) sum_k c_k r_k(x) / b_k,
        c maximizes  sum_j log sum_k c_k r_k(v_j) / b_k - 2 sum_{k: c_k > 0} log c_k  over  c >= 0,  sum_k c_k = 1,

    r = out-of-fold ratios of the members, b_k = mean of r_k over the source or 1 if that is more, v = target rows, l = the single
    member with the highest likelihood. So target rows are a mixture of the samples that the members expect, as in KLIEP, whose
    kernels are members here. Expectation maximization finds the proportions c from equal ones: a member that accounts for fewer
    than two target rows drops out, and so do members less likely than a constant.
    If `GaussianRatio` is a member and each domain has at least 20 rows per parameter, it is the stack unless another member has a
    likelihood higher by more than the standard error of the difference: small differences on held-out rows are mostly noise, and a
    model with few parameters is the most accurate if it fits.

    Parameters
    ----------
    estimators : "auto", a list of estimators or of (name, estimator), or a dict
        The members, unfitted density ratios. "auto": those of densratio that suit the size of the table, from eight or nine for
        a few thousand rows to four for a million.
    pull : float from 0 to 1
        The share that the member with the highest likelihood gets beforehand: 0 is the mixture, 1 that member alone.
    cv : int, scikit-learn splitter or iterable of (train, test)
        Folds, as in `DensityRatio`; every member is fitted on each, and once more on all rows if its coefficient is not 0.
        If a domain has a single distinct row, nothing can be held out, and the coefficients are equal.
    random_state : int, RandomState, Generator or None
        Seed of the members of "auto"; None draws another in each fit.
    n_jobs : int or None
        joblib processes, one for each member and fold.
    verbose : bool
        Whether to show the progress, as `densratio.show_progress` does.

    Attributes
    ----------
    coefficients_ : dict, the factor of each member's ratio by name; 0 for members that are left out.
    scores_ : dict, mean r(target) - mean r(source)^2 / 2 of each member and of the "stack" on rows that they did not see.
    estimators_ : dict, the fitted members with a coefficient > 0.
    weights_, normalization_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    A likelihood is mean log r(target) / b, where a ratio counts at least 0.01 and at most 100.
    Source: van der Laan, Polley & Hubbard (2007), Super learner, for the principle; Figueiredo & Jain (2002), Unsupervised learning
    of finite mixture models, for the members that drop out.
    """

    _search: ClassVar[ParameterSearch] = ParameterSearch({})
    _has_units: ClassVar[bool] = False  # its members say whether they have

    def __init__(
        self,
        estimators: Any = "auto",
        *,
        pull: float = 0.5,
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
        check_number("pull", self.pull, "[0, 1]")
        members = self._members(samples)
        with show_progress(self.verbose):
            return self._combine(members, samples)

    def _combine(self, members: Mapping[str, RatioEstimator], distinct: Samples) -> Array:
        if min(distinct.sizes) == 1:
            coef, scores = np.full(len(members), 1.0 / len(members)), np.full(len(members) + 1, np.nan)
        else:
            enough = min(distinct.sizes) >= _ROWS_PER_PARAMETER * _gaussian_parameters(distinct.source.shape[1])
            is_simple = np.array([enough and isinstance(member, GaussianRatio) for member in members.values()])
            coef, scores = combined(self._out_of_fold(members, distinct), self.pull, is_simple)
        names = list(members)
        self.coefficients_ = dict(zip(names, coef.tolist(), strict=True))
        self.scores_ = dict(zip([*names, "stack"], scores.tolist(), strict=True))
        # Distinct rows, as in the folds, because boosting counts the rows of a leaf regardless of their weights.
        table = distinct.stacked()
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

    def _out_of_fold(self, members: Mapping[str, RatioEstimator], distinct: Samples) -> list[Held]:
        parts = [distinct.split(fold) for fold in folds_by(self.cv, distinct)]
        tasks = [(member, kept, held_out) for kept, held_out in parts for member in members.values()]
        columns = run_all((delayed(_values)(*task) for task in tasks), len(tasks), "Members and folds of the stack", self.n_jobs)
        held = []
        for number, (_, held_out) in enumerate(parts):
            of_fold = columns[number * len(members) : (number + 1) * len(members)]
            source, target = (np.stack(side, axis=1) for side in zip(*of_fold, strict=True))
            held.append(Held(source, target, *row_counts(held_out)))
        return held

    @property
    def _takes_sparse(self) -> bool:  # type: ignore[override]
        if isinstance(self.estimators, str):
            return True
        members = self.estimators.values() if isinstance(self.estimators, Mapping) else [m for _, m in _named(self.estimators)]
        return all(getattr(member, "_takes_sparse", False) for member in members)


def _gaussian_parameters(n_columns: int) -> int:
    """Number of parameters of two Gaussians: two means and two symmetric covariance matrices."""
    return n_columns * (n_columns + 3)


def _values(member: RatioEstimator, kept: Samples, held_out: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The ratio of a member fitted to the kept rows, at the held-out source and target rows."""
    fitted = _fitted(member, kept.stacked())
    source, target = (np.asarray(to_host(fitted.transform(rows)), dtype=np.float64) for rows in (held_out.source, held_out.target))
    return source, target


def _fitted(member: RatioEstimator, table: tuple[Any, ...]) -> RatioEstimator:
    with warnings.catch_warnings():
        # The coefficient of a member takes account of an early stop, or of a fold without overlap.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        return clone(member).fit(*table)


def _named(estimators: Any) -> list[tuple[str, Any]]:
    pairs = [item if isinstance(item, tuple) else (type(item).__name__.lower(), item) for item in estimators]
    names = [name for name, _ in pairs]
    return [
        (f"{name}_{names[:i].count(name) + 1}" if names.count(name) > 1 else name, member) for i, (name, member) in enumerate(pairs)
    ]
