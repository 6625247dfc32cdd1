"""MAPIE's intervals and sets of a fitted model's predictions; run by an interpreter that has MAPIE: in_mapie.py IN.npz OUT.npz.

IN: predictions at calibration rows and new rows, of a regression and as class probabilities, and the labels.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np
from mapie.classification import SplitConformalClassifier
from mapie.regression import SplitConformalRegressor
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin


class Given(RegressorMixin, BaseEstimator):
    """A fitted model that predicts what its row says."""

    is_fitted_ = True

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X[:, 0]


class GivenProba(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose probabilities are its row."""

    classes_ = np.arange(3)
    is_fitted_ = True

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)


given = np.load(sys.argv[1])
found = {}
regressor = SplitConformalRegressor(Given(), confidence_level=0.9, prefit=True)
regressor.conformalize(given["calibration"][:, None], given["y"])
found["interval"] = regressor.predict_interval(given["new"][:, None])[1][:, :, 0]
classifier = SplitConformalClassifier(GivenProba(), confidence_level=0.9, conformity_score="lac", prefit=True)
classifier.conformalize(given["calibration_proba"], given["classes"])
found["set"] = classifier.predict_set(given["new_proba"])[1][:, :, 0]
np.savez(sys.argv[2], version=version("mapie"), **found)
