"""importance_weights: weights, with diagnosis and fitted ratio, from two tables as they are."""

from __future__ import annotations

import textwrap
import warnings
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from .._arrays import to_host
from .._columns import library_of, shown, warn_of_order
from .._names import did_you_mean
from .._progress import show_progress
from .._sentinels import warn_of_sentinels
from .._validation import check_number, seed_of, stack_domains
from ..diagnostics import Report, diagnose
from ..diagnostics.advice import advise
from ..diagnostics.columns import Columns, numeric_columns
from ..diagnostics.remedies import remedies_for
from ..estimators import ESTIMATORS
from ..two_step.intervals import weight_name
from ..two_step.taming import TamedWeights, tamed_by
from .automatic import automatic
from .encoder import TableEncoder, as_names, of_numbers, source_counts
from .use import ColumnUse

__all__ = ["ImportanceWeights", "importance_weights", "named_ratio", "ratio_of"]

_MANY_ROWS, _MANY_COPIES = 100, 20  # rows, and copies of each, from which whole weights may not be counts
_MOST_SHOWN, _WIDTH = 30, 100  # columns that the repr lists, and its width


@dataclass(frozen=True, eq=False, repr=False)
class ImportanceWeights:
    """What `importance_weights` returns.

    weights : (n_source,) of mean 1, in the source's library; a pandas Series has the source's index. They include `sample_weight`
        if it was given, and replace it.
    ratio : the fitted Pipeline of the encoder and the density ratio; `ratio.transform(table)` gives the ratio at any rows.
    diagnosis : the `Report` of `diagnose`; its `warnings` say what is wrong and what to do.
    columns : one ColumnUse for each column: what was done to it, and where the samples do not overlap.
    taming : the TamedWeights with these weights, if `tame` was given.
    """

    weights: Any
    ratio: Pipeline
    diagnosis: Report
    columns: tuple[ColumnUse, ...]
    taming: TamedWeights | None = None

    def __repr__(self) -> str:
        shown = [line for use in self.columns[:_MOST_SHOWN] for line in _wrapped(use)]
        tamed = [] if self.taming is None else ["", repr(self.taming)]
        return "\n".join([self._title(), "", *shown, *self._rest(), *tamed, "", str(self.diagnosis)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(str(use.name))}</td><td>{escape(use.treatment)}</td><td>{escape('; '.join(use.no_overlap))}</td></tr>"
            for use in self.columns[:_MOST_SHOWN]
        )
        heads = "<tr><th>Column</th><th>What was done</th><th>No overlap</th></tr>"
        table = f"<table><thead>{heads}</thead><tbody>{rows}</tbody></table>"
        rest = "".join(f"<p>{escape(line.strip())}</p>" for line in self._rest())
        tamed = "" if self.taming is None else f"<pre>{escape(repr(self.taming))}</pre>"
        whole = f"<p><b>{escape(self._title())}</b></p>{table}{rest}{tamed}"
        return f"<div class='densratio'>{whole}</div>{self.diagnosis._repr_html_()}"

    def _title(self) -> str:
        sizes = f"{self.diagnosis.n_source} source rows for {self.diagnosis.n_target} target rows"
        return f"Importance weights of {sizes}, by {type(self.ratio[-1]).__name__}"

    def _rest(self) -> list[str]:
        more = len(self.columns) - _MOST_SHOWN
        return [f"  and {more} more columns"] if more > 0 else []


def _wrapped(use: ColumnUse) -> list[str]:
    lines = [f"  {use.name}: {use.treatment}", *(f"    ! No overlap: {words}." for words in use.no_overlap)]
    return [part for line in lines for part in textwrap.wrap(line, _WIDTH, subsequent_indent="      ", break_on_hyphens=False)]


def importance_weights(
    source: Any,
    target: Any,
    *,
    method: Any = "auto",
    drop: Any = (),
    encoder: Any = "auto",
    sample_weight: Any = None,
    flatten: float = 1.0,
    tame: Any = None,
    random_state: Any = 0,
    verbose: bool = False,
) -> ImportanceWeights:
    """Weights that make the source rows look like the target rows, from two tables as they are.

    One encoder for both samples turns categories, booleans, dates and gaps into numbers; `columns` of the result says how.

    Parameters
    ----------
    source, target : tables (n_s, d) and (n_t, d) with the same columns in any order
        pandas or polars frames, Arrow tables, or arrays. The source is the sample to be weighted.
    method : "auto", a name in `densratio.estimators.ESTIMATORS`, or an unfitted density ratio
        "auto": a `StackedRatio` of kernel mean matching, logistic regression, boosted stumps, boosted trees and two Gaussians; with
        fewer than 100 rows in a sample kernel mean matching alone. "stacked" combines all methods that suit the size of the tables,
        which takes longer.
    drop : name or sequence of names
        Columns to leave out, such as the label; either sample may lack them.
    encoder : "auto" or an unfitted transformer
        "auto": `TableEncoder`. Another encoder is fitted on the stacked samples, without sample_weight.
    sample_weight : (n_s,) numbers >= 0, or None
        Weights that the source rows already have, such as those of a survey. The ratio is then that of the target to the weighted
        source, and the returned weights are sample_weight times the ratio, to be used in place of sample_weight. Whole numbers are
        copies of rows; other weights have no unit. If they are numbers of people that a row stands for, divide them by their mean.
    flatten : float in [0, 1]
        Power of the ratio: 1 is the ratio, 0.5 its square root, 0 equal weights, or sample_weight. Below 1: less variance, more
        bias.
    tame : None, method of `tame_weights`, or function of weights
        Makes the weights less extreme after that: "pareto", or a partial `tame_weights` with an amount or effective_rows. `taming`
        of the result describes the effect.
    random_state : int, RandomState, Generator or None
        Seed of the density ratio and of the diagnosis; None for a new seed in each call.
    verbose : bool
        Whether to show the progress of searches and stacks, as `densratio.show_progress` does.

    Raises ValueError if the samples differ in their columns or in what a column holds, or for sample_weight with a method whose
    fit takes none; the message says what to type.
    """
    check_number("flatten", flatten, "[0, 1]", ", from equal weights to the ratio itself")
    fitted = _fitted_encoder(encoder, drop, source, target, sample_weight)
    rows, target_rows, seed = fitted.transform(source), fitted.transform(target), seed_of(random_state)
    X, y = stack_domains(rows, target_rows)
    warn_of_order(source, sample_weight, ("source", "sample_weight"), 2)
    given = source_counts(sample_weight, rows.shape[0])
    _warn_of_copies(given)
    left_out = [use.name for use in getattr(fitted, "columns_", ()) if use.kind == "dropped"]
    warn_of_sentinels({"source": source, "target": target}, 2, drop=left_out)
    with show_progress(verbose):
        ratio = _fitted_ratio(ratio_of(method, rows, target_rows, seed, given), X, y, given)
    weights = np.asarray(to_host(ratio.weights_), dtype=np.float64)
    if flatten < 1.0 or given is not None:
        # The ratio itself has mean 1, and `transform` of the source gives it to the last bit.
        weights = weights**flatten * (1.0 if given is None else given / given.max())
        weights = weights / weights.mean()
    taming = None if tame is None else tamed_by(tame, weights)
    weights = weights if taming is None else taming.weights
    diagnosis = diagnose(ratio, _columns(fitted, X), y, weights=weights, random_state=seed)
    # The caller has two tables, and no y.
    remedies = remedies_for(ratio)
    remedies = replace(remedies, words={**remedies.words, "source": "the first table is the source, the second the target"})
    diagnosis = replace(diagnosis, warnings=advise(diagnosis, remedies))
    pipeline = Pipeline([("encoder", fitted), ("ratio", ratio)])
    return ImportanceWeights(_as_source(weights, source), pipeline, diagnosis, tuple(getattr(fitted, "columns_", ())), taming)


def _warn_of_copies(counts: np.ndarray | None) -> None:
    """Warn of whole numbers that are more likely numbers of people per row than numbers of copies."""
    if counts is None or len(counts) < _MANY_ROWS or not np.array_equal(counts, np.rint(counts)) or counts.mean() < _MANY_COPIES:
        return
    warnings.warn(
        f"sample_weight holds whole numbers, which count as copies: {len(counts)} rows are taken for {counts.sum():.0f}. If "
        "they say how many people a row stands for, as in a survey, pass sample_weight / sample_weight.mean().",
        UserWarning, stacklevel=3,
    )  # fmt: skip


def _fitted_ratio(ratio: Any, X: Any, y: np.ndarray, counts: np.ndarray | None) -> Any:
    """The ratio fitted on both samples. counts (n_source,): how often each source row counts; None for once, as target rows."""
    if counts is None:
        return ratio.fit(X, y)
    weight = np.ones(len(y))
    weight[y == 0] = counts
    return ratio.fit(X, y, **{weight_name(ratio): weight})


def ratio_of(method: Any, source: Any, target: Any, seed: int, sample_weight: np.ndarray | None = None) -> Any:
    """The unfitted density ratio with this name for rows (n_s, d) and (n_t, d), or a copy of a given one."""
    if isinstance(method, str) and method.lower() == "auto":
        return automatic(source, target, seed, sample_weight)
    if isinstance(method, str):
        return named_ratio(method, seed)
    if isinstance(method, type) or not all(hasattr(method, name) for name in ("fit", "transform", "get_params")):
        raise ValueError(f"method must be an unfitted density ratio, such as KMM(), or the name of one; got {shown(method)}.")
    return clone(method)


def named_ratio(name: str, seed: int) -> Any:
    """The unfitted density ratio with this name in ESTIMATORS, with the seed if it takes one."""
    if name.lower() not in ESTIMATORS:
        hint = did_you_mean(name, [*ESTIMATORS, "auto"])
        raise ValueError(f'method must be "auto", a density ratio, or one of {sorted(ESTIMATORS)}; got {name!r}.{hint}')
    ratio = ESTIMATORS[name.lower()]()
    return ratio.set_params(random_state=seed) if "random_state" in ratio.get_params(deep=False) else ratio


def _fitted_encoder(encoder: Any, drop: Any, source: Any, target: Any, sample_weight: Any) -> Any:
    if isinstance(encoder, str) and encoder == "auto":
        # The ratio is fitted on arrays under any scikit-learn configuration, and may be used under another one.
        encoder = TableEncoder(drop).set_output(transform="default")
    elif isinstance(encoder, type) or not all(hasattr(encoder, name) for name in ("fit", "transform", "get_params")):
        raise ValueError(f'encoder must be "auto" or an unfitted transformer, such as TableEncoder(); got {shown(encoder)}.')
    elif as_names(drop):
        raise ValueError("drop belongs to the encoder here: give it TableEncoder(drop=...), or drop the columns yourself.")
    encoder = clone(encoder)
    if isinstance(encoder, TableEncoder):
        return encoder.fit_samples(source, target, sample_weight=sample_weight)
    X, y = stack_domains(source, target)
    with of_numbers(encoder, X):
        return encoder.fit(X, y)


def _columns(encoder: Any, X: Any) -> Columns:
    """The encoded rows, with column names if the encoder gives them."""
    columns = numeric_columns(X)
    if not hasattr(encoder, "get_feature_names_out"):
        return columns
    return columns._replace(names=tuple(map(str, encoder.get_feature_names_out())))


def _as_source(weights: np.ndarray, source: Any) -> Any:
    """Weights (n,) as a column of the source's library."""
    library = library_of(source)
    if library == "pandas":
        return import_module("pandas").Series(weights, index=source.index, name="weight")
    if library == "polars":
        return import_module("polars").Series("weight", weights)
    return import_module("pyarrow").array(weights) if library == "pyarrow" else weights
