"""learn_weights: probabilities of drawing each row, so that models trained on draws do well on other rows or in all groups."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.utils import _safe_indexing, check_consistent_length

from .._arrays import is_sparse, to_host
from .._columns import check_container, check_none_missing, shown
from .._names import did_you_mean
from .._progress import ticked
from .._validation import check_count, check_number, seed_of
from ..projections import box_sum_range
from .row_losses import class_probabilities, row_losses

__all__ = ["RISKS", "LearnedWeights", "learn_weights"]

_MOST_DRAWS = 100  # draws in a row that may lack a class


def _group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.bincount(groups, values) / np.bincount(groups)


RISKS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mean": lambda losses, groups: float(np.mean(losses)),
    "worst": lambda losses, groups: float(np.max(_group_means(losses, groups))),
    "rex": lambda losses, groups: float(np.var(_group_means(losses, groups))),
    "irm": lambda slopes, groups: float(np.mean(_group_means(slopes, groups) ** 2)),
}
"""The outer risk by name, from the losses (n,) of rows, or their slopes for "irm", and the group of each row (n,), 0, 1, ..."""


@dataclass(frozen=True, eq=False)
class LearnedWeights:
    """What `learn_weights` returns.

    probabilities : (n,) in [0, 1], whose sum is at most share * n; a row at 0 is not needed.
    risks : (n_steps,) mean outer risk of the models of each step.
    """

    probabilities: np.ndarray
    risks: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """The probabilities over their mean (n,): the sample_weight of a last training."""
        return self.probabilities / np.mean(self.probabilities)

    def __repr__(self) -> str:
        first, last = self.risks[0], self.risks[-1]
        kept = np.mean(self.probabilities > 0)
        return (
            f"LearnedWeights of {len(self.probabilities)} rows, {100.0 * kept:.0f} % above 0; outer risk {first:.4g} -> {last:.4g}"
        )


def learn_weights(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    X_val: Any = None,
    y_val: Any = None,
    groups: Any = None,
    risk: str = "mean",
    metric: Any = "auto",
    share: float = 0.3,
    n_steps: int = 200,
    n_draws: int = 5,
    step_size: float = 0.1,
    random_state: Any = 0,
) -> LearnedWeights:
    """Weights of training rows, from trainings on random subsets of them and the outer risk of each trained model.

        minimize  E R(model trained on the rows with m_i = 1),   m_i = 1 with probability s_i,   0 <= s <= 1,   sum_i s_i <= share n

    Each step draws `n_draws` subsets, trains a clone on each, and moves s against the covariance of R and m_i over the draws, in
    units of the deviation of R; then it projects s onto the set. The covariance is an unbiased estimate of s_i (1 - s_i) dR/ds_i,
    the policy gradient with the mean of the other draws as baseline, times the factor that makes it a natural gradient: by that it
    stays bounded as s_i approaches 0 or 1. It asks nothing of the model but fit and predictions, and takes n_steps * n_draws
    trainings. With fewer of them than rows the order of single rows is mostly noise, and groups of like rows are still told apart.
    A draw that lacks a class is drawn anew.

    Parameters
    ----------
    estimator : a classifier or regressor, a Pipeline included; cloned, not fitted itself
    X, y : training rows (n, d) and (n,)
    X_val, y_val : rows of the distribution that counts, or None for the training rows themselves
    groups : (n_val,), or (n,) without X_val: the environment of each row that the risk is taken on, at least two of them
    risk : a name in `RISKS`
        "mean": mean loss of the validation rows. "worst": largest mean loss of a group. "rex": variance of the groups' mean losses.
        "irm": mean over groups of d/dt (mean loss of t times the prediction) squared, at t = 1, with log loss, whose logits are
        multiplied, or squared error.
    metric : "auto", or a name or function as for `target_performance`, a loss, whose mean is taken over rows
        "auto": "log_loss" of classifiers, "mean_squared_error" of regressors. Scores, as "accuracy", are negated. "roc_auc", which
        compares rows with each other, is for risk="mean" alone.
    share : float in (0, 1), bound on the mean of s, which is also its start
    n_steps, n_draws : int, >= 1 and >= 2
    step_size : float > 0
    random_state : int, RandomState, Generator or None

    Raises ValueError for a risk without the rows or groups it needs, for rows without a label or group, and for draws that keep
    lacking a class.
    Source: Zhou et al. (2022), Model agnostic sample reweighting for out-of-distribution learning (MAPLE), Algorithm 1 with a
    policy gradient, for models without a gradient, in place of that through the last step of the training.
    """
    check_number("share", share, "(0, 1)", ", the share of the rows that a training is given")
    check_number("step_size", step_size, "(0, inf)")
    check_count("n_steps", n_steps)
    check_count("n_draws", n_draws, 2, more=", as each draw is compared with the others")
    train = _Rows.of(X, y, "y")
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val belong together: give both, or neither.")
    outer = _Outer.of(train if X_val is None else _Rows.of(X_val, y_val, "y_val"), groups, risk, metric, X_val is not None)
    rng, n = np.random.default_rng(seed_of(random_state)), len(train.y)
    classes = np.unique(train.y, return_inverse=True)[1] if is_classifier(estimator) and train.y.ndim == 1 else None
    s, means = np.full(n, float(share)), []
    with warnings.catch_warnings(record=True) as caught:
        # After the filters in force, so that what they hide or raise stays hidden or raised.
        warnings.simplefilter("always", append=True)
        for _ in ticked(range(n_steps), n_steps, "learn_weights"):
            draws = np.array([_drawn(s, classes, rng) for _ in range(n_draws)])
            risks = np.array([outer.risk_of(train.fitted(estimator, is_drawn)) for is_drawn in draws])
            s = _stepped(s, risks, draws, step_size, share * n)
            means.append(float(np.mean(risks)))
    _warn_once(caught, n_steps * n_draws)
    return LearnedWeights(s, np.array(means))


def _warn_once(caught: Sequence[warnings.WarningMessage], n_fits: int) -> None:
    """Give the first warning from each line of code that warned, with its number among n_fits trainings: not a thousand times."""
    count = Counter((warning.category, warning.filename, warning.lineno) for warning in caught)
    first = {(warning.category, warning.filename, warning.lineno): warning for warning in reversed(caught)}
    for place, n in count.items():
        others = f"\n(the first of {n} such warnings in {n_fits} trainings)" if n > 1 else ""
        warnings.warn(f"{first[place].message}{others}", place[0], stacklevel=3)


def policy_gradient(risks: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """s_i (1 - s_i) dE(R)/ds_i (n,), estimated without bias by the covariance of the risks (b,) and the draws (b, n)."""
    return (risks - np.mean(risks)) @ draws / (len(risks) - 1)


def _stepped(s: np.ndarray, risks: np.ndarray, draws: np.ndarray, step_size: float, total: float) -> np.ndarray:
    """The next probabilities (n,), with risks in units of their deviation; s where they are all alike."""
    deviation = np.std(risks, ddof=1)
    if not deviation > 0.0:
        return s
    moved = box_sum_range(s - step_size / deviation * policy_gradient(risks, draws), 1.0, 0.0, total)
    # Of probabilities that are all 0 no row would be drawn.
    return moved if moved.any() else s


class _Rows(NamedTuple):
    """Rows (n, d), as they were given, and their labels (n,), or (n, k) of several outputs."""

    X: Any
    y: np.ndarray

    @classmethod
    def of(cls, X: Any, y: Any, name: str) -> _Rows:
        labels = np.asarray(to_host(check_container(y, name)))
        check_consistent_length(X, labels)
        if not len(labels):
            raise ValueError(f"{name} has no rows.")
        labels = labels[:, 0] if labels.shape[1:] == (1,) else labels
        check_none_missing(labels, name)
        # Sparse rows of other formats can't be taken one by one.
        return cls(X.tocsr() if is_sparse(X) else X, labels)

    def fitted(self, estimator: Any, is_drawn: np.ndarray) -> Any:
        """A clone, fitted on the rows where is_drawn (n,) is true."""
        at = np.flatnonzero(is_drawn)
        return clone(estimator).fit(_safe_indexing(self.X, at), self.y[at])


class _Outer(NamedTuple):
    """The rows that the risk is taken on, their groups (n,), 0, 1, ..., the risk and its metric by name."""

    rows: _Rows
    groups: np.ndarray
    risk: str
    metric: Any

    @classmethod
    def of(cls, rows: _Rows, groups: Any, risk: Any, metric: Any, is_val: bool) -> _Outer:
        """Raises ValueError for a risk that is not known, or lacks the rows or groups that it needs."""
        if not isinstance(risk, str) or risk not in RISKS:
            raise ValueError(f"risk must be one of {list(RISKS)}; got {shown(risk)}.{did_you_mean(risk, RISKS)}")
        if risk == "mean" and (groups is not None or not is_val):
            raise ValueError(
                'risk="mean" is the loss of rows of the distribution that counts: give X_val and y_val. For groups type '
                'risk="worst", "rex" or "irm".'
            )
        if risk == "irm" and not _is_auto(metric):
            raise ValueError('risk="irm" has the log loss of classifiers and the squared error of regressors: leave out metric.')
        if risk == "irm" and rows.y.ndim > 1:
            raise ValueError(f'risk="irm" takes one label for each row; y has shape {rows.y.shape}.')
        return cls(rows, _codes(groups, risk, len(rows.y)), risk, metric)

    def risk_of(self, model: Any) -> float:
        """The risk of a fitted model."""
        X, y = self.rows
        if self.risk == "irm":
            return RISKS["irm"](scale_slopes(model, X, y), self.groups)
        auto = "log_loss" if is_classifier(model) else "mean_squared_error"
        rows = row_losses(auto if _is_auto(self.metric) else self.metric, model, X, y)
        if rows.kinds is not None and self.risk != "mean":
            raise ValueError(f'{rows.name!r} is no mean over the rows of a group: type risk="mean", or another metric.')
        return RISKS[self.risk](rows.as_loss.values(np.ones(len(y))), self.groups)


def _codes(groups: Any, risk: str, n: int) -> np.ndarray:
    if risk == "mean":
        return np.zeros(n, dtype=np.int64)
    groups = np.zeros(0) if groups is None else np.asarray(to_host(check_container(groups, "groups")))
    check_none_missing(groups, "groups", "group")
    names, codes = np.unique(groups, return_inverse=True)
    if codes.shape != (n,) or len(names) < 2:
        got = "none" if not groups.size else f"shape {codes.shape} with {len(names)} different"
        raise ValueError(f'risk="{risk}" needs groups=({n},), two or more environments of the rows that it is taken on; got {got}.')
    return codes


def _is_auto(metric: Any) -> bool:
    return isinstance(metric, str) and metric == "auto"


def scale_slopes(model: Any, X: Any, y: np.ndarray) -> np.ndarray:
    """d/dt, at t = 1, of each row's log loss (n,) with t times the logits, or of the squared error of t times the prediction."""
    if not is_classifier(model):
        f = np.asarray(to_host(model.predict(X)), dtype=np.float64).reshape(y.shape)
        return 2.0 * (f - y) * f
    p, is_class = class_probabilities("log_loss", model, X, y)
    logits = np.log(np.clip(p, np.finfo(p.dtype).tiny, None))
    # A shift of a row's logits changes nothing, as p and the label both have sum 1.
    return np.sum((p - is_class) * logits, axis=1)


def _drawn(s: np.ndarray, classes: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Which rows (n,) a draw takes: of all classes (n,), if there are classes. Raises ValueError if that is too rare."""
    codes = np.zeros(len(s), dtype=np.int64) if classes is None else classes
    for _ in range(_MOST_DRAWS):
        is_drawn = rng.random(len(s)) < s
        if np.all(np.bincount(codes[is_drawn], minlength=codes.max() + 1) > 0):
            return is_drawn
    lacks = "all rows" if classes is None else "a class"
    raise ValueError(
        f"{_MOST_DRAWS} draws of {np.sum(s):.3g} of {len(s)} rows on average all lack {lacks}: give a larger share, or a smaller "
        "step_size."
    )
