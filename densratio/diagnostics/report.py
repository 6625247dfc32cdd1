"""Report: the result of `diagnose` as numbers, text, HTML or JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from .render import Fact, html_fragment, html_page, plain_text

__all__ = ["ColumnBalance", "Report"]

_MAX_COLUMNS = 10  # rows of the balance table that a report shows


class ColumnBalance(NamedTuple):
    """One column: standardized mean differences before and after weighting, and the share of target rows outside its range."""

    name: str
    before: float
    after: float
    outside: float


@dataclass(frozen=True)
class Report:
    """Effective sample size, distance between the samples before and after weighting, and warnings.

    n_source, n_target : rows.
    effective_sample_size : Kish's, of the weighted source rows.
    largest_weight, largest_share, top_share : the largest weight (mean 1), its share of the total weight, and the share of
        the heaviest 1 % of the rows.
    pareto_k : shape of the weights' tail; -inf for equal weights, NaN if the tail has too few weights to estimate it.
    mmd_before, mmd_after, mmd_chance : squared MMD without and with weights, and the 95 % quantile over random relabelings, which
        samples from one distribution exceed in 5 % of cases. Columns are in units of their pooled spread.
    p_value : of the permutation test of mmd_before, which does not involve the weights. There is no test of the weighted
        samples: weights fitted on these rows would pass it by construction.
    outside_share : share of the target rows that are farther from their nearest source row than 99 % of the source rows are.
    n_rows_tested : number of rows for the MMD, its test and outside_share: all rows, or a seeded subsample.
    n_permutations : number of relabelings in the test.
    balance : one ColumnBalance for each column, in the table's order.
    is_uniform : whether the weights are equal to within a millionth.
    ratio : the estimator and its parameters in words; empty if weights were given.
    warnings : each says what is wrong and what to do; empty for a healthy shift.
    """

    n_source: int
    n_target: int
    effective_sample_size: float
    largest_weight: float
    largest_share: float
    top_share: float
    pareto_k: float
    mmd_before: float
    mmd_after: float
    mmd_chance: float
    p_value: float
    outside_share: float
    n_rows_tested: int
    n_permutations: int
    balance: tuple[ColumnBalance, ...]
    is_uniform: bool
    ratio: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def effective_share(self) -> float:
        """Effective sample size over the number of source rows."""
        return self.effective_sample_size / self.n_source

    @property
    def is_subsample(self) -> bool:
        """Whether the MMD and its test used a subsample of the rows."""
        return self.n_rows_tested < self.n_source + self.n_target

    def most_off_balance(self, n: int = _MAX_COLUMNS) -> list[ColumnBalance]:
        """The n columns with the largest difference, before or after weighting, largest first."""
        return sorted(self.balance, key=lambda b: -max(abs(b.before), abs(b.after)))[:n]

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON-serializable dict; numbers that are not finite (no tail, no spread) become None."""
        fields = asdict(self) | {"effective_share": self.effective_share, "is_subsample": self.is_subsample}
        fields["balance"] = [column._asdict() for column in self.balance]
        return _finite(fields)

    def to_html(
        self,
        *,
        title: str = "Density ratio report",
        facts: Mapping[str, str] | None = None,
        pictures: Mapping[str, bytes] | None = None,
    ) -> str:
        """A self-contained HTML page. facts: label -> text, above the tables; pictures: caption -> PNG bytes, below them."""
        return html_page(title, self._repr_html_(), facts or {}, pictures or {})

    def __str__(self) -> str:
        return plain_text(self._facts(), self._shown(), self._notes(), self.warnings)

    def _repr_html_(self) -> str:
        return html_fragment(self._facts(), self._shown(), self._notes(), self.warnings)

    def _facts(self) -> list[Fact]:
        tail = "no tail" if self.pareto_k == -math.inf else "n/a" if math.isnan(self.pareto_k) else f"{self.pareto_k:.2f}"
        equal = f"at most {_number(self.mmd_chance)} if the samples do not differ"
        return [
            *([Fact("Ratio", "", self.ratio)] if self.ratio else []),
            Fact("Source rows", str(self.n_source)),
            Fact("Target rows", str(self.n_target)),
            Fact(
                "Effective sample size", f"{self.effective_sample_size:.1f}", f"{_percent(self.effective_share)} of the source rows"
            ),
            Fact("Largest weight", _number(self.largest_weight), f"{_percent(self.largest_share)} of the total weight"),
            Fact("Heaviest 1 % of rows", _percent(self.top_share), "of the total weight"),
            Fact("Pareto k-hat", tail, "above 0.7 a weighted mean may not converge"),
            Fact("Squared MMD before", _number(self.mmd_before), equal),
            Fact("Squared MMD after", _number(self.mmd_after)),
            Fact("Two-sample test", f"p = {_number(self.p_value)}", "before weighting; small if the samples differ"),
            Fact("Target far from source", _percent(self.outside_share), "of the target rows; 1 % if the samples do not differ"),
        ]

    def _shown(self) -> list[tuple[str, str, str]]:
        return [(b.name, _signed(b.before), _signed(b.after)) for b in self.most_off_balance()]

    def _notes(self) -> list[str]:
        notes = []
        rest = len(self.balance) - _MAX_COLUMNS
        if rest > 0:
            largest = max(abs(value) for b in self.most_off_balance()[-1:] for value in (b.before, b.after))
            what = "column differs" if rest == 1 else "columns differ"
            notes.append(f"{rest} more {what} by {largest:.3f} or less.")
        if self.is_subsample:
            notes.append(
                f"MMD, test and distances use a seeded subsample: {self.n_rows_tested} of {self.n_source + self.n_target} rows."
            )
        notes.append("The numbers after weighting flatter a ratio that was fitted on these rows; held-out rows judge it.")
        return notes


def _number(x: float) -> str:
    return f"{x:.3g}"


def _signed(x: float) -> str:
    # Adding 0 removes the sign of a rounded -0.
    return f"{round(x, 3) + 0.0:+.3f}"


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{100.0 * share:.1f} %"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
