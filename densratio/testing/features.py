"""The laws of a feature map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .._arrays import Array
from ..features import Features
from .laws import array_libraries, at_most, check_is_a, close, hold, largest, numbers
from .problem import MOST_ROWS, Problem, problems

__all__ = ["check_features"]


@dataclass(frozen=True, eq=False, repr=False)
class _FeatureCase:
    features: Features
    problem: Problem

    def __repr__(self) -> str:
        return repr(self.problem)

    def fit(self, convert: Callable[[np.ndarray], Array] = np.asarray, scale: float = 1.0) -> tuple[Features, Array, Array]:
        source, target = convert(scale * self.problem.source), convert(scale * self.problem.target)
        return self.features.fit(source, target, anchors="target"), source, target


def check_features(features: Features, *, on: SearchStrategy[Problem] | None = None, max_examples: int | None = None) -> None:
    """Check the laws of a feature map: finite (n, k) features, row by row, reproducible, the same in every array library.

    on: the problems to draw, by default with up to 40 rows and 4 columns.
    """
    check_is_a(Features, features, "features", "check_features(features)")
    drawn = problems(n_rows=(1, MOST_ROWS)) if on is None else on
    cases = st.builds(_FeatureCase, st.just(features), drawn)
    laws = [_features_are_finite_with_one_row_for_each_row, _the_features_of_a_row_depend_on_that_row_alone,
            _fitting_returns_a_copy_and_repeats_itself, _the_array_libraries_agree_on_the_features]  # fmt: skip
    if features.is_nonnegative:
        laws.append(_the_features_are_nonnegative)
    if isinstance(features.gamma, str):
        laws.append(_the_features_with_a_bandwidth_rule_have_no_unit)
    for law in laws:
        hold(law, cases, max_examples)


def _features_are_finite_with_one_row_for_each_row(case: _FeatureCase) -> None:
    fitted, source, target = case.fit()
    of_source, of_target = fitted(source), fitted(target)
    for rows, values in ((source, of_source), (target, of_target)):
        if values.shape != (len(rows), of_source.shape[1]) or not np.all(np.isfinite(values)):
            raise AssertionError(f"features {values.shape} of {rows.shape}, finite: {bool(np.all(np.isfinite(values)))}")


def _the_features_of_a_row_depend_on_that_row_alone(case: _FeatureCase) -> None:
    fitted, source, _ = case.fit()
    together, alone = fitted(source), np.concatenate([fitted(source[i : i + 1]) for i in range(len(source))])
    close(alone, together, 1e-6 * (1.0 + largest(together)), "features of single rows")


def _fitting_returns_a_copy_and_repeats_itself(case: _FeatureCase) -> None:
    fitted, source, _ = case.fit()
    if fitted is case.features or case.features.gamma_ is not None:
        raise AssertionError("fit changed the configuration that it was called on")
    close(case.fit()[0](source), fitted(source), 0.0, "features of the second fit")


def _the_features_are_nonnegative(case: _FeatureCase) -> None:
    fitted, source, target = case.fit()
    at_most(0.0, float(min(fitted(source).min(), fitted(target).min())), "0 and the least feature, though is_nonnegative")


def _the_features_with_a_bandwidth_rule_have_no_unit(case: _FeatureCase) -> None:
    (fitted, source, _), (rescaled, larger, _) = case.fit(), case.fit(scale=1024.0)
    close(_kernel(rescaled, larger), _kernel(fitted, source), 1e-6, "the kernel of rows 1024 times as large")


def _the_array_libraries_agree_on_the_features(case: _FeatureCase) -> None:
    fitted, source, _ = case.fit()
    expected = _kernel(fitted, source)
    for name, convert in array_libraries().items():
        of_library, rows, _ = case.fit(convert)
        close(_kernel(of_library, rows), expected, fitted.rounding * (1.0 + largest(expected)), f"the kernel in {name}")


def _kernel(fitted: Features, rows: Array) -> np.ndarray:
    """Kernel values at centers, or the inner products of an explicit map, whose basis is arbitrary."""
    values = numbers(fitted(rows))
    return values @ values.T if fitted.is_map else values
