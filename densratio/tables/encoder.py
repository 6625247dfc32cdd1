"""TableEncoder: converts any table into numbers, with one rule for each column, learned from both samples together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from .._arrays import to_host
from .._callers import outer_level
from .._columns import check_container, is_frame, shown
from .._estimator import Estimator
from .._names import alike, nearest
from .._scale import as_counts
from .._validation import check_count, check_sample_weight, split_domains
from .reading import KINDS, Column, column_names, loose_values, objects, pairs_of, read_column, table_of
from .spelling import advice_on_numbers, advice_on_texts
from .use import ColumnUse, dropped, numbers_rows, use_of

__all__ = ["TableEncoder", "as_names", "of_numbers", "source_counts"]

_NAMED = 5  # columns that an error names
_NOT_FITTED = "This TableEncoder is not fitted yet: call fit(X, y) or fit_samples(source, target)."


class TableEncoder(TransformerMixin, Estimator):
    """Turn the columns of a table into numbers for a density ratio, gaps and categories included.

    - Numbers stay. Dates become days since 1970 (in UTC if they have a time zone), durations days, times of the day the elapsed
      share of the day. A gap becomes the median of both samples, and an additional 0/1 column marks it.
    - Text, categories and booleans become one 0/1 column for each frequent level, one for all rarer levels, and one for gaps.
      Levels in 10 rows of a sample are frequent (5 % of the rows if that is less, 0.5 % if more). A level that the fit did not see
      counts as rare.
    - Constant columns, empty ones, texts that hardly repeat, and whole numbers in equal steps, as row numbers, are dropped;
      `columns_` says so.

    With `scale="auto"` in the density ratio, two rows with different levels are then about as far apart as two rows in a column of
    numbers. Levels are not replaced by their share of target rows, as a target encoder would do: that needs cross-fitting on the
    rows to be weighted, and then `transform` of the source rows would no longer give their weights.

    Parameters
    ----------
    drop : name or sequence of names
        Columns to leave out, such as the label; either sample may lack them.
    max_levels : int or None
        Maximal number of levels of a column with a 0/1 column each. None: 30, or 100 levels with 20 rows or more of a sample each.
    keep : name or sequence of names
        Columns of whole numbers that look like row numbers but are measurements.

    Attributes
    ----------
    columns_ : tuple of ColumnUse, what was done to each column.
    feature_names_in_ : (d,) the columns of the table that are read.
    """

    def __init__(self, drop: Any = (), *, max_levels: int | None = None, keep: Any = ()):
        self.drop = drop
        self.max_levels = max_levels
        self.keep = keep

    def fit(self, X: Any, y: Any = None) -> TableEncoder:
        """Learn from one table X (n, d); the smaller value of y (n,) marks source rows, the other one target rows.

        Any other y, such as the classes or numbers that a Pipeline learns to predict, leaves all rows in one sample.
        """
        X = table_of(X, "X")
        if y is None or not _has_two_values(y, X.shape[0]):
            return self.fit_samples(X, X)
        with warnings.catch_warnings():
            # The numbers are the same whichever sample is the source, and a y to predict has none.
            warnings.simplefilter("ignore")
            is_source = split_domains(BaseEstimator(), np.zeros((X.shape[0], 1)), y, reset=True)[1]
        return self.fit_samples(*(_safe_indexing(X, np.flatnonzero(rows)) for rows in (is_source, ~is_source)))

    def fit_samples(
        self,
        source: Any,
        target: Any,
        *,
        sample_weight: Any = None,
        pooled: bool = False,
        called: tuple[str, str] = ("source", "target"),
    ) -> TableEncoder:
        """Learn from two tables (n_s, d) and (n_t, d) with the same columns. Raises ValueError if the columns differ.

        sample_weight (n_s,): how often each source row counts, as in `importance_weights`; None for once.
        pooled: whether to treat all rows as one sample, so that the rules do not depend on the sample of any row.
        called: the names of two tables in messages.
        """
        max_levels = None if self.max_levels is None else check_count("max_levels", self.max_levels)
        is_one = source is target
        source = table_of(source, "X" if is_one else called[0])
        target = source if is_one else table_of(target, called[1])
        names, left_out = self._names(source, target)
        pairs = pairs_of(source, target, names, called)
        of_text = [name for name, (column, _) in pairs.items() if column.kind == "categories"]
        texts = {name: [loose_values(table, name) for table in ([source] if is_one else [source, target])] for name in of_text}
        _warn_of_mistaken(source, pairs, texts)
        counted = self._row_numbers(pairs)
        counts = source_counts(sample_weight, source.shape[0])
        if counts is not None:
            pairs = {name: (mine.counted(counts), theirs) for name, (mine, theirs) in pairs.items()}
        if pooled:
            pairs = {name: (both := columns[0].followed_by(columns[1]), both) for name, columns in pairs.items()}
        uses = [
            counted.get(name) or use_of(name, *columns, max_levels, any(texts.get(name, ()))) for name, columns in pairs.items()
        ]
        if not any(use.encoded_names for use in uses):
            reasons = "; ".join(map(str, uses))
            raise ValueError(f"No column is left to tell rows apart by. {reasons or 'drop leaves out all of them'}.")
        self.columns_ = (*uses, *(dropped(name, "as asked") for name in left_out))
        self.feature_names_in_ = objects([use.name for use in uses if use.kind != "dropped"])
        self.n_features_in_ = len(self.feature_names_in_)
        self._is_named = is_frame(source)
        self._width = source.shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The numbers (n, k) of a table X (n, d); a frame if `set_output` asks for one.

        Columns that the encoder does not read are ignored and may be missing.
        """
        check_is_fitted(self, "columns_", msg=_NOT_FITTED)
        X = table_of(X, "X")
        if is_frame(X) != self._is_named:
            then, now = ("a table with column names", "an array") if self._is_named else ("an array", "a table with column names")
            raise ValueError(f"The encoder was fitted on {then}, and X is {now}: pass X as then.")
        known = column_names(X)
        if missing := [name for name in self.feature_names_in_ if name not in known]:
            raise ValueError(f"X has no column {missing[0]!r}, which the encoder was fitted on; its columns are {known}.")
        if not self._is_named and X.shape[1] != self._width:
            raise ValueError(f"X has {X.shape[1]} columns, but TableEncoder is expecting {self._width} columns as input.")
        blocks = [use.encode(_as_fitted(read_column(X, use.name, "table X"), use)) for use in self._used]
        return np.column_stack(blocks)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names (k,) of the numbers: column, column=level, column (missing); a name already in use gets an underscore."""
        check_is_fitted(self, "columns_", msg=_NOT_FITTED)
        names: dict[str, None] = {}
        for name in (name for use in self._used for name in use.encoded_names):
            while name in names:
                name += "_"
            names[name] = None
        return np.array(list(names), dtype=object)

    # ------------------------------------------------------------ parts

    @property
    def _used(self) -> list[ColumnUse]:
        return [use for use in self.columns_ if use.kind != "dropped"]

    def _names(self, source: Any, target: Any) -> tuple[list[Any], list[Any]]:
        """Names of the columns to read, in the source's order, and of those that `drop` leaves out."""
        if is_frame(source) != is_frame(target):
            named, plain = ("source", "target") if is_frame(source) else ("target", "source")
            raise ValueError(
                f"The {named} has column names and the {plain} has none: pass both alike, such as "
                f"{plain} = pandas.DataFrame({plain}, columns={named}.columns)."
            )
        names = [column_names(table) for table in (source, target)]
        known = list(dict.fromkeys([*names[0], *names[1]]))
        left_out = list(dict.fromkeys(as_names(self.drop)))
        for name in left_out:
            if name not in known:
                names_of = {str(other): other for other in known}
                near = nearest(name, names_of, n=1)
                hint = f"Did you mean {names_of[near[0]]!r}?" if near else f"The columns are {known}."
                raise ValueError(f"drop: neither sample has a column {name!r}. {hint}")
        mine, theirs = ([name for name in some if name not in left_out] for some in names)
        only = [[name for name in mine if name not in theirs], [name for name in theirs if name not in mine]]
        if any(only):
            sides = zip(("source", "target"), only, strict=True)
            facts = " and ".join(f"only the {side} has {some}" for side, some in sides if some)
            pairs = " and of ".join(f"{name!r} and {other!r}" for name, other in alike(*only))
            rename = f" Rename one of {pairs}, if they are one column." if pairs else ""
            raise ValueError(
                f"The samples have different columns: {facts}.{rename} Leave these out with "
                f"drop={[*left_out, *only[0], *only[1]]}, or give both the same names."
            )
        return mine, left_out

    def _row_numbers(self, pairs: Mapping[Any, tuple[Column, Column]]) -> dict[Any, ColumnUse]:
        """The columns of row numbers that `keep` does not name, with a warning for each."""
        found = [name for name, columns in pairs.items() if name not in as_names(self.keep) and numbers_rows(*columns)]
        for name in found:
            warnings.warn(
                f"Column {name!r} counts up without repeating, as row numbers do: it is left out. If it measures something, "
                f"encoder=TableEncoder(keep=[{name!r}]) keeps it, and --columns on the command line.",
                UserWarning,
                stacklevel=outer_level(),
            )
        return {name: dropped(name, "whole numbers in equal steps: they name rows and do not describe them") for name in found}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags


@contextmanager
def of_numbers(encoder: Any, X: Any) -> Iterator[None]:
    """Raise ValueError that names the columns of X that are not numbers where a given encoder fails to convert one."""
    try:
        yield
    except (TypeError, ValueError) as error:
        is_table = is_frame(X) or len(getattr(X, "shape", ())) == 2
        # numpy's errors for text and for dates.
        if not is_table or not ("could not convert" in str(error) or isinstance(error, TypeError)):
            raise
        kinds = {name: read_column(X, name, "table X").kind for name in column_names(X)}
        odd = [f"{name!r} {KINDS[kind]}" for name, kind in kinds.items() if kind not in ("numbers", "booleans", "empty")]
        if not odd:
            raise
        given = code if (code := shown(encoder)).endswith(")") else "encoder"
        more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
        raise ValueError(
            f"The given encoder takes numbers, and these columns hold something else: {', '.join(odd[:_NAMED])}{more}. Put a "
            f"TableEncoder before it, encoder=sklearn.pipeline.make_pipeline(TableEncoder(), {given}), or leave out "
            f"encoder=. It said: {error}"
        ) from error


def source_counts(sample_weight: Any, n_rows: int) -> np.ndarray | None:
    """How often each source row counts (n_rows,): whole numbers unchanged; other weights have no unit and get mean 1."""
    weight = check_sample_weight(sample_weight, n_rows, " of the source")
    if weight is not None and weight.max() == 0.0:
        raise ValueError("sample_weight is 0 in every source row: at least one must be positive.")
    return None if weight is None else as_counts(weight)


def _has_two_values(y: Any, n_rows: int) -> bool:
    """Whether y (n,) can be domain labels. Raises ValueError for another number of rows."""
    labels = np.asarray(to_host(check_container(y, "y")))
    if labels.shape[:1] != (n_rows,):
        raise ValueError(f"X has {n_rows} rows, and y has shape {labels.shape}: pass one value for each row.")
    # Distinct objects of several types can't be sorted.
    return labels.size == n_rows and len(set(labels.ravel().tolist())) == 2


def as_names(drop: Any) -> list[Any]:
    """One name or several as a list; none for None."""
    if drop is None:
        return []
    return list(drop) if isinstance(drop, Iterable) and not isinstance(drop, str) else [drop]


def _warn_of_mistaken(X: Any, pairs: Mapping[Any, Sequence[Column]], texts: Mapping[Any, Sequence[Sequence[Any]]]) -> None:
    """Warn of columns of X that are not what they are taken for: categories, with their texts, or numbers in both samples."""
    for name, pair in pairs.items():
        advice = advice_on_texts(X, name, texts[name]) if name in texts else None
        if pair[0].kind == "numbers":
            samples = [pair[0].values] if pair[0] is pair[1] else [column.values for column in pair]
            advice = advice_on_numbers(X, name, samples)
        if advice is not None:
            warnings.warn(advice, UserWarning, stacklevel=outer_level())


def _as_fitted(column: Column, use: ColumnUse) -> Column:
    """The column, converted to the kind of the fit. Raises ValueError if it holds something else."""
    if column.kind == use.kind or column.kind == "empty":
        return column.of_kind(use.kind)
    is_true_or_false = use.kind == "booleans" and np.isin(column.values[~column.is_gap], (0.0, 1.0)).all()
    if {column.kind, use.kind} == {"numbers", "booleans"} and (use.kind == "numbers" or is_true_or_false):
        return Column(use.kind, column.values)
    raise ValueError(
        f"Column {use.name!r} holds {KINDS[column.kind]}, and the encoder was fitted on {KINDS[use.kind]}: pass the same kind of "
        "values as then."
    )
