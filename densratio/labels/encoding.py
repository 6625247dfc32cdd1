"""Tables, images, embeddings and texts as rows of numbers for a classifier."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_array, get_tags

from .._arrays import is_sparse, to_host
from .._columns import check_container, check_table, is_frame, is_missing, library_of
from ..tables import TableEncoder
from ..tables.encoder import of_numbers
from ..tables.reading import column_names
from ..tables.spelling import kind_of_texts, numbers_spelled

__all__ = [
    "FrameEncoder",
    "SparseEncoder",
    "as_images",
    "as_numbers",
    "encoder_of",
    "encodes_itself",
    "free_text",
    "joined_rows",
    "table_of_texts",
]

_CHANNELS = 1, 3, 4  # gray, color, and color with transparency
_IMAGE_FILE = re.compile(r"\.(png|jpe?g|bmp|gif|tiff?|webp)$", re.IGNORECASE)
_WORDS, _DISTINCT, _DIRECTIONS = 3, 0.5, 100  # least mean words and share of distinct values in free text; directions kept


class FrameEncoder:
    """Turn a table into numbers: free text by the main directions of its TF-IDF weights, other columns by `TableEncoder`."""

    def fit(self, X: Any, n_own: int | None = None) -> FrameEncoder:
        """Learn from a frame or an array (n, d), of which the rows after the first n_own are from a second table."""
        names = column_names(X)
        if not names:
            raise ValueError("X has no columns: it needs at least one that tells rows apart.")
        self.texts = {name: _text_pipeline(texts) for name in names if (texts := free_text(_column(X, name))) is not None}
        is_all = len(self.texts) == len(names)
        self.others = None if is_all else _table_encoder(X, n_own, list(self.texts))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The numbers (n, k) of another frame, or array, with these columns."""
        X = X if is_frame(X) else to_host(X) if hasattr(X, "dtype") else np.asarray(X, dtype=object)
        parts = [] if self.others is None else [self.others.transform(X)]
        parts += [pipeline.transform(_texts(_column(X, name))) for name, pipeline in self.texts.items()]
        return np.column_stack(parts)


def _table_encoder(X: Any, n_own: int | None, drop: list[Any]) -> TableEncoder:
    """The encoder of all columns (n, d) but some. Row numbers, which repeat in the rows after the first n_own, are left out."""
    encoder = TableEncoder(drop=drop).set_output(transform="default")
    if n_own is None or n_own == X.shape[0]:
        return encoder.fit_samples(X, X)
    return encoder.fit_samples(X[:n_own], X[n_own:], pooled=True, called=("table X", "table clean"))


def _column(X: Any, name: Any) -> Any:
    """The column with a name of `column_names`. Raises ValueError if there is none."""
    if name not in (names := column_names(X)):
        raise ValueError(f"X has no column {name!r}, which the encoder was fitted on; its columns are {names}.")
    return X[name] if is_frame(X) else X[:, names.index(name)]


def table_of_texts(X: Any) -> np.ndarray | None:
    """X (n, d) as an array, if it is a list of rows or an array in which some entries are texts other than numbers; else None."""
    is_list = isinstance(X, list | tuple) and len(X) > 0 and all(isinstance(row, list | tuple) for row in X)
    if not is_list and not (isinstance(X, np.ndarray) and X.dtype.kind in "OU"):
        return None
    try:
        values = np.asarray(X, dtype=object if is_list else None)
    except ValueError:
        return None
    if values.ndim != 2:
        return None
    is_text = values.dtype.kind == "U"
    texts = values if is_text else np.array([value for value in values.flat if isinstance(value, str)], dtype=object)
    return values if numbers_spelled(texts) is None else None


def free_text(column: Any) -> list[str] | None:
    """Texts (n,) of a column that holds sentences, not names of categories; None for another column."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        return None
    values = [value for value in _values(column) if not is_missing(value)]
    if not values or not all(issubclass(kind, str) for kind in set(map(type, values))):
        return None
    # Names of categories repeat, which is quicker to see than how many words they are.
    if len(set(values)) <= _DISTINCT * len(values):
        return None
    if sum(len(value.split()) for value in values) < _WORDS * len(values):
        return None
    # May 17, 2024 and 1 day 02:03:04 are three words.
    return _texts(column) if kind_of_texts(set(values)) is None else None


def _values(column: Any) -> list[Any]:
    if hasattr(column, "to_pylist"):
        return column.to_pylist()
    # Iterating over a pandas column of texts makes them one by one.
    return column.tolist() if library_of(column) == "pandas" else list(column)


def _texts(column: Any) -> list[str]:
    return ["" if is_missing(value) else str(value) for value in _values(column)]


class TextEncoder:
    """Turn texts (n,) into the main directions of their TF-IDF weights."""

    def fit(self, X: Any) -> TextEncoder:
        """Learn from texts (n,)."""
        texts = _texts(X)
        if all(map(_IMAGE_FILE.search, texts)):
            raise ValueError(
                f"X holds names of image files, such as {texts[0]!r}: pass the images themselves, (n, c, h, w) or (n, h, w, c). "
                "densratio.datasets.load_image_folder(folder) reads a folder of them, .inputs and .labels."
            )
        self.pipeline = _text_pipeline(texts)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The numbers (n, k) of other texts."""
        # A column of missing texts only is accepted too.
        if not (_are_texts(X) or (_is_column(X) and all(map(is_missing, _values(X))))):
            raise ValueError("The classifier was fitted on texts (n,): pass a list, an array or a column of them.")
        return self.pipeline.transform(_texts(X))


class SparseEncoder:
    """Turn sparse rows (n, d) into dense ones: as they are up to 100 columns, beyond by their main directions."""

    def fit(self, X: Any) -> SparseEncoder:
        """Learn from sparse rows (n, d)."""
        rows = check_array(X, accept_sparse="csr", dtype=np.float64, input_name="X")
        self.directions = _main_directions(rows) if rows.shape[1] > _DIRECTIONS else None
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The numbers (n, k) of other rows, sparse or dense."""
        rows = check_array(X if is_sparse(X) else to_host(X), accept_sparse="csr", dtype=np.float64, input_name="X")
        if self.directions is not None:
            return self.directions.transform(rows)
        return _dense(rows) if is_sparse(rows) else rows


def _dense_rows(rows: Any) -> np.ndarray:
    return SparseEncoder().fit(rows).transform(rows).astype(np.float32)


def encoder_of(X: Any) -> FrameEncoder | SparseEncoder | TextEncoder | None:
    """A fitted encoder for texts, sparse rows, and tables with gaps or columns that are not numbers; None for other rows."""
    if _are_texts(X):
        return TextEncoder().fit(X)
    if is_sparse(X):
        return SparseEncoder().fit(X)
    if (table := table_of_texts(X)) is not None:
        return FrameEncoder().fit(table)
    if not is_frame(X):
        return FrameEncoder().fit(np.asarray(to_host(X))) if _has_gaps(X) else None
    kinds = [getattr(dtype, "kind", "O") for dtype in getattr(X, "dtypes", [None])]
    has_others = any(kind not in "fiu" for kind in kinds)
    return FrameEncoder().fit(X) if has_others or np.isnan(np.asarray(X, dtype=np.float64)).any() else None


def _has_gaps(X: Any) -> bool:
    """Whether rows (n, d) that are no frame hold NaN or None."""
    try:
        values = np.asarray(to_host(X))
        values = values.astype(np.float64) if values.dtype.kind == "O" else values
    except (TypeError, ValueError):
        return False
    return values.ndim == 2 and values.dtype.kind == "f" and bool(np.isnan(values).any())


def _text_pipeline(texts: list[str]) -> Any:
    """A fitted pipeline from texts (n,) to numbers (n, k). A word has two letters or digits; without any, every part counts."""
    if not any(map(str.strip, texts)):
        raise ValueError("A column of text holds no words: all texts are empty or missing.")
    weights = TfidfVectorizer(sublinear_tf=True, max_features=50_000)
    try:
        terms = weights.fit_transform(texts)
    except ValueError:
        terms = weights.set_params(token_pattern=r"\S+").fit_transform(texts)
    # One direction fewer than words could lose the one that distinguishes the texts.
    is_short = terms.shape[1] <= _n_directions(terms)
    return make_pipeline(weights, FunctionTransformer(_dense).fit(terms) if is_short else _main_directions(terms))


def _dense(rows: Any) -> np.ndarray:
    return rows.toarray()


def _n_directions(terms: Any) -> int:
    # With few texts most directions are noise.
    return max(1, min(_DIRECTIONS, terms.shape[0] // 10))


def _main_directions(terms: Any) -> TruncatedSVD:
    # Rows that are all alike have no variance for scikit-learn to divide by, and directions all the same.
    with np.errstate(invalid="ignore", divide="ignore"):
        return TruncatedSVD(min(_n_directions(terms), terms.shape[1] - 1), random_state=0).fit(terms)


def _are_texts(X: Any) -> bool:
    """Whether X is a column of texts (n,), some of which may be missing."""
    if not _is_column(X):
        return False
    values = _values(X)
    return any(isinstance(value, str) for value in values) and all(isinstance(v, str | float) or is_missing(v) for v in values)


def _is_column(X: Any) -> bool:
    """Whether X is a list, or a column of any library."""
    if isinstance(X, list | tuple):
        return len(X) > 0
    return not is_frame(X) and (hasattr(X, "to_pylist") or len(getattr(X, "shape", ())) == 1) and len(X) > 0


def encodes_itself(model: Any) -> bool:
    """Whether a model is a pipeline that begins with what reads a frame, texts or categories as they are."""
    first = model.steps[0][1] if hasattr(model, "steps") else None
    if not hasattr(first, "__sklearn_tags__"):
        return False
    tags = get_tags(first).input_tags
    return tags.string or tags.categorical or hasattr(first, "transformers")


def as_numbers(X: Any, encoder: Any, *, has_model: bool, keeps_images: bool = False, n_own: int | None = None) -> Any:
    """Rows (n, d) for a model, or images (n, c, h, w) with `keeps_images`. encoder: as in `find_label_issues`.

    n_own: after how many rows those of a second sample begin.
    """
    if encoder is None:
        return X
    if isinstance(encoder, type):
        raise ValueError(f"encoder is a class: pass an instance of it, encoder={encoder.__name__}(...).")
    if hasattr(encoder, "fit_transform"):
        with of_numbers(encoder, X):
            rows = encoder.fit_transform(X)
        return rows if has_model or not is_sparse(rows) else _dense_rows(rows)
    if hasattr(encoder, "encode") and not isinstance(encoder, str):
        return np.asarray(to_host(encoder.encode(_texts(X) if _are_texts(X) else X)))
    if callable(encoder):
        return np.asarray(to_host(encoder(X)))
    if encoder != "auto":
        raise ValueError(f'encoder must be "auto", None, a function, a transformer, or a model with encode; got {encoder!r}.')
    if not has_model and isinstance(X, np.ndarray) and X.ndim > 1 and X.dtype.kind in "US":
        X = X if (numbers := numbers_spelled(X)) is None else numbers
    table = X if is_frame(X) else None if has_model else table_of_texts(X)
    if table is not None:
        return FrameEncoder().fit(table, n_own).transform(table).astype(np.float32)
    if is_sparse(X):
        return X if has_model else _dense_rows(X)
    if not has_model and _are_texts(X):
        return TextEncoder().fit(X).transform(X).astype(np.float32)
    rows = _array(X)
    if has_model:
        return rows if keeps_images else rows.reshape(len(rows), -1)
    if keeps_images and rows.ndim in (3, 4):
        return _whole(as_images(rows))
    rows = rows.reshape(len(rows), -1)
    return _table_encoder(rows, n_own, []).transform(rows).astype(np.float32)


def as_images(values: np.ndarray) -> np.ndarray:
    """Images (n, c, h, w), from gray ones (n, h, w), from ones with channels last (n, h, w, c), or as they are."""
    if values.ndim == 3:
        return values[:, None]
    is_last = values.ndim == 4 and values.shape[1] not in _CHANNELS and values.shape[3] in _CHANNELS
    return np.moveaxis(values, 3, 1) if is_last else values


def _whole(images: np.ndarray) -> np.ndarray:
    try:
        images = images if images.dtype.kind in "fiub" else images.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError("X holds images (n, ...) whose pixels are not all numbers: make them numbers first.") from None
    is_bad = ~np.isfinite(images.reshape(len(images), -1)).all(axis=1)
    if is_bad.any():
        raise ValueError(
            f"{int(is_bad.sum())} images hold NaN or infinite pixels, the first in row {int(is_bad.argmax())}: "
            "leave them out, or fill them, as by np.nan_to_num(X)."
        )
    return images


def _array(X: Any) -> np.ndarray:
    """Rows of numbers (n, d), or images as they are."""
    if not _are_texts(X):
        check_table(X)
    X = check_container(X)
    try:
        values = np.asarray(to_host(X))
    except ValueError:
        values = np.empty(0, dtype=object)
    if values.dtype.kind == "O" and values.ndim < 2 and not _are_texts(X):
        if not isinstance(X, list | tuple | np.ndarray):
            raise ValueError(f"X is a {type(X).__name__}: pass its rows (n, d) or images (n, c, h, w), as an array or a tensor.")
        shapes = sorted({str(np.shape(x)) for x in X})[:3]
        raise ValueError(f"The rows of X have different shapes, {', '.join(shapes)}: bring all images to one size first.")
    if values.dtype.kind in "USO" and values.ndim == 1:
        raise ValueError(
            "X holds text: encoder=None hands it to the model as it is; or pass encoder=, such as TfidfVectorizer(), or embeddings."
        )
    if values.ndim < 2:
        raise ValueError(
            f"X must be rows (n, d) or images (n, c, h, w); got shape {values.shape}. X.reshape(-1, 1) makes one column."
        )
    if not values.size:
        raise ValueError(f"X is empty, of shape {values.shape}: it needs rows with at least one value.")
    return values


def joined_rows(X: Any, more: Any) -> Any:
    """The rows of X and then those of a second sample of the same kind."""
    if is_frame(X) != is_frame(more):
        raise ValueError("clean holds a table with column names or an array, and X the other: pass both alike.")
    if is_frame(X):
        names = column_names(X)
        if only := sorted(map(str, set(names) ^ set(column_names(more)))):
            raise ValueError(f"X and clean have different columns: only one of them has {', '.join(only[:5])}. Give both the same.")
        if library_of(X) != library_of(more):
            X, more = (frame.to_pandas() if hasattr(frame, "to_pandas") else frame for frame in (X, more))
        library = import_module(library_of(X))
        join = library.concat_tables if hasattr(library, "concat_tables") else library.concat
        return join([X, more.select(names) if hasattr(more, "select") else more[names]])
    if isinstance(X, list):
        return [*X, *more]
    X, more = (np.asarray(to_host(check_container(x))) for x in (X, more))
    if X.shape[1:] != more.shape[1:]:
        raise ValueError(f"Rows of X have the shape {X.shape[1:]} and those of clean {more.shape[1:]}: pass both alike.")
    return np.concatenate([X, more])
