"""The methods by name, each as a reweighter: a new method is one line in METHODS."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from densratio.training import DIW, CoTeaching, DynamicReweighter, Reweighter, Uniform, ValidationOnly
from densratio.training.registry import METHODS as NAMED
from densratio.training.registry import Ingredients, title_of

from .settings import Experiment
from .shifts import shift_of

__all__ = ["ADIW", "LEARNED", "METHODS", "OF_ROWS", "PLAIN", "REBUILT", "Method", "Sizes", "method_of", "title"]


REBUILT = "diw_rebuilt"
"""DIW with its validation loader made anew for each batch, as first published: for its cost, as it sees one batch alone."""


class Sizes(NamedTuple):
    """What a method is made of: its ingredients, the validation labels, which training rows are off (n_train,), what gives
    P(label right) (n_train,) by cross-fitting, and the module that is compared, None for the losses.
    """

    given: Ingredients
    y_val: Any
    is_off: np.ndarray
    right: Callable[[], np.ndarray]
    layer: str | None
    warmup_epochs: float = 1.0

    def labels(self) -> tuple[Any, Any]:
        """Class by class where a hidden layer is compared, as published."""
        return (None, None) if self.layer is None else (self.given.y_train, self.y_val)


class Method(NamedTuple):
    """A name in METHODS; val_refresh: rows renewed in a bank of all validation rows, in one batch of `val_every`; None: a whole
    validation batch in each.
    """

    name: str
    val_refresh: int | None = None
    val_every: int = 1

    def __str__(self) -> str:
        bank = "" if self.val_refresh is None else f"@{self.val_refresh}"
        return self.name + bank + (f"per{self.val_every}" if self.val_every > 1 else "")

    def build(self, experiment: Experiment, sizes: Sizes) -> Reweighter:
        """The reweighter of one run."""
        return METHODS[self.name](self, experiment, sizes)


def _diw(solver: str) -> Callable[[Method, Experiment, Sizes], Reweighter]:
    def build(method: Method, experiment: Experiment, sizes: Sizes) -> Reweighter:
        is_published = experiment.parameters == "published"
        gamma = experiment.recipe("diw").ratio.gamma if is_published else "target_spread"
        y_train, y_val = sizes.labels()
        return DIW(
            sizes.given.n_train, sizes.given.n_val, gamma=gamma, solver=solver, normalize=not is_published, layer=sizes.layer,
            y_train=y_train, y_val=y_val, val_refresh=method.val_refresh, val_every=method.val_every,
            warmup_epochs=sizes.warmup_epochs,
        )  # fmt: skip

    return build


def _adiw(method: Method, experiment: Experiment, sizes: Sizes) -> Reweighter:
    y_train, y_val = sizes.labels()
    n_train, n_val = sizes.given.n_train, sizes.given.n_val
    options: dict[str, Any] = {
        "layer": sizes.layer, "y_train": y_train, "y_val": y_val, "val_refresh": method.val_refresh, "val_every": method.val_every,
        "warmup_epochs": sizes.warmup_epochs,
    }  # fmt: skip
    if experiment.parameters == "published" and method.name in PUBLISHED:
        return experiment.recipe(PUBLISHED[method.name]).reweighter(n_train, n_val, **options)
    if method.name == "sliced":
        return DynamicReweighter("wasserstein", n_train, n_val, potential="sliced", **options)
    return DynamicReweighter(method.name, n_train, n_val, **options)


class _Plain(Uniform):
    """A loop without a reweighter: for its cost."""

    def weighted_loss(self, model: nn.Module, train: Any, val: Any = None) -> Tensor:
        x, y, _ = train
        return self.losses(model(x), y).mean()


def _plain(method: Method, experiment: Experiment, sizes: Sizes) -> Reweighter:
    return _Plain(sizes.given.n_train)


def _val_only(method: Method, experiment: Experiment, sizes: Sizes) -> Reweighter:
    # As published an epoch is one pass over the validation rows, which then are the training rows of the session.
    return (Uniform if experiment.parameters == "published" else ValidationOnly)(sizes.given.n_train)


def _right_rows(method: Method, experiment: Experiment, sizes: Sizes) -> Reweighter:
    if not shift_of(experiment.shift).has_noisy_rows:
        raise ValueError(f"{method.name} needs wrong labels; {experiment.shift!r} has none.")
    return _fixed(~sizes.is_off)


def _cross_fitted(method: Method, experiment: Experiment, sizes: Sizes) -> Reweighter:
    return _fixed(sizes.right())


def _cross_fitted_two(method: Method, experiment: Experiment, sizes: Sizes) -> Reweighter:
    both = CoTeaching(sizes.given.n_train, sizes.given.model, sizes.given.optimizer, forget_rate=0.0)
    both.set_base_weights(sizes.right())
    return both


def _fixed(weights: np.ndarray) -> Reweighter:
    plain = Uniform(len(weights))
    plain.set_base_weights(weights)
    return plain


def _as_in_the_library(method: Method, experiment: Experiment, sizes: Sizes) -> Reweighter:
    return NAMED[method.name].make(sizes.given)


ADIW = ("kmm", "kliep", "lsif", "wasserstein")
"""The paper's own methods."""
PUBLISHED = {"kmm": "adiw-km", "kliep": "adiw-kl", "lsif": "adiw-ls", "wasserstein": "adiw-wa"}
"""What `densratio.training.published` calls them."""
_BASELINES = ("val_only", "uniform", "random")
PLAIN = "plain"
"""The mean loss without a reweighter."""
_OF_THE_EXPERIMENT = {"diw": _diw("auto"), "diw_cvxpy": _diw("cvxpy"), **dict.fromkeys((*ADIW, "sliced", "auto"), _adiw)}
OF_ROWS: dict[str, Callable[[Method, Experiment, Sizes], Reweighter]] = {
    "right_rows": _right_rows,
    "cross_fitted": _cross_fitted,
    "cross_fitted_two": _cross_fitted_two,
}
"""Weights that stay: 1 or 0 for right and wrong labels, which no method is told; and P(label right) by two rounds of
cross-fitting, as NoisyLabelClassifier weighs rows, for one network, or for two that are drawn apart.
"""
METHODS: dict[str, Callable[[Method, Experiment, Sizes], Reweighter]] = {
    **dict.fromkeys(_BASELINES, _as_in_the_library),
    "val_only": _val_only,
    PLAIN: _plain,
    **OF_ROWS,
    **_OF_THE_EXPERIMENT,
    REBUILT: _diw("auto"),
    **{name: _as_in_the_library for name in NAMED if name not in (*_BASELINES, *_OF_THE_EXPERIMENT)},
}
"""Reweighter of a run, by name."""
WITH_BANK = tuple(_OF_THE_EXPERIMENT)
LEARNED = tuple(name for name in METHODS if name not in (*_BASELINES, PLAIN, *WITH_BANK, REBUILT, *OF_ROWS))
"""Learned methods and rules."""
_TITLES = {
    "diw_cvxpy": "DIW (cvxpy)",
    PLAIN: "Plain loop, no reweighter",
    "right_rows": "Right rows alone",
    "cross_fitted": "Cross-fitted",
    "cross_fitted_two": "Cross-fitted, two networks",
    REBUILT: "DIW, validation loader rebuilt",
    "kmm": "ADIW-KM",
    "kliep": "ADIW-KL",
    "lsif": "ADIW-LS",
    "wasserstein": "ADIW-WA",
    "sliced": "ADIW-WA, sliced",
    "auto": "ADIW auto",
}


def method_of(text: str) -> Method:
    """NAME, NAME@ROWS for a bank that renews ROWS validation rows a step, or NAME@ROWSperBATCHES where one step in so many does.

    Raises ValueError for anything else.
    """
    name, at, rows = text.strip().lower().replace("-", "_").partition("@")
    if name not in METHODS:
        raise ValueError(
            f"Method {text!r} is not known; use some of {', '.join(METHODS)}, or NAME@32 for a bank of 32 rows a step."
        )
    if not at:
        return Method(name)
    sizes = re.fullmatch(r"([1-9]\d*)(?:per([1-9]\d*))?", rows)
    if name not in WITH_BANK or sizes is None:
        raise ValueError(
            f"{text!r} is no method with a bank: it is NAME@ROWS or NAME@ROWSperBATCHES with a name in {', '.join(WITH_BANK)} and "
            "numbers >= 1."
        )
    return Method(name, int(sizes[1]), int(sizes[2] or 1))


def title(method: str, layer: str = "losses") -> str:
    """The method as the paper calls it: -L compares losses, -F a hidden layer."""
    name, _, rows = method.partition("@")
    suffix = "" if name not in WITH_BANK else "-L" if layer == "losses" else "-F"
    return (_TITLES.get(name) or title_of(name)) + suffix + (f", bank {rows.replace('per', ' per ')}" if rows else "")
