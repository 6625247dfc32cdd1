"""A call that raises leaves every public estimator as it was, to the bit: its parameters, what it learned, and its columns."""

from __future__ import annotations

import inspect

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

import densratio
from densratio import (
    KMM,
    LSIF,
    Discriminator,
    ImportanceWeighted,
    LabelShiftRatio,
    NoisyLabelClassifier,
    RatioOutlierDetector,
    StackedRatio,
    WeightedConformal,
    stack_domains,
)
from densratio.tables import TableEncoder

RNG = np.random.default_rng(0)
ROWS, DOMAIN = stack_domains(RNG.normal(size=(40, 2)), RNG.normal(0.5, 1.0, (30, 2)))
X, LABELS = pd.DataFrame(ROWS, columns=["a", "b"]), (ROWS[:, 0] > 0.0).astype(int)
RATIO = KMM().fit(X, DOMAIN)
# What is fitted: the estimator, the arguments of fit beside X, and a parameter whose value fit refuses.
FITTED = {
    "KMM": (KMM(), (DOMAIN,), {}, ("regularization", -1.0)),
    "Discriminator": (Discriminator(LogisticRegression()), (DOMAIN,), {}, ("classifier", "none")),
    "StackedRatio": (StackedRatio([KMM(), LSIF(random_state=0)]), (DOMAIN,), {}, ("pull", -1.0)),
    "LabelShiftRatio": (LabelShiftRatio(), (DOMAIN,), {"labels": LABELS[DOMAIN == 0]}, ("confidence", 2.0)),
    "RatioOutlierDetector": (RatioOutlierDetector(), (), {}, ("false_alarms", 2.0)),
    "ImportanceWeighted": (ImportanceWeighted(Ridge(), RATIO), (LABELS,), {}, ("flatten", 2.0)),
    "WeightedConformal": (WeightedConformal(Ridge(), RATIO), (LABELS,), {}, ("confidence", 2.0)),
    "NoisyLabelClassifier": (NoisyLabelClassifier(max_iter=1), (LABELS,), {}, ("batch_size", 0)),
    "TableEncoder": (TableEncoder(), (DOMAIN,), {}, ("max_levels", 0)),
}


def faults(name):
    """Calls of fit that raise, most of them once the columns are known; and one of set_params."""
    _, given, also, (parameter, value) = FITTED[name]
    swapped = X[["b", "a"]]
    late = swapped.astype(object)
    late.iloc[3, 1] = [1.0]
    calls = {
        "a list among numbers": lambda it: it.fit(late, *given, **also),
        "a refused value": lambda it: it.set_params(**{parameter: value}).fit(swapped, *given, **also),
        "an unknown parameter": lambda it: it.set_params(**{parameter: value}, nothing=1),
    }
    if given:
        calls["fewer labels"] = lambda it: it.fit(swapped, *(part[:-1] for part in given), **also)
        calls["one label"] = lambda it: it.fit(swapped, *(np.zeros_like(part) for part in given), **also)
    if name in ("ImportanceWeighted", "WeightedConformal", "TableEncoder"):
        calls.pop("one label")  # numbers may be alike, and a y of one value marks no samples
    return calls


def test_every_public_estimator_is_here_or_in_the_registry_of_ratios():
    classes = {name for name in densratio.__all__ if inspect.isclass(found := getattr(densratio, name)) and hasattr(found, "fit")}
    ratios = {name for name in classes if issubclass(getattr(densratio, name), densratio.estimators.base.RatioEstimator)}
    assert classes - ratios <= FITTED.keys()


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.filterwarnings("ignore")
def test_a_failing_call_changes_nothing(name):
    estimator, given, also, (parameter, value) = FITTED[name]
    fitted = estimator.fit(X, *given, **also)
    kept = fitted.get_params(deep=False)[parameter]
    before = joblib.hash(vars(fitted))
    for what, call in faults(name).items():
        with pytest.raises((ValueError, TypeError)):
            call(fitted)
        if what == "a refused value":
            assert fitted.get_params(deep=False)[parameter] == value
            fitted.set_params(**{parameter: kept})
        assert joblib.hash(vars(fitted)) == before, what
