"""Sample-selection bias on a real table: source rows kept with a known probability, target rows held out at random."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from .._arrays import to_host
from .._validation import check_number, stack_domains
from .checks import check_kind, generator, numbers
from .covariate_shift import Shift
from .true_ratio import TrueRatio, as_rows

__all__ = ["SELECTION_KINDS", "DistanceSelection", "FeatureSelection", "Selection", "SelectionRatio", "make_selection_bias"]

SELECTION_KINDS = ("distance", "feature")


@dataclass(frozen=True, eq=False)
class Selection(ABC):
    """P(s = 1 | x) of rows (n, d) -> (n,), the probability that a row is kept; d = n_columns."""

    n_columns: int

    @abstractmethod
    def log(self, rows: np.ndarray) -> np.ndarray:
        """Natural logarithm (n,) of the probability of rows (n, d)."""

    def __call__(self, X: Any) -> np.ndarray:
        with np.errstate(under="ignore"):
            return np.exp(self.log(as_rows(X, self.n_columns)))


@dataclass(frozen=True, eq=False)
class FeatureSelection(Selection):
    """`low` where column `column` is <= threshold, `high` above."""

    column: int
    threshold: float
    low: float
    high: float

    def log(self, rows: np.ndarray) -> np.ndarray:
        return np.log(np.where(rows[:, self.column] <= self.threshold, self.low, self.high))


@dataclass(frozen=True, eq=False)
class DistanceSelection(Selection):
    """exp(-strength * mean_j z_j^2), z = (x - mean) / spread: 1 at the mean (d,), falling with the distance."""

    mean: np.ndarray
    spread: np.ndarray
    strength: float

    def log(self, rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return -self.strength * np.mean(((rows - self.mean) / self.spread) ** 2, axis=1)


@dataclass(frozen=True, eq=False)
class SelectionRatio(TrueRatio):
    """E[P(s = 1)] / P(s = 1 | x), with the mean over the population; `selection` gives the probability."""

    selection: Selection
    log_mean: float

    @property
    def n_columns(self) -> int:
        return self.selection.n_columns

    def _log(self, rows: np.ndarray) -> np.ndarray:
        return self.log_mean - self.selection.log(rows)


def make_selection_bias(
    X: Any = None,
    labels: Any = None,
    *,
    kind: str = "feature",
    column: int | str = 0,
    threshold: float | None = None,
    probabilities: tuple[float, float] = (0.2, 0.8),
    strength: float = 0.45,
    n_source: int | None = None,
    n_target: int | None = None,
    random_state: int | np.random.Generator = 0,
) -> Shift:
    """Hold out random rows as the target and keep each other row as a source row with probability P(s = 1 | x).

    X (N, d) is the population and labels (N,) its outcomes; the default is scikit-learn's breast cancer table: 569 rows, 30
    columns in different units (scale them for kernel methods), 0 = malignant and 1 = benign. kind determines P:

    - "feature": probabilities[0] where column `column` (a position, or a name in a frame) is <= threshold, else probabilities[1];
      threshold None means the column's median over X. The ratio takes two values.
    - "distance": exp(-strength mean_j z_j^2), z the columns scaled to mean 0 and standard deviation 1 over X. The ratio is
      largest at the outermost rows, which are rare in the source.

    The ratio is mean_X P / P(x), exact and of mean 1 over X under P: a row of X is a source row with probability proportional
    to P, and all rows are equally likely to be target rows. The target is held out, instead of being the whole table, so that no
    row is in both samples and a model can be scored on it. n_target None means half of the rows; the source is all kept rows,
    or n_source of them at random.

    Huang et al. (2007) use the original Wisconsin table with nine columns of integers 1 to 10, which scikit-learn does not
    include: (0.2, 0.8) at threshold 5, and exp(-|z|^2 / 20). Here the median replaces the 5, and the mean of z^2 with
    strength 9/20 replaces the sum over nine columns, so that the bias does not grow with d; strength = d/20 gives the sum.

    Raises ValueError for an unknown kind or column, probabilities outside (0, 1], a threshold that splits no rows, a negative
    strength, labels of another length, NaN or infinity in X, and sizes larger than the number of available rows.
    Source: Huang, Smola, Gretton, Borgwardt and Schoelkopf (2007), Correcting sample selection bias by unlabeled data.
    """
    if X is None and labels is not None:
        raise ValueError("labels were passed without X: pass both, or neither for the breast cancer table.")
    if X is None:
        from sklearn.datasets import load_breast_cancer

        data = load_breast_cancer()
        rows, outcomes, names = data.data, data.target.astype(np.int64), list(data.feature_names)
    else:
        rows, outcomes, names = _table(X, labels)
    builders: dict[str, Callable[[], Selection]] = {
        "distance": lambda: _by_distance(rows, strength),
        "feature": lambda: _by_feature(rows, _column_number(column, rows.shape[1], names), threshold, probabilities),
    }
    selection = builders[check_kind("Selection kind", kind, SELECTION_KINDS)]()
    log_probability = selection.log(rows)
    kept, held_out = _split(log_probability, n_source, n_target, generator(random_state))
    places, y = stack_domains(kept[:, None], held_out[:, None])
    index = places[:, 0]
    ratio = SelectionRatio(selection, float(logsumexp(log_probability) - np.log(len(rows))))
    return Shift(rows[index], y, ratio, None if outcomes is None else outcomes[index], index=index)


def _table(X: Any, labels: Any) -> tuple[np.ndarray, np.ndarray | None, list]:
    rows = as_rows(X)
    if len(rows) < 2:
        raise ValueError(f"X must have at least 2 rows, one for each sample; got {len(rows)}.")
    outcomes = None if labels is None else np.asarray(to_host(labels))
    if outcomes is not None and outcomes.shape != (len(rows),):
        raise ValueError(f"labels must be ({len(rows)},), one for each row of X; got shape {outcomes.shape}.")
    return rows, outcomes, list(getattr(X, "columns", []))


def _column_number(column: int | str, n_columns: int, names: list) -> int:
    if column in names:
        return names.index(column)
    if isinstance(column, bool) or not isinstance(column, int | np.integer) or not 0 <= column < n_columns:
        known = f" or one of {names}" if names else ""
        raise ValueError(f"column must be a position from 0 to {n_columns - 1}{known}; got {column!r}.")
    return int(column)


def _by_feature(rows: np.ndarray, column: int, threshold: float | None, probabilities: tuple[float, float]) -> Selection:
    values = numbers("probabilities", probabilities)
    if values.shape != (2,) or not np.all((values > 0) & (values <= 1)):
        raise ValueError(
            f"probabilities must be two numbers in (0, 1], below and above the threshold; got {probabilities!r}. With a 0 the "
            "source would not cover the target and no ratio would exist."
        )
    cut = float(np.median(rows[:, column])) if threshold is None else check_number("threshold", threshold, "[-inf, inf]")
    share = np.mean(rows[:, column] <= cut)
    if share in (0.0, 1.0):
        side = "<=" if share else ">"
        raise ValueError(f"All values of column {column} are {side} {cut:g}: pass a threshold that splits them, or another column.")
    return FeatureSelection(rows.shape[1], column, cut, float(values[0]), float(values[1]))


def _by_distance(rows: np.ndarray, strength: float) -> Selection:
    check_number("strength", strength, "[0, inf)")
    # In units of each column's largest value, so that squares and sums do not overflow.
    unit = np.maximum(np.abs(rows).max(axis=0), np.finfo(np.float64).tiny)
    mean, spread = unit * np.mean(rows / unit, axis=0), unit * np.std(rows / unit, axis=0)
    is_constant = (rows == rows[0]).all(axis=0)
    center, spread = np.where(is_constant, rows[0], mean), np.where(is_constant, 1.0, spread)
    return DistanceSelection(rows.shape[1], center, spread, float(strength))


def _split(
    log_probability: np.ndarray, n_source: int | None, n_target: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Row indices of the source, kept by their probability, and of the target, held out first."""
    n_rows = len(log_probability)
    n_held_out = _within("n_target", n_rows // 2 if n_target is None else n_target, n_rows - 1, f"X has {n_rows} rows")
    order = rng.permutation(n_rows)
    held_out, candidates = order[:n_held_out], order[n_held_out:]
    kept = candidates[rng.random(len(candidates)) < np.exp(log_probability[candidates])]
    if not len(kept):
        raise ValueError(f"None of the {len(candidates)} candidate rows was kept: raise the probabilities or lower the strength.")
    wanted = len(kept) if n_source is None else n_source
    return kept[: _within("n_source", wanted, len(kept), f"{len(kept)} of {len(candidates)} candidates were kept")], held_out


def _within(name: str, value: int, most: int, why: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= most:
        raise ValueError(f"{name} must be an integer from 1 to {most} ({why}); got {value!r}.")
    return int(value)
