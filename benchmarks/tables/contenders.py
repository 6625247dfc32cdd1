"""Who takes part: the library, the method in its adapter's words, and the parameters that differ from the library's defaults."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from densratio.estimators import ESTIMATORS

__all__ = ["OURS", "Contender", "contenders", "hoxo_grid", "kliep_grid"]

OURS = "densratio"
ENVIRONMENT = {OURS: "own", "sklearn": "own", "adapt": "others", "skada": "others", "hoxo": "hoxo"}
LABEL = {OURS: "ours", "sklearn": "scikit-learn", "adapt": "adapt", "skada": "skada", "hoxo": "hoxo-m"}

# Grids as the other libraries' own defaults or examples have them. sigma, lambda: hoxo-m's 9 values; gamma = 1 / (2 sigma^2).
SIGMAS = [float(x) for x in 10.0 ** np.linspace(-3, 1, 9)]
LAMBDAS = SIGMAS
GAMMAS = [1.0 / (2.0 * sigma**2) for sigma in SIGMAS]
KLIEP_GAMMAS = [0.01, 0.1, 1.0, 10.0, 100.0]


class Contender(NamedTuple):
    """library: libraries/for_LIBRARY.py. family: whose cost it is compared with. params: passed to the library as they are."""

    library: str
    setting: str
    family: str
    method: str
    params: dict[str, Any] = {}  # noqa: RUF012

    @property
    def name(self) -> str:
        return f"{LABEL[self.library]} {self.setting}"

    @property
    def environment(self) -> str:
        return ENVIRONMENT[self.library]

    @property
    def is_default(self) -> bool:
        return not self.params


FAMILY = {
    "kmm": "KMM",
    "kliep": "KLIEP",
    "lsif": "least squares",
    "spectral": "least squares",
    "subspace_lsif": "least squares",
    "discriminator": "classifier",
    "nearest_neighbors": "neighbors",
    "kde": "densities",
    "gaussian": "densities",
}
"""Family by name in ESTIMATORS; "other" where not named."""

NAMED = [
    Contender(OURS, "KLIEP, CV", "KLIEP", "kliep", {"gamma": "cv"}),
    Contender(OURS, "KMM, CV", "KMM", "kmm", {"gamma": "cv"}),
    Contender(OURS, "LSIF, CV", "least squares", "lsif", {"gamma": "cv", "regularization": "cv"}),
    Contender(
        OURS, "uLSIF, CV", "least squares", "lsif", {"nonnegative": False, "gamma": "cv", "regularization": "cv"}
    ),
    Contender(
        OURS, "RuLSIF 0.1, CV", "least squares", "lsif",
        {"alpha": 0.1, "nonnegative": False, "gamma": "cv", "regularization": "cv"},
    ),
]  # fmt: skip
"""Our settings besides the defaults of every entry of ESTIMATORS."""

OTHERS = [
    Contender("adapt", "KMM", "KMM", "kmm"),
    Contender("adapt", "KLIEP", "KLIEP", "kliep"),
    Contender("adapt", "KLIEP, CV", "KLIEP", "kliep", {"gamma": KLIEP_GAMMAS}),
    Contender("adapt", "uLSIF", "least squares", "ulsif"),
    Contender("adapt", "uLSIF, CV", "least squares", "ulsif", {"gamma": GAMMAS, "lambdas": LAMBDAS}),
    Contender("adapt", "RuLSIF 0.1", "least squares", "rulsif"),
    Contender("adapt", "RuLSIF 0.1, CV", "least squares", "rulsif", {"gamma": GAMMAS, "lambdas": LAMBDAS}),
    Contender("adapt", "nearest neighbors", "neighbors", "neighbors"),
    Contender("adapt", "classifier", "classifier", "classifier"),
    Contender("skada", "KMM", "KMM", "kmm"),
    Contender("skada", "KLIEP", "KLIEP", "kliep"),
    Contender("skada", "KLIEP, CV", "KLIEP", "kliep", {"gamma": KLIEP_GAMMAS}),
    Contender("skada", "densities", "densities", "density"),
    Contender("skada", "Gaussians", "densities", "gaussian"),
    Contender("skada", "classifier", "classifier", "classifier"),
    Contender("skada", "nearest neighbors", "neighbors", "neighbors"),
    Contender("hoxo", "uLSIF", "least squares", "uLSIF"),
    Contender("hoxo", "RuLSIF 0.1", "least squares", "RuLSIF"),
    Contender("hoxo", "KLIEP", "KLIEP", "KLIEP"),
    Contender("sklearn", "logistic regression", "classifier", "logistic"),
]


def contenders(only: str | None = None) -> list[Contender]:
    """All of them, ours first; `only`: those whose name contains it, in any case."""
    ours = [Contender(OURS, _title(name), FAMILY.get(name, "other"), name) for name in ESTIMATORS]
    everyone = [*ours, *NAMED, *OTHERS]
    chosen = [c for c in everyone if only is None or only.lower() in c.name.lower()]
    if not chosen:
        raise ValueError(f"No contender's name contains {only!r}; they are {', '.join(c.name for c in everyone)}.")
    return chosen


def _title(name: str) -> str:
    return ESTIMATORS[name].__name__


def hoxo_grid() -> list[Contender]:
    """uLSIF by its leave-one-out score over the same 9 bandwidths, in the columns' own units, and 9 strengths."""
    grid = {"nonnegative": False, "gamma": GAMMAS, "regularization": LAMBDAS, "scale": None}
    return [
        Contender(OURS, "uLSIF, 9 x 9", "least squares", "lsif", grid),
        Contender("hoxo", "uLSIF, 9 x 9", "least squares", "uLSIF"),
        Contender("hoxo", "uLSIF, 9 x 9, without numba", "least squares", "uLSIF", {"kernel_target": "numpy"}),
        Contender("adapt", "uLSIF, 9 x 9", "least squares", "ulsif", {"gamma": GAMMAS, "lambdas": LAMBDAS}),
    ]


def kliep_grid() -> list[Contender]:
    """KLIEP by likelihood cross-validation over the same 5 bandwidths in the columns' own units, 5 folds each, 100 centers."""
    return [
        Contender(OURS, "KLIEP, 5 x 5", "KLIEP", "kliep", {"gamma": KLIEP_GAMMAS, "cv": 5, "scale": None}),
        Contender("adapt", "KLIEP, 5 x 5", "KLIEP", "kliep", {"gamma": KLIEP_GAMMAS, "cv": 5}),
        Contender("skada", "KLIEP, 5 x 5", "KLIEP", "kliep", {"gamma": KLIEP_GAMMAS, "cv": 5}),
    ]
