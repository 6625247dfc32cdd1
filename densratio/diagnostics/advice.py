"""Warnings from a report's numbers: sentences that say what is wrong with the weights and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from .remedies import Remedies, alternatives

if TYPE_CHECKING:
    from .report import ColumnBalance, Report

__all__ = ["advise", "advise_on_overlap"]

_LEVEL = 0.05  # of the tests
_OFF_BALANCE = 0.1  # standardized mean difference, by convention (Austin 2009)
_OUTSIDE = 0.1  # share of the target rows with no source row nearby; about 0.01 if the samples do not differ
_HEAVY_K = 0.7  # above it weighted means do not converge in practice (Vehtari et al. 2024)
_FEW_ROWS = 30.0  # effective rows below which a mean has no useful confidence interval
_ONE_ROW, _TOP_ROWS = 0.1, 0.25  # of the total weight on the heaviest row, and on the heaviest 1 % of the rows
_CONCENTRATED = 5.0  # times the mean weight; small tables reach lower values with healthy weights
_REMAINS = 0.5  # share of the squared MMD that is left after weighting


def advise(report: Report, remedies: Remedies) -> tuple[str, ...]:
    """Warnings, one string each, for a report whose numbers are filled in; empty for a healthy shift."""
    checks = (_no_overlap, _equal_weights, _no_difference, _handful, _heavy_tail, _worse, _still_off, _little_removed)
    return tuple(warning for check in checks for warning in check(report, remedies))


def advise_on_overlap(report: Report, remedies: Remedies) -> tuple[str | None, tuple[str, ...]]:
    """Why weighted means say nothing about a part of the target, or None; and reasons why they are less certain than they look."""
    doubts = (*_handful(report, remedies), *_heavy_tail(report, remedies))
    return next(_no_overlap(report, remedies), None), doubts


def _no_overlap(report: Report, _: Remedies) -> Iterator[str]:
    # A new row lies beyond n others on one side with probability 1 / (n + 1); a few times this share is not chance.
    by_chance = 6.0 / (report.n_source + 1)
    names = [b.name for b in report.balance if b.outside > max(_OUTSIDE, 2.0 * by_chance) or math.isinf(b.before)]
    is_far = report.outside_share > max(_OUTSIDE, by_chance)
    if not (names or is_far):
        return
    reasons = []
    if is_far:
        reasons.append(
            f"{_percent(report.outside_share)} of the target rows are farther from every source row than source rows are apart"
        )
    if names:
        share = max(b.outside for b in report.balance if b.name in names)
        reasons.append(f"up to {_percent(share)} of the target rows are outside the source's range of {_listed(names)}")
    yield (
        f"No overlap for a part of the target: {'; '.join(reasons)}. Weights cannot stand in for missing rows: "
        "collect source rows like these, or exclude these target rows from your conclusions."
    )


def _equal_weights(report: Report, remedies: Remedies) -> Iterator[str]:
    if not report.is_uniform:
        return
    text = "All weights are equal: weighting changes nothing."
    if _differ(report):
        text += f" But the samples differ. {alternatives(remedies.fit())}"
    yield text


def _no_difference(report: Report, _: Remedies) -> Iterator[str]:
    if not _differ(report):
        drawn = f" on {report.n_rows_tested} of {report.n_source + report.n_target} rows" if report.is_subsample else ""
        yield (
            f"The samples do not differ measurably (p = {report.p_value:.3g}{drawn}): don't weight. Weights would fit "
            "noise and only add variance."
        )


def _handful(report: Report, remedies: Remedies) -> Iterator[str]:
    effective, n = report.effective_sample_size, report.n_source
    top_rows = max(1, math.ceil(n / 100))
    is_one = report.largest_share >= _ONE_ROW and report.largest_weight >= _CONCENTRATED
    is_top = report.top_share >= _TOP_ROWS and report.top_share * n / top_rows >= _CONCENTRATED
    is_few = effective < _FEW_ROWS and effective * _CONCENTRATED <= n
    if is_one or is_top or is_few:
        yield (
            f"A handful of rows carry the weight: the heaviest 1 % have {_percent(report.top_share)} of it, the heaviest row "
            f"{_percent(report.largest_share)}, and {n} rows count as {effective:.0f}. "
            f"{alternatives([*remedies.flatten(), 'collect source rows near the target'])}"
        )


def _heavy_tail(report: Report, remedies: Remedies) -> Iterator[str]:
    # If all weights are near 1, a heavy tail does not change a mean.
    if report.pareto_k > _HEAVY_K and report.largest_weight >= _CONCENTRATED:
        yield (
            f"The tail of the weights is heavy (Pareto k-hat {report.pareto_k:.2f} > {_HEAVY_K}): a weighted mean may not "
            f"converge, and more rows will hardly help. {alternatives(remedies.flatten())}"
        )


def _worse(report: Report, remedies: Remedies) -> Iterator[str]:
    names = [b.name for b in _off(report) if _moved_apart(b)]
    is_further = report.mmd_after > max(report.mmd_before, _chance_after(report))
    if report.is_uniform or not (names or is_further):
        return
    what = []
    if is_further:
        what.append(f"the squared MMD rose from {report.mmd_before:.3g} to {report.mmd_after:.3g}")
    if names:
        what.append(f"the means of {_listed(names)} moved apart")
    yield (
        f"Weighting made the balance worse: {'; '.join(what)}. Check that {remedies.words['source']}: inverted weights look "
        f"like this. If it is, the ratio fits poorly. {alternatives(remedies.fit())}"
    )


def _still_off(report: Report, remedies: Remedies) -> Iterator[str]:
    names = [b.name for b in _off(report) if not _moved_apart(b)]
    if names and not report.is_uniform:
        noun, verb, these = ("A column", "is", "column") if len(names) == 1 else (f"{len(names)} columns", "are", "columns")
        yield (
            f"{noun} {verb} still off balance after weighting: {_listed(names)} (beyond "
            f"{_limit(report):.2g} standard deviations, more than chance explains). "
            f"{alternatives([*remedies.fit(), f'use the {these} in the model itself'])}"
        )


def _little_removed(report: Report, remedies: Remedies) -> Iterator[str]:
    remains = report.mmd_after > max(_chance_after(report), _REMAINS * report.mmd_before)
    is_worse = report.mmd_after > report.mmd_before
    if remains and not is_worse and not report.is_uniform and report.p_value <= _LEVEL:
        yield (
            f"Weighting removed little of the shift: the squared MMD fell from {report.mmd_before:.3g} to {report.mmd_after:.3g} "
            f"only. {alternatives(remedies.fit())} If overlap is poor, no method can do better."
        )


def _differ(report: Report) -> bool:
    """Whether the test or a column's mean distinguishes the samples; the means use all rows, the test possibly a subsample."""
    limit = _chance(report, report.n_source)
    return report.p_value <= _LEVEL or any(abs(b.before) > limit for b in report.balance)


def _moved_apart(column: ColumnBalance) -> bool:
    """Whether an unbalanced column was balanced before weighting, or got worse by more than 0.1 (less may be chance)."""
    return abs(column.before) <= _OFF_BALANCE or abs(column.after) - abs(column.before) > _OFF_BALANCE


def _off(report: Report) -> list[ColumnBalance]:
    limit = _limit(report)
    # A column with two different constants lacks overlap; no ratio could balance it.
    return [b for b in report.balance if limit < abs(b.after) < math.inf]


def _limit(report: Report) -> float:
    """The standardized mean difference beyond which a column is off balance after weighting."""
    return max(_OFF_BALANCE, _chance(report, report.effective_sample_size))


def _chance(report: Report, n_source: float) -> float:
    """The standardized mean difference that equal distributions exceed in some column in only 5 % of draws.

    The variance s_s^2 / n_s + s_t^2 / n_t of a difference is at most 2 / min(n_s, n_t) in units of (s_s^2 + s_t^2) / 2.
    """
    quantile = -ndtri(_LEVEL / 2.0 / len(report.balance))
    return float(quantile * np.sqrt(2.0 / min(n_source, report.n_target)))


def _chance_after(report: Report) -> float:
    """mmd_chance at the effective number of source rows: the squared MMD of equal distributions is about 1/n_s + 1/n_t."""
    n_source, n_target = report.n_source, report.n_target
    return report.mmd_chance * (1.0 / report.effective_sample_size + 1.0 / n_target) / (1.0 / n_source + 1.0 / n_target)


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"


def _listed(names: Sequence[str], at_most: int = 3) -> str:
    shown = ", ".join(repr(name) for name in names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"
