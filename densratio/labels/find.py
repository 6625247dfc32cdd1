"""`find_label_issues`: rows of a table, of images or of texts whose label is likely wrong."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils import _safe_indexing

from .._arrays import is_sparse, to_host, usable_device
from .._callers import outer_level
from .._columns import check_container, is_frame, shown, warn_of_order
from .._progress import show_progress
from .._sentinels import warn_of_sentinels
from .._validation import check_count, seed_of
from .checked import checked_rows
from .default_model import default_model, default_threads, has_torch, makes_networks, torch_network
from .encoding import as_numbers, encodes_itself, joined_rows
from .frame import issue_frame, pandas_module, with_interval
from .given import class_codes, clean_rows, label_array, warn_of_labels, warn_of_spellings
from .held_out import copies_of, fitted_to, label_folds, n_deals, out_of_fold, takes_kernels
from .numbers import NumberModel, as_targets, out_of_fold_numbers
from .probabilities import class_issues
from .rows import OwnOrder, own_order

__all__ = ["find_label_issues"]

_MANY, _MANY_IMAGES = 100_000, 20_000  # rows, and images, from which the expected time is announced


def find_label_issues(
    X: Any,
    labels: Any,
    *,
    kind: str = "auto",
    clean: Any = None,
    checked: Any = None,
    model: Any = None,
    encoder: Any = "auto",
    groups: Any = None,
    cv: int = 5,
    n_repeats: int | None = None,
    random_state: Any = 0,
    n_jobs: int | None = None,
    device: str = "cpu",
    verbose: int = 0,
) -> Any:
    """List rows by a calibrated probability that their label is wrong, and estimate the number of wrong labels.

    A classifier predicts the labels of rows that it did not learn from. Its predictions contain the noise of the labels, so the
    confusion T_kj = P(given j | true k) and the true classes q_k(x) are estimated together from sum_k q_k T_kj, and
    score = 1 - q_g T_gg / sum_k q_k T_kg for a given label g. Probabilities are calibrated first, and T treats all classes alike
    unless the labels clearly say otherwise. If the classifier is sure of few rows of a class, overlapping classes and wrong labels
    look alike: the number is then the lower limit of those that are about as likely, and `clean` rows help.
    The model assumes that wrong labels depend on the true class. If they also depend on the row, as when people mislabel hard rows,
    there are more than estimated, unless the classifier is weak. Clean rows, a sample of those whose label is right, then flatten
    scores that are too sure, and keep their order and their sum. Checked rows determine the number: the log odds of the scores are
    shifted and stretched to agree with the checks, and the number has a 90 % interval.

    Numbers, the target of a regression, are wrong if they are unlikely for their row, and likely for any other row or far from all.
    Out-of-fold predictions and their spread give a Student's t density with a spread on each side; the density of all targets
    stands for a number from another row, and a uniform one for an arbitrary number. The shares of the latter two maximize the
    likelihood if they gain more than ln(n) in log-likelihood, else they are half a row. If rows say little about the numbers, wrong
    numbers within the range of the others can't be distinguished from broad errors: then few are issues, and the interval of their
    number is wide. Each column of labels (n, L), such as the 0 and 1 of several tags, is treated separately.

    Parameters
    ----------
    X : table (n, d) with numbers, categories, dates and gaps (pandas, polars, Arrow, array), images (n, c, h, w),
        (n, h, w, c) or (n, h, w), embeddings, or anything that `encoder` turns into them.
    labels : (n,) given classes, text or whole numbers; numbers; or (n, L), several for each row.
    kind : "classes", "numbers", or "auto": numbers if labels hold fractions, or more than 50 whole numbers for four rows each.
    clean : row numbers or a mask of rows known to be right; for classes (n,) also a second (X, labels) that is right.
    checked : (row numbers or a mask, right labels) of rows drawn at random and checked by a person, or a dict of labels by row
        number; for classes (n,). Draw them from all rows, not from the doubtful ones: 200 determine the number to within a tenth to
        a fifth. They are listed with score 1 if the given label is wrong, else 0.
    model : scikit-learn classifier with predict_proba, for numbers a regressor, or a function (n_features or shape, n_classes) ->
        nn.Module that sees rows (d,) or images (c, h, w) as they are. One of a kernel or distance matrix, as with
        SVC(kernel="precomputed"), has X (n, n). None: whichever predicts best of a perceptron, on columns with one unit or scaled
        each, boosted trees, large or small, logistic regression, and a forest for 100 to 2,000 rows; for numbers boosted trees; for
        images convolutions, trained on images moved by a few pixels, and mirrored if that helps, or a perceptron.
    encoder : "auto" (`densratio.tables.TableEncoder` for frames, and for arrays without a model; columns of sentences, and texts
        (n,), become the 100 main directions of their TF-IDF weights; nothing for a pipeline that begins with a column transformer,
        a vectorizer of texts or an encoder of categories), a function X -> (n, d), a transformer, a model of sentences with
        encode(texts) -> (n, d), or None to pass X to the model as it is.
    groups : (n,) rows of one group are never held out while others of it are learned from. None: copies of a row form a group if
        most rows have copies, as in tables whose classes were balanced by copying. A class of one group can't be judged.
    cv : number of folds. n_repeats : how often the rows are dealt into folds. The mean prediction, which depends less on the rows
        that a model learned from, ranks the rows; the scores are as sure as on average over the deals. None: 4 times up to 5,000
        rows, twice for images, fewer for more rows, once above 10,000.
    random_state : int, Generator, or None for other folds in each call. Folds don't follow the order of the rows if these are
        numbers in the end, and equal rows with the same label have the mean of their predictions.
    n_jobs : folds at a time, each in a process of its own; with a GPU each has its own copy of the rows there.
    device : where networks are trained, the default ones and those of a function: "cpu", "cuda", "mps". The rows must fit in its
        memory as float32. Models of scikit-learn ignore it.
    verbose : whether to show the progress over the models compared and over the folds, as `densratio.show_progress` does.

    Returns a pandas frame, the worst row first: row, given_label, suggested_label, score in [0, 1], is_issue; for labels (n, L)
    also column. The worst rows are issues, as many as the scores sum to, but none below .1. Its attrs hold n_issues, the rounded
    sum, and n_issues_interval: the fewest and the most wrong labels that are about as likely as the most likely number; with
    checked rows a 90 % interval; for numbers one that allows for a rough model of the errors and takes the predictions as they are.
    If these are far apart a warning says so: then trust the order, not the number. For classes attrs also hold these, the
    transition, and n_disagreements: the rows whose given label is not the likeliest class of the predictions. If wrong labels lie
    on hard rows, as people's do, their number is between n_issues and this: then check some rows.
    Raises ValueError for labels that are missing or of one class, for clean labels of another class, for images of several sizes,
    and for a device that is unknown or absent.
    """
    pandas = pandas_module()
    if kind not in ("auto", "classes", "numbers"):
        raise ValueError(f'kind must be "auto", "classes" or "numbers"; got {kind!r}.')
    check_count("cv", cv, 2)
    if device != "cpu":
        usable_device(device)
    seed = seed_of(random_state)
    warn_of_order(X, labels, ("X", "labels"), 2)
    clean = tuple(clean) if isinstance(clean, list) and len(clean) == 2 and np.ndim(clean[1]) > 0 else clean
    if getattr(labels, "ndim", 1) == 2:
        if checked is not None:
            raise ValueError("checked is for one label a row, and labels are (n, L): call once for each column.")
        one = partial(
            find_label_issues, X, kind=kind, clean=clean, model=model, encoder=encoder, groups=groups, cv=cv,
            n_repeats=n_repeats, random_state=seed, n_jobs=n_jobs, device=device, verbose=verbose,
        )  # fmt: skip
        return _by_column(pandas, labels, clean, one)
    encoder = None if isinstance(encoder, str) and encoder == "auto" and encodes_itself(model) else encoder
    targets = None if kind == "classes" else as_targets(labels, kind)
    if targets is not None:
        if checked is not None:
            raise ValueError("checked is for classes, and these labels are numbers: leave it out.")
        warn_of_labels(X, targets, 2)
        warn_of_sentinels({"X": X}, 2)
        rows = as_numbers(X, encoder, has_model=model is not None)
        how = cv, n_deals(n_repeats, len(targets)), seed, n_jobs
        with show_progress(bool(verbose)):
            return _number_issues(rows, targets, clean, model, groups, how)
    names, given = class_codes(labels)
    n_rows, seen = len(given), checked_rows(checked, names[given])
    warn_of_spellings(names, 2)
    warn_of_labels(X, given, 2)
    warn_of_sentinels({"X": X}, 2)
    X, given, is_clean = _with_clean(X, given, names, clean)
    keeps_images = has_torch() if model is None else not hasattr(model, "predict_proba")
    rows = as_numbers(X, encoder, has_model=model is not None, keeps_images=keeps_images, n_own=n_rows)
    _check_lengths(rows, given, n_rows)
    together = copies_of(rows) if groups is None else _groups(groups, n_rows, len(given))
    n_repeats = n_deals(n_repeats, len(given), are_images=getattr(rows, "ndim", 2) > 2)
    order, rows, drawn, its_groups = _in_own_order(model, rows, given, together, is_clean)
    deals = [label_folds(drawn, its_groups, cv, seed + repeat) for repeat in range(n_repeats)]
    is_alone = _alone(given, names, together)
    with show_progress(bool(verbose)):
        chosen = default_model(rows, drawn, seed, its_groups, device) if model is None else _classifier(model, seed, device)
        if n_rows >= (_MANY_IMAGES if getattr(rows, "ndim", 2) > 2 else _MANY):
            _say_how_long(chosen, rows, drawn, len(deals) * len(deals[0]), seed, device)
        with default_threads(chosen, rows) if model is None else nullcontext():
            dealt = order.given(out_of_fold(chosen, rows, drawn, deals, n_jobs))
    return class_issues(names, given, dealt, is_clean | is_alone, seen, n_rows)


def _number_issues(
    rows: Any, targets: np.ndarray, clean: Any, model: Any, groups: Any, how: tuple[int, int, int, int | None]
) -> Any:
    """The frame of numbers (n,) that are likely wrong. how: folds, deals, seed and jobs."""
    if isinstance(clean, tuple):
        raise ValueError("clean with rows of its own is for classes, and these labels are numbers: pass row numbers or a mask.")
    n_rows = len(targets)
    _check_lengths(rows, targets, n_rows)
    is_clean = clean_rows(clean, n_rows)
    order, rows, drawn, groups = _in_own_order(model, rows, targets, _groups(groups, n_rows, n_rows), is_clean)
    with default_threads(model, rows) if model is None else nullcontext():
        found = out_of_fold_numbers(_regressor(model), rows, drawn, groups, *how)
    predicted, spread = order.given(np.stack(found))
    numbers = NumberModel(targets, predicted, spread, is_clean)
    frame, limits = issue_frame(targets, predicted, numbers.scores()), numbers.limits()
    return with_interval(frame, limits, "the rows say too little about the numbers", "look at rows drawn at random.")


def _in_own_order(
    model: Any, rows: Any, values: np.ndarray, groups: np.ndarray | None, is_clean: np.ndarray
) -> tuple[OwnOrder, Any, np.ndarray, np.ndarray | None]:
    """An order of rows, values (n,) and groups, and these in it: so folds don't follow the given order."""
    order = own_order(None if takes_kernels(model) else rows, values, groups, is_clean)
    at = order.rows
    return order, _safe_indexing(rows, at), values[at], None if groups is None else groups[at]


def _by_column(pandas: Any, labels: Any, clean: Any, one: Callable[[list[Any]], Any]) -> Any:
    """The issues of each column of labels (n, L), listed by `one`, together, the worst first."""
    if isinstance(clean, tuple):
        raise ValueError("With labels (n, L) clean must be row numbers or a mask: put the clean rows into X and labels.")
    names = list(labels.columns) if hasattr(labels, "columns") else range(labels.shape[1])
    columns = list(np.asarray(to_host(labels)).T)
    for name, column in zip(names, columns, strict=True):
        label_array(column, f"column {name!r} of labels")
    _warn_of_one_hot(columns)
    alike = [len(column) > 0 and bool((column == column[0]).all()) for column in columns]
    skips = any(alike) and not all(alike)
    if skips:
        skipped = ", ".join(str(name) for name, is_alike in zip(names, alike, strict=True) if is_alike)
        warnings.warn(f"Columns of labels that hold one value alone have no issues: {skipped}.", UserWarning, stacklevel=3)
    found = [
        issue_frame(column, column, np.zeros(len(column))) if skips and is_alike else one(column.tolist())
        for column, is_alike in zip(columns, alike, strict=True)
    ]
    n_issues = sum(frame.attrs["n_issues"] for frame in found)
    for name, frame in zip(names, found, strict=True):
        frame.insert(1, "column", name)
        frame.attrs.clear()
    whole = pandas.concat(found).sort_values("score", ascending=False, kind="stable", ignore_index=True)
    whole.attrs["n_issues"] = n_issues
    return whole


def _warn_of_one_hot(columns: list[np.ndarray]) -> None:
    if len(columns) > 1 and all(np.isin(column, [0, 1]).all() for column in columns) and (np.sum(columns, axis=0) == 1).all():
        warnings.warn(
            "Each row of labels has exactly one 1, as one-hot classes do, and each column is judged on its own. If they are "
            "classes, pass one label for each row: labels.idxmax(axis=1) of a pandas frame, labels.argmax(axis=1) of an array.",
            UserWarning, stacklevel=4,
        )  # fmt: skip


def _with_clean(X: Any, given: np.ndarray, names: np.ndarray, clean: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Rows and labels, followed by those of a second clean sample, and which of them are right."""
    if isinstance(clean, tuple) and len(clean) == 2:
        clean = check_container(clean[0], "clean") if not is_frame(clean[0]) else clean[0], clean[1]
    if not (isinstance(clean, tuple) and len(clean) == 2 and np.ndim(clean[0]) != 0 and np.ndim(clean[0]) >= np.ndim(X) > 0):
        return X, given, clean_rows(clean, len(given))
    extra = _clean_codes(clean[1], names)
    is_clean = np.repeat([False, True], [len(given), len(extra)])
    return joined_rows(X, clean[0]), np.concatenate([given, extra]), is_clean


def _check_lengths(rows: Any, given: np.ndarray, n_rows: int) -> None:
    n_found = rows.shape[0] if is_sparse(rows) else len(rows)
    if n_found != len(given):
        raise ValueError(f"X has {n_found - len(given) + n_rows} rows and there are {n_rows} labels: pass one label for each row.")


def _alone(given: np.ndarray, names: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Mask (n,) of rows whose class is one row, or one of the groups (n,), with a warning; ValueError if all are."""
    n_groups = len(given) if groups is None else int(groups.max()) + 1
    pairs = np.unique(given * n_groups + (np.arange(n_groups) if groups is None else groups))
    alone = np.bincount(pairs // n_groups)[given] < 2
    if alone.all():
        raise ValueError("All rows of each class are one group, or copies: no other row shows what it looks like. Change groups.")
    if alone.any():
        lonely = names[np.unique(given[alone])].tolist()[:5]
        which = "Classes of one row" + ("" if groups is None else ", or whose rows are one group or copies,")
        warnings.warn(f"{which} can't be judged, and count as right: {lonely}.", UserWarning, stacklevel=outer_level())
    return alone


def _clean_codes(labels: Any, names: np.ndarray) -> np.ndarray:
    values = label_array(labels, "clean labels")
    unknown = sorted({str(value) for value in values.tolist() if value not in set(names.tolist())})
    if unknown:
        raise ValueError(f"clean has the classes {unknown[:5]}, which labels lack: {names.tolist()[:20]}. Leave these rows out.")
    return class_codes(values, names)[1]


def _groups(groups: Any, n_rows: int, n_all: int) -> np.ndarray | None:
    """A group number for each row; each row of a second clean sample is its own group."""
    if groups is None:
        return None
    values = label_array(groups, "groups")
    if len(values) != n_rows:
        raise ValueError(f"groups must be ({n_rows},), one for each row; got {len(values)}.")
    codes = np.unique(values, return_inverse=True)[1]
    return np.concatenate([codes, codes.max() + 1 + np.arange(n_all - n_rows)])


def _regressor(model: Any) -> Any:
    _check_instance(model)
    if model is not None and not (hasattr(model, "predict") and hasattr(model, "fit")):
        raise ValueError(f"model must be a scikit-learn regressor for numbers; got {shown(model)}.")
    if hasattr(model, "predict_proba") or (isinstance(model, BaseEstimator) and is_classifier(model)):
        raise ValueError(
            f"These labels are numbers, and model={shown(model)} is a classifier: pass a regressor, or say that each number is a "
            'class, kind="classes".'
        )
    return model


def _check_instance(model: Any) -> None:
    if isinstance(model, type) and not makes_networks(model):
        raise ValueError(f"model is a class: pass an instance of it, model={model.__name__}().")


def _classifier(model: Any, seed: int, device: str) -> Any:
    """A classifier; a function that makes networks becomes one."""
    _check_instance(model)
    if hasattr(model, "predict_proba"):
        return model
    if isinstance(model, BaseEstimator) and is_regressor(model):
        raise ValueError(
            f"These labels are classes, and model={shown(model)} is a regressor: pass a classifier, or say that they are numbers, "
            'kind="numbers".'
        )
    if not makes_networks(model):
        raise ValueError(
            "model must be a scikit-learn classifier with predict_proba, or a function (n_features or shape, n_classes) -> "
            f"nn.Module; got {shown(model)}." + _calibrated_in_place_of(model)
        )
    if not has_torch():
        raise ImportError('A model that makes networks needs torch: pip install "densratio-toolkit[torch]".')
    return torch_network()(model, random_state=seed, device=device)


def _calibrated_in_place_of(model: Any) -> str:
    if not (isinstance(model, BaseEstimator) and is_classifier(model)):
        return ""
    return f" Probabilities of it: sklearn.calibration.CalibratedClassifierCV({shown(model)})."


def _say_how_long(model: Any, rows: Any, given: np.ndarray, n_folds: int, seed: int, device: str) -> None:
    some = np.random.default_rng(seed).permutation(len(given))[:2000]
    is_network, on_cpu = has_torch() and isinstance(model, torch_network()), str(device) == "cpu"
    if is_network and not on_cpu:
        fitted_to(model, rows, given, some)  # the first fit on a GPU also loads libraries
    begin = time.perf_counter()
    fitted_to(model, rows, given, some)
    minutes = (time.perf_counter() - begin) * n_folds * len(given) / len(some) / 60
    where = "of one core" if on_cpu or not is_network else f"on {device}"
    hint = 'device="cuda" if you have a GPU, ' if is_network and on_cpu else ""
    warnings.warn(
        f"{len(given)} rows take about {max(1, round(minutes))} minutes {where}. Pass {hint}n_jobs=2 or a quicker model=.",
        UserWarning, stacklevel=outer_level(),
    )  # fmt: skip
