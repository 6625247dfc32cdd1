"""Suggestions in messages about unknown names: the known names that a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["alike", "did_you_mean", "nearest", "plain"]

_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    # Density ratios.
    "kmm": ("kernel mean matching", "maximum mean discrepancy", "adiw-km"),
    "kliep": ("Kullback-Leibler importance estimation procedure", "adiw-kl"),
    "lsif": ("unconstrained least-squares importance fitting", "uLSIF", "RuLSIF", "adiw-ls"),
    "wasserstein": ("optimal transport", "earth mover's distance", "adiw-wa"),
    "discriminator": ("probabilistic classification", "classifier", "logistic regression"),
    "gaussian": ("normal distributions",),
    "kde": ("kernel density estimation",),
    "nearest_neighbors": ("k nearest neighbors", "knn"),
    "spectral": ("eigenfunctions",),
    "subspace_lsif": ("least-squares hetero-distributional subspace search", "LHSS"),
    # Methods in a training loop.
    "val_only": ("validation only",),
    "uniform": ("unweighted", "plain cross entropy", "empirical risk minimization", "erm"),
    "diw": ("dynamic importance weighting",),
    "l2r": ("learning to reweight",),
    "mw_net": ("meta-weight-net",),
    "cmw_net": ("class-aware meta-weight-net",),
    "gdw": ("generalized data weighting",),
    "fsr": ("fast sample reweighting",),
    "gce": ("generalized cross entropy",),
    "sce": ("symmetric cross entropy",),
    "elr": ("early-learning regularization",),
    "m_correction": ("beta mixture", "dynamic bootstrapping"),
    "lrt": ("likelihood ratio test",),
    "plc": ("progressive label correction",),
    "jtt": ("just train twice",),
    "rho_loss": ("reducible holdout loss",),
    # Class ratios.
    "mlls": ("maximum likelihood", "expectation maximization", "saerens"),
    "bbse": ("black box shift estimation", "confusion matrix"),
    "rlls": ("regularized learning under label shift",),
    # Metrics.
    "mean_squared_error": ("mse",),
    "mean_absolute_error": ("mae",),
    "mean_absolute_percentage_error": ("mape",),
    "log_loss": ("cross entropy", "negative log likelihood", "nll"),
    "roc_auc": ("area under the curve", "auroc"),
    # Taming.
    "pareto": ("psis", "smoothing"),
    "truncate": ("clip", "trim"),
}
"""Synonyms in the field, by the name that is known here."""

_LEAST = 2  # letters from which a part of a name is significant
_LEAST_WITHIN = 3
_ALIKE = 0.8  # share of letters in common from which two names seem to be two spellings of one
_MOST = 20  # names that are compared with all others


def plain(name: str) -> str:
    """Letters and digits of a name, in lower case: "MW-Net" and "mw_net" are one name, and so are "ELR+" and "elr_plus"."""
    return "".join(c for c in name.lower().replace("+", "plus") if c.isalnum())


def nearest(name: Any, known: Iterable[str], n: int = 3) -> list[str]:
    """At most n of the known names that `name` may mean, the most likely first; none if it is far from all of them.

    The first of these rules that finds any: the same letters; known names that begin with it, and synonyms; the longest known name
    that it begins with; known names that contain it; a small edit distance.
    """
    keys: dict[str, list[str]] = {}
    for each in known:
        keys.setdefault(plain(each), []).append(each)
    keys.pop("", None)
    text = plain(str(name))
    if text in keys:
        return keys[text][:n]
    begun = [key for key in keys if len(text) >= _LEAST and key.startswith(text)]
    begins = sorted((key for key in keys if len(key) >= _LEAST and text.startswith(key)), key=len, reverse=True)[:1]
    others = {key: [plain(other) for each in names for other in _OTHER_NAMES.get(each, ())] for key, names in keys.items()}
    equal = [key for key in keys if text in others[key]]
    same = [key for key in keys if any(_is_within(text, other) for other in others[key])]
    within = [key for key in keys if _is_within(text, key)]
    near = difflib.get_close_matches(text, keys, n=n)
    found = equal or list(dict.fromkeys([*begun, *same])) or begins or within or near
    return [each for key in found for each in keys[key]][:n]


def alike(names: Sequence[Any], others: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Pairs (name, other), as of columns, that seem to be two spellings of one, with the same digits; of the first 20 names."""
    of_digits: dict[str, dict[str, Any]] = {}
    for other in others:
        of_digits.setdefault(_digits(other), {})[plain(str(other))] = other
    pairs = []
    for name in names[:_MOST]:
        known = of_digits.get(_digits(name), {})
        pairs += [(name, known[key]) for key in difflib.get_close_matches(plain(str(name)), known, n=1, cutoff=_ALIKE)]
    return pairs


def did_you_mean(name: Any, known: Iterable[str], n: int = 3) -> str:
    """ " Did you mean 'a' or 'b'?", the end of a message, or "" if no known name is near."""
    names = nearest(name, known, n)
    return f" Did you mean {' or '.join(map(repr, names))}?" if names else ""


def _digits(name: Any) -> str:
    return "".join(c for c in str(name) if c.isdigit())


def _is_within(one: str, other: str) -> bool:
    """Whether one of two names contains the other."""
    short, long = sorted((one, other), key=len)
    return len(short) >= _LEAST_WITHIN and short in long
