"""Every estimator of this package, by its name in ESTIMATORS."""

from __future__ import annotations

import inspect

from densratio import stack_domains
from densratio.estimators import ESTIMATORS

PACKAGES = ["densratio-toolkit", "scikit-learn", "scipy", "numpy"]


def fit(method, params, source, target, seed):
    """weights_ (n_source,) and rows (n, d) -> ratio (n,)."""
    kind = ESTIMATORS[method]
    seeded = {"random_state": seed} if "random_state" in inspect.signature(kind.__init__).parameters else {}
    ratio = kind(**params, **seeded).fit(*stack_domains(source, target))
    return ratio.weights_, ratio.transform
