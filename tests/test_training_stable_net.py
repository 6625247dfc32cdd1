"""StableNet against the same steps in numpy, and that it parts features that go along with each other."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import N_TRAIN, C, Network, assert_same, of, optimizer_of, plan, train
from torch import nn

from densratio.training import StableNet

FEATURES = 6


def dependence(functions, weights):
    """Squared covariances of all functions (N, d, f) of different features, one by one, and the slope in the weights."""
    n, d, f = functions.shape
    total, slope = 0.0, np.zeros(n)
    for i in range(d):
        for j in (j for j in range(d) if j != i):
            for a in range(f):
                for b in range(f):
                    one, other = functions[:, i, a], functions[:, j, b]
                    means = weights @ one, weights @ other
                    covariance = weights @ (one * other) - means[0] * means[1]
                    total += covariance**2
                    slope += 2.0 * covariance * (one * other - means[0] * other - means[1] * one)
    return total, slope


def softmax(scores):
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


def by_hand(features, saved, draws, n_steps, rate, penalty):
    """Scores (n,) after the steps. saved: rows (m, d) and scores (m,)."""
    n, everything = len(features), np.vstack([features, saved[0]])
    scaled = (everything - everything.mean(0)) / everything.std(0)
    scores, velocity, even = np.ones(n), np.zeros(n), np.full(len(everything), 1.0 / len(everything))
    for step, (omega, phi) in enumerate(draws):
        functions = np.sqrt(2.0) * np.cos(scaled[:, :, None] * omega + phi)
        weights, own = softmax(np.concatenate([scores, saved[1]])), softmax(scores)
        slope = dependence(functions, weights)[1] / dependence(functions, even)[0]
        # The slope of a softmax: s_i (g_i - sum_k s_k g_k).
        slope = weights[:n] * (slope[:n] - weights @ slope) + penalty * n * own * (2 * own - own @ (2 * own))
        slope = n * slope / max(1.0, np.sqrt(np.mean((n * slope) ** 2)))
        velocity = 0.9 * velocity + slope
        scores = scores - rate * velocity * (1.0 if step < n_steps / 2 else 0.1)
    return scores


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 99), n_functions=st.integers(1, 2), n_saved=st.sampled_from([0, 5, 20]), n_steps=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 1.0, 5.0]),
)  # fmt: skip
def test_weights_and_saved_rows_are_those_of_the_steps_by_hand(seed, n_functions, n_saved, n_steps, penalty):
    model = Network(seed, False).double()
    params = {"n_functions": n_functions, "n_saved": n_saved, "n_steps": n_steps, "penalty": penalty, "seed": seed}
    stable = StableNet(N_TRAIN, FEATURES, **params).double()
    saved = np.zeros((0, FEATURES)), np.zeros(0)
    rows, scores, visits = np.zeros((n_saved, FEATURES)), np.ones(n_saved), np.zeros(n_saved)
    for number, index in enumerate(plan(3, seed=seed)):
        x, y, i = of(index)
        features = model.hidden(x.double()).detach().numpy()
        drawn = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(drawn[0]))
        omega = torch.randn(n_steps, FEATURES, n_functions, generator=generator)
        phi = 2 * np.pi * torch.rand(n_steps, FEATURES, n_functions, generator=generator)
        draws = zip(omega.numpy().astype(float), phi.numpy().astype(float), strict=True)
        found = by_hand(features, saved, draws, n_steps, 0.1, penalty)
        loss = stable.weighted_loss(model, (x.double(), y, i)).detach()
        weights = len(i) * softmax(found)
        np.testing.assert_allclose(stable.transform(i).numpy(), weights, rtol=1e-5)
        each = nn.functional.cross_entropy(model(x.double()), y, reduction="none").detach().numpy()
        assert float(loss) == pytest.approx(float((weights * each).mean()), rel=1e-5)
        for k in range(min(len(i), n_saved)):
            share = max(0.1, 1.0 / (visits[k] + 1.0))
            rows[k], scores[k] = (1 - share) * rows[k] + share * features[k], (1 - share) * scores[k] + share * found[k]
            visits[k] += 1
        saved = rows[visits > 0], scores[visits > 0]
        np.testing.assert_allclose(stable.saved_features.numpy(), rows, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(stable.saved_scores.numpy(), scores, rtol=1e-5)


class Features(nn.Module):
    """A last layer alone: its input are the features."""

    def __init__(self, n_features=FEATURES):
        super().__init__()
        self.out = nn.Linear(n_features, C)

    def forward(self, x):
        return self.out(x)


def weighted_correlation(features, weights):
    share = weights / weights.sum()
    centered = features - share @ features
    covariance = (centered * share[:, None]).T @ centered
    return covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))


def step(stable, features):
    n = len(features)
    return stable.weighted_loss(Features(features.shape[1]), (features, torch.zeros(n, dtype=torch.int64), torch.arange(n)))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), n_features=st.integers(2, 8))
def test_features_that_go_along_do_so_less_under_the_weights(seed, n_features):
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(120, 1, generator=generator)
    features = common + 0.7 * torch.randn(120, n_features, generator=generator)
    stable = StableNet(120, n_features, seed=seed)
    step(stable, features)
    weights, other = stable.weights_.double().numpy(), ~np.eye(n_features, dtype=bool)
    before, after = (np.square(weighted_correlation(features.double().numpy(), w)[other]).mean() for w in (np.ones(120), weights))
    assert after < 0.7 * before
    assert weights.min() > 0 and weights.mean() == pytest.approx(1.0, rel=1e-5) and (weights**2).mean() < 2.0


def test_the_unit_of_a_feature_does_not_count_and_neither_does_a_constant_one():
    features = torch.randn(30, FEATURES, generator=torch.Generator().manual_seed(0))
    features[:, 1:] += features[:, :1]
    found = []
    for values in (features, 1e4 * features + 7.0, features * torch.tensor([1.0, 1e-3, 5.0, 1e6, 2.0, 1.0])):
        stable = StableNet(30, FEATURES)
        step(stable, values)
        found.append(stable.weights_)
    torch.testing.assert_close(found[1], found[0], rtol=2e-2, atol=2e-3)
    torch.testing.assert_close(found[2], found[0], rtol=2e-2, atol=2e-3)
    stable = StableNet(30, 2)
    step(stable, torch.stack([features[:, 0], torch.full((30,), 0.1)], dim=1))
    torch.testing.assert_close(stable.weights_, torch.ones(30), rtol=0.0, atol=1e-2)


@pytest.mark.parametrize("n", [1, 2])
def test_batches_of_few_rows_have_finite_weights_of_mean_1(n):
    stable = StableNet(5, FEATURES)
    step(stable, torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(0)))
    assert float(stable.weights_[:n].mean()) == pytest.approx(1.0) and bool(torch.isfinite(stable.saved_features).all())


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, C))

    def forward(self, x):
        return x @ self.weight


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Bare(), "this model has none"),
        (nn.Sequential(nn.Linear(4, 7), nn.Linear(7, C)), r"has an input of shape \(9, 7\). Give n_features"),
    ],
    ids=["none", "other"],
)
def test_a_model_without_such_a_layer_is_refused_and_nothing_changes(model, words):
    stable = StableNet(N_TRAIN, FEATURES)
    before = copy.deepcopy(stable.state_dict())
    with pytest.raises(ValueError, match=words):
        train(stable, model, optimizer_of(model), [torch.arange(9)])
    assert_same(stable.state_dict(), before)


@pytest.mark.parametrize(
    ("params", "words"),
    [({"n_saved": -1}, "n_saved must be"), ({"decay": 1.0}, "decay must be"), ({"penalty": -1.0}, "penalty must be"),
     ({"n_functions": 0}, "n_functions must be"), ({"learning_rate": 0.0}, "learning_rate must be")],
)  # fmt: skip
def test_parameters_that_cannot_be_are_refused(params, words):
    with pytest.raises(ValueError, match=words):
        StableNet(N_TRAIN, FEATURES, **params)
