"""differences: the columns and the rows in which two tables differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from .._arrays import to_host
from .._progress import show_progress, ticked
from .._sentinels import warn_of_sentinels
from .._validation import check_count, seed_of, stack_domains
from ..diagnostics.divergence import area_under_curve
from ..diagnostics.two_sample import draw_rows, relabelings
from ..model_selection import folds_of_stacked
from .encoder import TableEncoder
from .reading import Column, pairs_of, table_of
from .use import ColumnUse, shown_value
from .weights import ratio_of

__all__ = ["ColumnDifference", "Differences", "differences"]

_N_FOLDS = 5
_MOST_SHOWN = 20
_ROWS_SHOWN = 5
_ROUNDING = 1e-9  # of distances in units of their spread


class ColumnDifference(NamedTuple):
    """How one column differs.

    distance : in [0, 1]. For numbers the largest difference of the two cumulative distributions; for levels the total variation,
        half of the sum of the absolute differences of their shares. A gap is a value of its own.
    p_value : of the permutation test, adjusted for the number of columns.
    lost : decrease of the area under the ratio's ROC curve when the column is shuffled: its information beyond the other columns.
    words : what changed most, source -> target.
    """

    name: Any
    distance: float
    p_value: float
    lost: float
    words: str


@dataclass(frozen=True, eq=False, repr=False)
class Differences:
    """What `differences` returns.

    columns : one ColumnDifference for each compared column, the most significant first.
    source_ratio, target_ratio : (n,) and (m,) out-of-fold ratios p_target / p_source: few source rows are like a target row with a
        large ratio, and few target rows are like a source row with a small one.
    auc : area under their ROC curve; 0.5 if the ratio cannot separate the samples.
    dropped : one ColumnUse for each column that is not compared; its `reason` says why.
    """

    columns: tuple[ColumnDifference, ...]
    source_ratio: np.ndarray
    target_ratio: np.ndarray
    auc: float
    dropped: tuple[ColumnUse, ...] = ()

    def to_frame(self) -> Any:
        """The columns as a pandas frame."""
        import pandas

        return pandas.DataFrame(self.columns, columns=list(ColumnDifference._fields))

    def __repr__(self) -> str:
        width = max(len(str(column.name)) for column in self.columns[:_MOST_SHOWN])
        lines = [
            f"{len(self.source_ratio)} source and {len(self.target_ratio)} target rows: a target row has the larger ratio in "
            f"{100.0 * self.auc:.0f} % of the pairs",
            "",
            f"  {'column':<{max(width, 6)}}  distance  p value  AUC lost",
        ]
        for column in self.columns[:_MOST_SHOWN]:
            numbers = f"{column.distance:8.3f}  {column.p_value:7.3f}  {column.lost:8.3f}"
            lines.append(f"  {column.name!s:<{max(width, 6)}}  {numbers}  {column.words}")
        more = len(self.columns) - _MOST_SHOWN
        lines += [f"  and {more} more column{'s' if more > 1 else ''}"] * (more > 0)
        lines += ["", *(f"  {use}" for use in self.dropped[:_MOST_SHOWN])] if self.dropped else []
        apart = np.argsort(-self.target_ratio, kind="stable")[:_ROWS_SHOWN]
        rows = ", ".join(f"{row} ({self.target_ratio[row]:.3g})" for row in apart)
        return "\n".join([*lines, "", f"  target rows most unlike the source, with their ratios: {rows}"])


def differences(
    source: Any,
    target: Any,
    *,
    drop: Any = (),
    method: Any = "kmm",
    n_permutations: int = 999,
    max_rows: int = 5000,
    random_state: Any = 0,
    verbose: bool = False,
) -> Differences:
    """Find the columns and the rows in which two tables differ: a distance and a test for each column, a ratio for each row.

    Each column is compared alone and, through the ratio, together with the others. All p values use the same relabelings of the
    rows, and are adjusted by the distribution of the largest standardized distance. So if nothing differs, the smallest p value is
    at most a with probability at most a, for any number of columns and any dependence between them.

    source, target, drop, method : as in `importance_weights`. The ratio is cross-fitted in five folds; the default is kernel mean
    matching, the quickest method.
    n_permutations : of the test, which uses at most max_rows rows of both samples, drawn with random_state.
    verbose : whether to show the progress, as `densratio.show_progress` does.

    Source: Westfall & Young (1993), Resampling-based multiple testing, for the adjustment.
    """
    check_count("n_permutations", n_permutations)
    seed = seed_of(random_state)
    encoder = TableEncoder(drop).set_output(transform="default").fit_samples(source, target)
    source, target = table_of(source, "source"), table_of(target, "target")
    names = [use.name for use in encoder.columns_ if use.kind != "dropped"]
    left_out = tuple(use for use in encoder.columns_ if use.kind == "dropped")
    warn_of_sentinels({"source": source, "target": target}, 2, drop=[use.name for use in left_out])
    pairs = list(pairs_of(source, target, names).values())
    codes = [_codes(*pair) for pair in pairs]
    sizes = [len(column.values) for column in pairs[0]]
    if min(sizes) < 2:
        raise ValueError(
            f"source has {sizes[0]} rows and target {sizes[1]}: differences takes at least two of each, better hundreds."
        )
    labels = np.repeat([0.0, 1.0], sizes)[None, :]
    p_values = _adjusted(codes, sizes, n_permutations, max_rows, np.random.default_rng(seed))
    with show_progress(verbose):
        at_source, at_target, lost = _compared(encoder, method, source, target, seed)
    found = [
        # With an uninformative ratio the contribution of a column is noise, of either sign.
        ColumnDifference(name, float(_distances(code, labels)[0]), float(p), max(0.0, float(less)), _words(*pair))
        for name, code, p, less, pair in zip(names, codes, p_values, lost, pairs, strict=True)
    ]
    columns = tuple(sorted(found, key=lambda column: (column.p_value, -column.distance)))
    return Differences(columns, at_source, at_target, max(0.5, area_under_curve(at_source, at_target)), left_out)


# ---------------------------------------------------------------- each column by itself


class _Codes(NamedTuple):
    """A column of both samples (N,) as integers: the rank of a value or the number of a level, and -1 for a gap."""

    values: np.ndarray
    is_ordered: bool


def _codes(source: Column, target: Column) -> _Codes:
    is_gap = np.concatenate([source.is_gap, target.is_gap])
    values = np.concatenate([source.values, target.values])
    codes = np.full(len(values), -1)
    codes[~is_gap] = np.unique(values[~is_gap].astype(str if source.kind == "categories" else float), return_inverse=True)[1]
    return _Codes(codes, source.kind not in ("categories", "booleans"))


def _distances(codes: _Codes, labels: np.ndarray) -> np.ndarray:
    """The distance (B,) of a column under each labeling (B, N) of its rows, 1 for the target."""
    n_target = labels.sum(axis=1, keepdims=True)
    n_source = labels.shape[1] - n_target
    _, group, counts = np.unique(codes.values, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(counts)
    below_target = np.cumsum(labels[:, order], axis=1)[:, ends - 1]
    difference = (ends - below_target) / n_source - below_target / n_target
    if codes.is_ordered:
        # Gaps come first: without their share, the last difference is that of the gaps.
        gaps = difference[:, :1] if codes.values.min() < 0 else 0.0
        return np.abs(difference - gaps).max(axis=1)
    return 0.5 * np.abs(np.diff(difference, axis=1, prepend=0.0)).sum(axis=1)


def _adjusted(
    codes: Sequence[_Codes], sizes: Sequence[int], n_permutations: int, max_rows: int, rng: np.random.Generator
) -> np.ndarray:
    """The p value (d,) of each column, adjusted for their number."""
    rows = draw_rows(sizes[0], sizes[1], max_rows, rng)
    drawn = np.concatenate([rows[0], sizes[0] + rows[1]])
    observed = np.repeat([0.0, 1.0], [len(some) for some in rows])
    here = [code._replace(values=code.values[drawn]) for code in codes]
    parts = [[_distances(code, observed[None, :]) for code in here]]
    for labels in relabelings(observed, n_permutations, rng):
        parts.append([_distances(code, labels) for code in here])
    distances = np.concatenate([np.stack(part, axis=1) for part in parts])
    # Under the null hypothesis columns are comparable in units of their spread, which includes the observed labeling.
    spread = distances.std(axis=0)
    scores = (distances - distances.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return np.mean(scores.max(axis=1)[:, None] >= scores[0] - _ROUNDING, axis=0)


def _words(source: Column, target: Column) -> str:
    """What changed most in a column, source -> target."""
    gaps = [column.is_gap for column in (source, target)]
    missing = [float(gap.mean()) for gap in gaps]
    values = [column.values[~gap] for column, gap in zip((source, target), gaps, strict=True)]
    if not all(map(len, values)):
        return _moved("missing", missing)
    if source.kind in ("categories", "booleans"):
        counts = [Counter(some.tolist()) for some in values]
        shares = {
            level: [count[level] / len(gap) for count, gap in zip(counts, gaps, strict=True)] for level in counts[0] | counts[1]
        }
        level = max(shares, key=lambda level: abs(shares[level][1] - shares[level][0]))
        if abs(missing[1] - missing[0]) > abs(shares[level][1] - shares[level][0]):
            return _moved("missing", missing)
        return _moved(repr(level[:30] if source.kind == "categories" else bool(level)), shares[level])
    means = [float(np.sum(some / len(some))) for some in values]  # the sum of huge values would overflow
    rounded = [float(f"{mean:.4g}") if source.kind == "numbers" else mean for mean in means]
    middle = " -> ".join(shown_value(mean, source.kind) for mean in rounded)
    return f"mean {middle}" + f", {_moved('missing', missing)}" * (abs(missing[1] - missing[0]) >= 0.01)


def _moved(what: str, shares: Sequence[float]) -> str:
    return f"{what} {100.0 * shares[0]:.0f} % -> {100.0 * shares[1]:.0f} %"


# ---------------------------------------------------------------- each row, and each column with the others


def _compared(encoder: TableEncoder, method: Any, source: Any, target: Any, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Out-of-fold ratios at the source and the target rows, and the decrease of their AUC when each column (d,) is shuffled."""
    X, y = stack_domains(encoder.transform(source), encoder.transform(target))
    y, rng = np.asarray(y), np.random.default_rng(seed)
    uses = [use for use in encoder.columns_ if use.kind != "dropped"]
    ends = np.cumsum([len(use.encoded_names) for use in uses])
    ratio = ratio_of(method, X[y == 0], X[y == 1], seed)
    found, held_out = np.empty((1 + len(uses), len(y))), folds_of_stacked(y, _N_FOLDS, seed)
    blocks = [slice(end - len(use.encoded_names), end) for use, end in zip(uses, ends, strict=True)]
    values = (_held_out_ratios(clone(ratio), X, y, rows, blocks, rng) for rows in held_out)
    for rows, some in zip(held_out, ticked(values, len(held_out), "Folds of the ratio"), strict=True):
        found[:, rows] = some
    at_source, at_target = found[:, y == 0], found[:, y == 1]
    auc = list(map(area_under_curve, at_source, at_target))
    return at_source[0], at_target[0], auc[0] - np.array(auc[1:])


def _held_out_ratios(
    ratio: Any, X: np.ndarray, y: np.ndarray, held_out: np.ndarray, blocks: Sequence[slice], rng: np.random.Generator
) -> np.ndarray:
    """Ratios (1 + d, k) at held-out rows from a fit to the others: unchanged, and with one block of columns shuffled."""
    kept = np.delete(np.arange(len(y)), held_out)
    fitted, rows = ratio.fit(X[kept], y[kept]), X[held_out]
    found = [to_host(fitted.transform(rows))]
    for block in blocks:
        mixed = rows.copy()
        mixed[:, block] = rows[rng.permutation(len(rows)), block]
        found.append(to_host(fitted.transform(mixed)))
    return np.stack(found)
