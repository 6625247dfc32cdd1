"""The coefficients of a stack, from the ratios of its members at rows that they did not see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Held", "combined"]

_LARGEST = 100.0  # ratios are clipped to 1 / 100 and 100, or a single target row at which a member is 0 would decide
_FEW = 2.0  # target rows for which a member must account to take part: fewer are mostly noise
_STEPS = 200
_ENOUGH = 1e-9


class Held(NamedTuple):
    """Ratios of the K members at held-out rows, (n, K) and (m, K), and how often the rows count, (n,) and (m,)."""

    source: np.ndarray
    target: np.ndarray
    source_count: np.ndarray
    target_count: np.ndarray

    @classmethod
    def joined(cls, folds: Sequence[Held]) -> Held:
        """The rows of several folds together."""
        return cls(*(np.concatenate(part) for part in zip(*folds, strict=True)))

    def scores(self, coef: np.ndarray) -> np.ndarray:
        """mean r(target) - mean r(source)^2 / 2 of combinations with the coefficients (K,) or (K, k)."""
        linear = np.average(self.target @ coef, axis=0, weights=self.target_count)
        return linear - 0.5 * np.average((self.source @ coef) ** 2, axis=0, weights=self.source_count)


def combined(folds: Sequence[Held], pull: float, is_simple: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients (K,), and the held-out scores of the members and of the stack (K + 1,).

    is_simple (K,): which members have few parameters. The score of the stack on a fold uses the coefficients of the other folds.
    """
    whole = Held.joined(folds)
    others = (_coef(Held.joined([*folds[:k], *folds[k + 1 :]]), pull, is_simple) for k in range(len(folds)))
    stack = np.mean([fold.scores(coef) for coef, fold in zip(others, folds, strict=True)])
    return _coef(whole, pull, is_simple), np.append(whole.scores(np.eye(len(is_simple))), stack)


def _coef(held: Held, pull: float, is_simple: np.ndarray) -> np.ndarray:
    # Every ratio has mean 1, so a smaller mean is no merit.
    mean = np.maximum(np.average(held.source, axis=0, weights=held.source_count), 1.0)
    relative = np.clip(held.target / mean, 1.0 / _LARGEST, _LARGEST)
    logs = np.log(relative)
    likelihood = np.average(logs, axis=0, weights=held.target_count)
    best, simple = int(np.argmax(likelihood)), int(np.argmax(np.where(is_simple, likelihood, -np.inf)))
    if is_simple[simple] and likelihood[best] - likelihood[simple] <= _standard_error(held, logs, mean, [best, simple]):
        return np.eye(len(mean))[simple] / mean
    # A member less likely than a constant may owe its likelihood to a few rows.
    kept = np.flatnonzero((likelihood > 0.0) | (np.arange(len(mean)) == best))
    shares = pull * np.eye(len(mean))[best]
    shares[kept] += (1.0 - pull) * _shares(relative[:, kept], held.target_count)
    return shares / mean


def _standard_error(held: Held, logs: np.ndarray, mean: np.ndarray, pair: list[int]) -> float:
    """Standard error of the difference of two members' mean log r(target) / b, from the variation of both samples."""
    of_source = (held.source / mean)[:, pair]
    sides = (logs[:, pair], held.target_count), (of_source, held.source_count)
    return float(np.sqrt(sum(_squared_error(values[:, 0] - values[:, 1], count) for values, count in sides)))


def _squared_error(values: np.ndarray, count: np.ndarray) -> float:
    """The sampling variance of the mean of values (n,) that count `count` (n,) times."""
    middle = np.average(values, weights=count)
    return float(np.average((values - middle) ** 2, weights=count) / count.sum())


def _shares(relative: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mixture proportions (K,) by expectation maximization, without members that account for few rows."""
    n_members, total = relative.shape[1], count.sum()
    few, shares = min(_FEW, 0.5 * total / n_members), np.full(n_members, 1.0 / n_members)
    for _ in range(_STEPS):
        owned = np.maximum(shares * ((count / (relative @ shares)) @ relative) - few, 0.0)
        change, shares = np.abs(owned / owned.sum() - shares).max(), owned / owned.sum()
        if change < _ENOUGH:
            break
    return shares
