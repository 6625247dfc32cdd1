"""Which network `NoisyLabelClassifier` takes for a table, how it is held back, and when its training ends."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from densratio import NoisyLabelClassifier, find_label_issues
from densratio.datasets import label_noise

pytest.importorskip("torch")

from torch import nn

from densratio.labels.networks import small_network
from densratio.labels.rows import Rows
from densratio.labels.training import Plan, predicted, train


def embeddings(n, d=1000, r=100, k=5, seed=0, wrong=0.4):
    """Many columns that r directions make, of which those that vary least tell the class most; given labels, and right ones."""
    rng, size = np.random.default_rng(seed), np.geomspace(1.0, 0.1, r)
    y = rng.integers(k, size=n)
    latent = rng.normal(size=(n, r)) * size + (0.6 * rng.normal(size=(k, r)) * size[::-1])[y]
    given = np.where(rng.random(n) < wrong, rng.integers(k, size=n), y)
    return latent @ rng.normal(size=(r, d)) + 0.05 * rng.normal(size=(n, d)), given, y


def perceptron(shape, n_classes):
    return small_network((shape,), n_classes, hidden=512)


@pytest.mark.parametrize("C", [0.1, 0.01])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_linear_network_is_the_logistic_regression_of_its_penalty(C, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(300, 5)).astype(np.float32), rng.integers(3, size=300)
    weight = rng.random(300)
    rows = Rows(x, y, np.ones(300), np.zeros(300, dtype=bool))
    plan = Plan(None, 3, 60, 1e-3, 64, "cpu", lambda: None).linear(1.0 / (C * 300))
    expected = LogisticRegression(C=C, max_iter=1000, tol=1e-8).fit(x, y, sample_weight=weight / weight.mean())
    found = predicted(plan, train(plan, rows, weight, seed)[0], x)
    np.testing.assert_allclose(found, expected.predict_proba(x), atol=0.02)


def test_embeddings_mostly_get_a_linear_network():
    models = [NoisyLabelClassifier("uniform", max_iter=4, random_state=seed) for seed in range(3)]
    kinds = [type(model.fit(*embeddings(700, d=400, seed=seed)[:2]).module_) for seed, model in enumerate(models)]
    assert kinds.count(nn.Linear) >= 2


def test_a_network_of_ones_own_is_kept():
    X, given, _ = embeddings(100, d=10)
    assert isinstance(NoisyLabelClassifier("uniform", perceptron, max_iter=2).fit(X, given).module_, nn.Sequential)


class Tuple(nn.Linear):
    def forward(self, x):
        return super().forward(x), 1


class NotANumber(nn.Linear):
    def forward(self, x):
        return super().forward(x) * np.nan


NETWORKS = [
    (lambda d, k: nn.Linear(d, 2), r"must give logits \(n, 3\); for 2 rows it gave shape \(2, 2\)"),
    (lambda d, k: nn.Linear(7, k), r"can't take rows of shape \(4,\)"),
    (lambda d, k: nn.Conv2d(1, 3, 3), r"can't take rows of shape \(4,\)"),
    (lambda d, k: 3, "it gave int"),
    (Tuple, "for 2 rows it gave a tuple"),
    (NotANumber, "The loss of the network is nan|probabilities that are NaN"),
]


@pytest.mark.parametrize(("network", "words"), NETWORKS)
def test_a_network_that_does_not_fit_is_told(network, words):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 3
    with pytest.raises(ValueError, match=words):
        NoisyLabelClassifier(model=network, max_iter=2).fit(X, y)
    with pytest.raises(ValueError, match=words):
        find_label_issues(X, y, model=network, n_repeats=1)


def test_rows_of_which_a_perceptron_tells_more_keep_it():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    model = NoisyLabelClassifier(max_iter=20).fit(X, np.where(rng.random(400) < 0.2, 1 - y, y))
    assert isinstance(model.module_, nn.Sequential) and model.score(X, y) > 0.9


def test_the_training_ends_where_rows_that_were_held_out_are_told_best():
    """A perceptron learns few rows by heart: more epochs lower its loss on them, and others are told less well."""
    X, y = load_breast_cancer(return_X_y=True)
    X, shorter, whole = (X - X.mean(axis=0)) / X.std(axis=0), [], []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(y))
        learned, held = order[:250], order[250:]
        given = label_noise(y[learned], "symmetric", 0.3, random_state=seed).labels
        model = NoisyLabelClassifier(model=perceptron, random_state=seed).fit(X[learned], given)
        assert model.n_iter_ < 60
        rows = Rows(X[learned].astype(np.float32), given, np.ones(250), np.zeros(250, dtype=bool))
        plan = Plan(perceptron, 2, 60, 1e-3, 64, "cpu", lambda: None)
        network = train(plan, rows, model.weights_, seed)[0]
        shorter.append(log_loss(y[held], model.predict_proba(X[held])))
        whole.append(log_loss(y[held], predicted(plan, network, X[held].astype(np.float32))))
    assert np.mean(shorter) < 0.8 * np.mean(whole)
